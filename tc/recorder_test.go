package tc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// recorder makes counting programs for Taps and notes what it is asked for.
type recorder struct {
	mu       sync.Mutex
	live     map[uint64]recorded // by cookie
	loads    int
	releases int
	errs     []error
	refuse   func(NetNS) error
}

type recorded struct {
	NetNS
	lo, out, in counter
}

func newRecorder() *recorder { return &recorder{live: make(map[uint64]recorded)} }

func (r *recorder) load(ns NetNS) (Programs, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		if err := r.refuse(ns); err != nil {
			return Programs{}, err
		}
	}
	if ns.Name == "" || ns.Inode == 0 || ns.Cookie == 0 {
		r.errs = append(r.errs, fmt.Errorf("load of a namespace without identity: %+v", ns))
	}
	if _, twice := r.live[ns.Cookie]; twice {
		r.errs = append(r.errs, fmt.Errorf("loaded twice: %+v", ns))
	}
	var made [3]counter
	for i, name := range []string{"ambit_lo", "ambit_out", "ambit_in"} {
		c, err := newCounter(name, next)
		if err != nil {
			return Programs{}, err
		}
		made[i] = c
	}
	r.live[ns.Cookie] = recorded{ns, made[0], made[1], made[2]}
	r.loads++
	return Programs{LoEgress: made[0].Program, Egress: made[1].Program, Ingress: made[2].Program}, nil
}

func (r *recorder) released(ns NetNS) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, ok := r.live[ns.Cookie]
	if !ok {
		r.errs = append(r.errs, fmt.Errorf("released without load: %+v", ns))
		return
	}
	for _, c := range []counter{was.lo, was.out, was.in} {
		if c.Program.FD() >= 0 {
			r.errs = append(r.errs, fmt.Errorf("released with an open program: %+v", ns))
		}
		c.packets.Close()
	}
	delete(r.live, ns.Cookie)
	r.releases++
}

func (r *recorder) of(name string) (recorded, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.live {
		if l.Name == name {
			return l, true
		}
	}
	return recorded{}, false
}

// start starts Taps with the recorder's programs, in debug logging, and closes them at the test's end, when
// every load must have been matched by a release.
func (r *recorder) start(t *testing.T, config Config) *Taps {
	t.Helper()
	taps := r.make(t, config)
	if err := taps.Start(); err != nil {
		t.Fatalf("start: %v", err)
	}
	return taps
}

func (r *recorder) make(t *testing.T, config Config) *Taps {
	t.Helper()
	config.Load, config.Released, config.Log = r.load, r.released, slog.New(slog.NewTextHandler(t.Output(), nil))
	taps, err := New(config)
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	t.Cleanup(func() {
		if err := taps.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.live) > 0 {
			t.Errorf("never released: %v", r.live)
		}
		if err := errors.Join(r.errs...); err != nil {
			t.Error(err)
		}
		if len(taps.Attachments()) > 0 {
			t.Errorf("attached after close: %v", taps.Attachments())
		}
		if left, _ := os.ReadDir(taps.locks.dir); len(left) > 0 {
			t.Errorf("locks left: %v", left)
		}
	})
	return taps
}

// lines shows attachments as "namespace interface hook method".
func lines(attachments []Attachment) (all []string) {
	for _, a := range attachments {
		all = append(all, strings.Join([]string{a.NetNS.Name, a.Interface, a.Hook, a.Method}, " "))
	}
	return all
}

func wantLines(t *testing.T, taps *Taps, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	began := time.Now()
	for {
		got = lines(taps.Attachments())
		slices.Sort(got)
		if slices.Equal(got, want) {
			t.Logf("after %4d ms: %s", time.Since(began).Milliseconds(), strings.Join(got, ", "))
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("not within %v:\ngot  %q\nwant %q", patience, got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// child is a daemon in another process, a copy of the test binary.
type child struct {
	*exec.Cmd
	stdin io.Closer
	first string // the first line that it printed: "ready" or an error
}

func startChild(t *testing.T, names string, clsact bool) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("/proc/self/exe")}
	c.Env = append(os.Environ(), roleVariable+"="+roleDaemon, "NAMES="+names, fmt.Sprintf("CLSACT=%t", clsact))
	c.Stderr = t.Output()
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.first, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the other daemon said nothing: %v", err)
	}
	c.first = strings.TrimSpace(c.first)
	t.Cleanup(func() { c.end() })
	return c
}

// end lets the daemon stop by itself; kill does not.
func (c *child) end() { c.stdin.Close(); _ = c.Wait() }

func (c *child) kill() { _ = c.Process.Kill(); _ = c.Wait() }

// daemon is the main function of a child.
func daemon() int {
	r := newRecorder()
	taps, err := New(Config{
		Select:      strings.Split(os.Getenv("NAMES"), ","),
		ForceClsact: os.Getenv("CLSACT") == "true",
		Load:        r.load,
		Released:    r.released,
		Log:         slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err == nil {
		defer taps.Close()
		err = taps.Start()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}
