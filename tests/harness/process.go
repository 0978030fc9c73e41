package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is what to run in a namespace.
type Program struct {
	Path   string // looked up in $PATH unless it has a slash
	Args   []string
	Env    []string // in addition to this process's, the later wins
	Bare   bool     // Env is all of the environment
	Dir    string
	Stdin  io.Reader
	Stdout io.Writer // nil: both outputs are kept for Process.Log
	Stderr io.Writer
	Cgroup *Cgroup // nil: the namespace's own
	UID    uint32  // also the group; 0 is root
}

// Process is a program that runs, or ran, in a namespace. It is killed when the lab is closed or this
// process ends, however that comes about.
type Process struct {
	cmd  *exec.Cmd
	log  tail
	done chan struct{}
	err  error // set before done is closed
}

// Start starts a program in the namespace.
func (n *Namespace) Start(program Program) (*Process, error) {
	cgroup := program.Cgroup
	if cgroup == nil {
		cgroup = n.cgroup
	}
	dir, err := os.Open(cgroup.path)
	if err != nil {
		return nil, fmt.Errorf("start %s: open its cgroup: %w", program.Path, err)
	}
	defer dir.Close()

	p := &Process{cmd: exec.Command(program.Path, program.Args...), done: make(chan struct{})}
	p.cmd.Env = program.Env
	if !program.Bare {
		p.cmd.Env = append(os.Environ(), program.Env...)
	}
	p.cmd.Dir = program.Dir
	p.cmd.Stdin = program.Stdin
	p.cmd.Stdout, p.cmd.Stderr = program.Stdout, program.Stderr
	if p.cmd.Stdout == nil {
		p.cmd.Stdout = &p.log
	}
	if p.cmd.Stderr == nil {
		p.cmd.Stderr = &p.log
	}
	p.cmd.WaitDelay = 2 * time.Second // a grandchild may hold the outputs open
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: unix.SIGKILL, UseCgroupFD: true, CgroupFD: int(dir.Fd()),
		Setpgid: true, // ^C is for this process, which ends the others in order
	}
	if program.UID != 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: program.UID, Gid: program.UID}
	}

	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	if n.lab.closed {
		return nil, fmt.Errorf("start %s: the lab is closed", program.Path)
	}
	started := make(chan error, 1)
	n.calls <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s in namespace %s: %w", program.Path, n.name, err)
	}
	n.lab.processes = append(n.lab.processes, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Run runs a program to its end and returns its standard output. A program that fails is an error that
// holds the end of what it wrote.
func (n *Namespace) Run(ctx context.Context, path string, args ...string) (string, error) {
	return n.RunProgram(ctx, Program{Path: path, Args: args})
}

// RunProgram is Run with all of a program's settings but Stdout, which it returns.
func (n *Namespace) RunProgram(ctx context.Context, program Program) (string, error) {
	var out bytes.Buffer
	program.Stdout = &out
	p, err := n.Start(program)
	if err != nil {
		return "", err
	}
	defer n.lab.forget(p)
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		<-p.done
		return out.String(), fmt.Errorf("run %s in namespace %s: %w", program.Path, n.name, ctx.Err())
	}
	if p.err != nil {
		return out.String(), fmt.Errorf("run %s in namespace %s: %w: %s", program.Path, n.name, p.err, p.Log())
	}
	return out.String(), nil
}

// forget drops a process that has ended, so that a lab that runs many holds only the living.
func (l *Lab) forget(p *Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.processes {
		if l.processes[i] == p {
			l.processes = append(l.processes[:i:i], l.processes[i+1:]...)
			return
		}
	}
}

// PID is the process's number in this process's pid namespace.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and its output was read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and says how it ended: nil for exit code 0, else an *exec.ExitError.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal; to a process that has ended it is no error.
func (p *Process) Signal(sig unix.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to process %d: %w", sig, p.PID(), err)
	}
	return nil
}

// Kill ends the process at once. Wait still has to be called to know that it is gone.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// Stop asks the process to end by SIGTERM, kills it after the grace time, and says how it ended.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
		<-p.done
		return fmt.Errorf("process %d did not end within %v of SIGTERM: %w", p.PID(), grace, p.err)
	}
	return p.err
}

// Log is the end of what the process wrote, at most 64 KiB.
func (p *Process) Log() string { return p.log.String() }

// tail keeps the last tailSize bytes that are written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if len(t.kept) > 2*tailSize {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept[max(0, len(t.kept)-tailSize):])
}
