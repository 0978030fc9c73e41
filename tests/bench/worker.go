package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"ambit/tests/harness"

	"golang.org/x/sys/unix"
)

// worker is a process of this program in a role. It writes a line when it is ready, and one at its end, which SIGTERM
// asks for.
type worker struct {
	*harness.Process
	lines *bufio.Reader
	ready string // its first line
}

// startWorker returns when the worker is ready.
func startWorker(ns *harness.Namespace, role string, args ...string) (*worker, error) {
	program, err := harness.RoleProgram(role, args...)
	if err != nil {
		return nil, err
	}
	reader, writer := io.Pipe()
	program.Stdout = writer
	w := &worker{lines: bufio.NewReader(reader)}
	if w.Process, err = ns.Start(program); err != nil {
		return nil, err
	}
	go func() {
		<-w.Done()
		writer.Close()
	}()
	if w.ready, err = w.line(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", role, err)
	}
	return w, nil
}

func (w *worker) line() (string, error) {
	text, err := w.lines.ReadString('\n')
	if err != nil {
		w.Kill()
		<-w.Done()
		return "", fmt.Errorf("it ended: %v: %s", w.Wait(), w.Log())
	}
	return strings.TrimSuffix(text, "\n"), nil
}

// stop ends the worker and returns the number in its last line.
func (w *worker) stop() (uint64, error) {
	if err := w.Signal(unix.SIGTERM); err != nil {
		return 0, err
	}
	text, err := w.line()
	if err != nil {
		return 0, err
	}
	var n uint64
	if _, err := fmt.Sscan(text, &n); err != nil {
		return 0, fmt.Errorf("read the last line of process %d, %q: %w", w.PID(), text, err)
	}
	select {
	case <-w.Done():
	case <-time.After(5 * time.Second):
		w.Kill()
	}
	return n, w.Wait()
}

// pin keeps the worker on the first of the processors that this process may use.
func (w *worker) pin() error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return fmt.Errorf("ask for the processors: %w", err)
	}
	first := 0
	for !may.IsSet(first) {
		first++
	}
	one.Set(first)
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", w.PID()))
	if err != nil {
		return fmt.Errorf("list the threads of process %d: %w", w.PID(), err)
	}
	// Those that begin later inherit it.
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return fmt.Errorf("list the threads of process %d: %w", w.PID(), err)
		}
		if err := unix.SchedSetaffinity(id, &one); err != nil {
			return fmt.Errorf("keep thread %d on processor %d: %w", id, first, err)
		}
	}
	return nil
}
