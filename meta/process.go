package meta

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// clockTick is the unit of a start time in /proc: USER_HZ is 100 on every architecture that ambit
	// runs on.
	clockTick = 10_000_000 // nanoseconds

	maxArguments = 4 << 10 // bytes of a command line that are looked at
	maxPath      = 512     // bytes of a path that are kept
)

// errGone says that a process has exited, or that another process has its number now.
var errGone = errors.New("the process has exited")

// process is what /proc says of a live process.
type process struct {
	ticks      uint64 // start, in clock ticks of CLOCK_BOOTTIME
	comm       string
	executable string // path; "" for a kernel thread, or where it may not be read
	program    string // see program
	groups     string // contents of /proc/PID/cgroup
}

// reader reads /proc. It belongs to one look-up at a time, and to nobody else while that look-up hangs.
type reader struct {
	proc   string
	count  *counters
	buffer []byte
}

func newReader(root string, count *counters) *reader {
	return &reader{proc: filepath.Join(root, "proc"), count: count, buffer: make([]byte, maxVariable)}
}

// open opens the directory of a process. The descriptor stays with that process: when it has exited,
// reads fail, even if its number is in use again. It returns errGone when there is no such process.
func (r *reader) open(pid uint32) (int, error) {
	for {
		dir, err := unix.Open(r.proc+"/"+strconv.FormatUint(uint64(pid), 10), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return dir, absent(err)
		}
	}
}

// process reads all but the environment. started is the start the kernel recorded, in nanoseconds of
// CLOCK_BOOTTIME, or 0; errGone says that this process is no more.
func (r *reader) process(dir int, started uint64) (process, error) {
	var p process
	stat, err := r.file(dir, "stat", len(r.buffer))
	if err != nil {
		return p, absent(err)
	}
	if p.comm, p.ticks, err = parseStat(stat); err != nil {
		return p, err
	}
	if started != 0 && started/clockTick != p.ticks {
		return p, errGone
	}
	group, err := r.file(dir, "cgroup", len(r.buffer))
	if err != nil && r.lost(absent(err)) {
		return p, errGone
	}
	p.groups = string(group)
	if p.executable, err = r.link(dir, "exe"); err != nil && r.lost(err) {
		return p, errGone
	}
	p.program = base(p.executable)
	if in := interpreterOf(p.program); in != nil {
		line, err := r.file(dir, "cmdline", maxArguments)
		if err != nil && r.lost(err) {
			return p, errGone
		}
		if name := in.program(strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")); name != "" {
			p.program = name
		}
	}
	p.program = r.count.clean(p.program, maxValue)
	p.executable = r.count.clean(p.executable, maxPath)
	p.comm = r.count.clean(p.comm, maxValue)
	return p, nil
}

// lost tells whether the process has exited meanwhile. Any other error costs one attribute, and is counted.
func (r *reader) lost(err error) bool {
	if errors.Is(err, errGone) {
		return true
	}
	if !errors.Is(err, unix.ENOENT) { // a kernel thread has no executable
		r.count.denied.Add(1)
	}
	return false
}

// file reads up to limit bytes into the reader's buffer, which the next call overwrites.
func (r *reader) file(dir int, name string, limit int) ([]byte, error) {
	fd, err := openAt(dir, name)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	n := 0
	for n < limit {
		more, err := readFD(fd, r.buffer[n:limit])
		if err != nil {
			return nil, err
		}
		if more == 0 {
			break
		}
		n += more
	}
	return r.buffer[:n], nil
}

func (r *reader) link(dir int, name string) (string, error) {
	n, err := unix.Readlinkat(dir, name, r.buffer)
	if err != nil {
		return "", gone(err)
	}
	// A program that was replaced by an update while it runs is still that program.
	return strings.TrimSuffix(string(r.buffer[:n]), " (deleted)"), nil
}

// parseStat takes the name and the start time out of /proc/PID/stat. The name may hold anything,
// parentheses and spaces too, so the fields are counted from the last parenthesis.
func parseStat(stat []byte) (comm string, ticks uint64, err error) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", 0, fmt.Errorf("parse /proc/PID/stat: no name in %q", stat)
	}
	fields := bytes.Fields(stat[end+1:])
	const startTime = 22 - 3 // the first of these fields is number 3
	if len(fields) <= startTime {
		return "", 0, fmt.Errorf("parse /proc/PID/stat: %d fields after the name, want more than %d", len(fields), startTime)
	}
	ticks, err = strconv.ParseUint(string(fields[startTime]), 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("parse the start time in /proc/PID/stat: %w", err)
	}
	return string(stat[open+1 : end]), ticks, nil
}

// openAt opens a file of a process. An absent one is ENOENT; an exited process is errGone.
func openAt(dir int, name string) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, gone(err)
		}
	}
}

func readFD(fd int, buffer []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buffer)
		if err != unix.EINTR {
			return max(n, 0), gone(err)
		}
	}
}

// closeFD closes a descriptor that was only read; there is nothing that its error could tell.
func closeFD(fd int) { _ = unix.Close(fd) }

func gone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return errGone
	}
	return err
}

// absent is gone for the files that every process has.
func absent(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return errGone
	}
	return gone(err)
}
