package exporter

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"ambit/l7"
)

// printerLines is how many lines wait for a terminal that does not take them. A line is at most some
// kilobytes, as a span's text is.
const printerLines = 256

// Printer writes one line per span. A writer that blocks, as a terminal does after ^S, blocks nothing else:
// at most printerLines lines wait for it, and those beyond are dropped, counted, and told of in a line of
// their own.
type Printer struct {
	out   io.Writer
	file  *os.File // out, where that is a terminal
	style Style
	width atomic.Int32

	lines   chan []byte
	dropped atomic.Uint64
	stop    chan struct{}
	once    sync.Once
	done    chan struct{}
	err     error // of the first write that failed; read it after done
}

// NewPrinter starts a printer. If out is a terminal, lines fit its width, as that changes, and are coloured
// unless NO_COLOR or TERM=dumb forbid it. The caller closes out.
func NewPrinter(out io.Writer, query QueryCapture) *Printer {
	p := &Printer{
		out:   out,
		style: Style{Query: query},
		lines: make(chan []byte, printerLines),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	if f, ok := out.(*os.File); ok && IsTerminal(f) {
		p.file, p.style = f, TerminalStyle(f, query)
		p.width.Store(int32(p.style.Width))
	}
	go p.run()
	return p
}

// Add formats s and leaves the line to be written.
func (p *Printer) Add(s *l7.Span) {
	style := p.style
	style.Width = int(p.width.Load())
	line := append(appendLine(nil, s, style), '\n')
	select {
	case p.lines <- line:
	default:
		p.dropped.Add(1)
	}
}

// Dropped is how many spans were not shown: they came faster than out took them, or out failed.
func (p *Printer) Dropped() uint64 {
	return p.dropped.Load()
}

// Close writes the lines that wait. Its error is ctx's, where that ended first, or that of the first write
// that failed. It may be called again.
func (p *Printer) Close(ctx context.Context) error {
	p.once.Do(func() { close(p.stop) })
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("write the last spans: %w", ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("write spans: %w", p.err)
	}
	return nil
}

func (p *Printer) run() {
	defer close(p.done)
	p.write([]byte(Header(p.style)+"\n"), 0)
	var told uint64
	for {
		select {
		case line := <-p.lines:
			p.write(line, 1)
			continue
		default:
		}
		// All that waited is written: a good time to look around.
		if n := p.dropped.Load(); n != told && p.err == nil {
			p.write(fmt.Appendf(nil, "%s came too fast to be shown\n", counted(int(n-told), "span")), 0)
			told = n
		}
		if p.file != nil {
			p.width.Store(int32(terminalWidth(p.file)))
		}
		select {
		case line := <-p.lines:
			p.write(line, 1)
		case <-p.stop:
			if len(p.lines) == 0 {
				return
			}
		}
	}
}

// write writes a line of so many spans. Once out has failed it drops them: a closed pipe does not open again.
func (p *Printer) write(line []byte, spans uint64) {
	if p.err == nil {
		_, p.err = p.out.Write(line)
	}
	if p.err != nil {
		p.dropped.Add(spans)
	}
}
