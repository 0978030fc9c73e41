package exporter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// slowWriter takes what is written once it is let.
type slowWriter struct {
	gate chan struct{}
	mu   sync.Mutex
	bytes.Buffer
}

func (w *slowWriter) Write(p []byte) (int, error) {
	<-w.gate
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Buffer.Write(p)
}

func closePrinter(t *testing.T, p *Printer) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return p.Close(ctx)
}

func TestPrinterWritesALinePerSpan(t *testing.T) {
	var out bytes.Buffer
	p := NewPrinter(&out, QueryNone)
	for i := range 100 {
		p.Add(numbered(i))
	}
	if err := closePrinter(t, p); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 101 || lines[0] != Header(Style{}) || lines[100] != Line(numbered(99), Style{Query: QueryNone}) {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
	if strings.Contains(out.String(), "\x1b") || p.Dropped() != 0 {
		t.Errorf("%d dropped, or colours in a file", p.Dropped())
	}
	if err := closePrinter(t, p); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func TestPrinterDoesNotWaitForASlowTerminal(t *testing.T) {
	out := &slowWriter{gate: make(chan struct{})}
	p := NewPrinter(out, QueryKeys)
	const n = 10 * printerLines
	for i := range n {
		p.Add(numbered(i))
	}
	if p.Dropped() < n-printerLines-1 {
		t.Errorf("%d lines were dropped", p.Dropped())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close of a writer that blocks says %v", err)
	}
	close(out.gate)
	if err := closePrinter(t, p); err != nil {
		t.Fatal(err)
	}
	shown := strings.Count(out.String(), "CLIENT")
	if shown+int(p.Dropped()) != n {
		t.Errorf("%d shown and %d dropped are not %d", shown, p.Dropped(), n)
	}
	if !strings.Contains(out.String(), "spans came too fast to be shown\n") {
		t.Error("the loss is not told")
	}
}

func TestPrinterToAPipeThatCloses(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	p := NewPrinter(w, QueryKeys)
	for i := range 10 {
		p.Add(numbered(i))
	}
	if err := closePrinter(t, p); !errors.Is(err, unix.EPIPE) {
		t.Errorf("Close says %v", err)
	}
	if p.Dropped() != 10 {
		t.Errorf("%d of 10 spans count as dropped", p.Dropped())
	}
}

// openTerminal makes a pseudo-terminal of so many columns, and returns the two ends.
func openTerminal(t *testing.T, columns uint16) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: 24}); err != nil {
		t.Fatal(err)
	}
	return master, terminal
}

func TestTerminalStyle(t *testing.T) {
	_, terminal := openTerminal(t, 120)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cases := []struct {
		what    string
		out     *os.File
		noColor string
		term    string
		want    Style
	}{
		{"a terminal", terminal, "", "xterm", Style{Width: 120, Color: true, Query: QueryNone}},
		{"a terminal, NO_COLOR set", terminal, "1", "xterm", Style{Width: 120, Query: QueryNone}},
		{"a terminal that knows no colours", terminal, "", "dumb", Style{Width: 120, Query: QueryNone}},
		{"a file", file, "", "xterm", Style{Query: QueryNone}},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			t.Setenv("NO_COLOR", c.noColor)
			t.Setenv("TERM", c.term)
			if got := TerminalStyle(c.out, QueryNone); got != c.want {
				t.Errorf("it is %+v, not %+v", got, c.want)
			}
			if IsTerminal(c.out) != (c.out == terminal) {
				t.Errorf("IsTerminal says %v", IsTerminal(c.out))
			}
		})
	}
}

func TestPrinterOnATerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	master, terminal := openTerminal(t, 100)
	p := NewPrinter(terminal, QueryNone)
	lines := bufio.NewReader(master)
	next := func() string {
		t.Helper()
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(line, "\r\n") // as a terminal ends lines
	}
	read := func(want string) {
		t.Helper()
		if got := next(); got != want {
			t.Errorf("the terminal shows %q, not %q", got, want)
		}
	}
	read(Header(Style{Width: 100, Color: true}))
	p.Add(exampleSpan())
	read(Line(exampleSpan(), Style{Width: 100, Color: true, Query: QueryNone}))
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 140, Row: 24}); err != nil {
		t.Fatal(err)
	}
	// The line after the next one knows of the new width at the latest.
	p.Add(exampleSpan())
	next()
	eventually(t, "the printer sees the new width", func() bool { return p.width.Load() == 140 })
	p.Add(exampleSpan())
	read(Line(exampleSpan(), Style{Width: 140, Color: true, Query: QueryNone}))
	if err := closePrinter(t, p); err != nil {
		t.Error(err)
	}
}
