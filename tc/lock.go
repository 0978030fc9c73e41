package tc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// locks is a directory with one file for each tapped namespace, named by its cookie and locked (flock) by
// the daemon that taps it. The kernel frees the lock when that daemon dies; what remains is a file that
// nobody holds. Whoever makes, takes or removes a file holds the lock of the directory itself, which makes
// these steps atomic.
//
// A file that can be opened can be locked: both are for the daemons' user alone, or anybody could keep ambit
// from starting.
type locks struct{ dir string }

const (
	lockDirMode  = 0o700
	lockFileMode = 0o600
)

// lock is one namespace's, held.
type lock struct {
	in   *locks
	file *os.File
}

// heldError says that another daemon taps a namespace, or that its lock is in the way.
type heldError struct {
	pid int // the daemon's, 0 if not known
	// stranger is who has the lock without being a daemon.
	stranger string
}

func (e *heldError) Error() string {
	switch {
	case e.stranger != "":
		return fmt.Sprintf("its lock is held by %s, which is no ambit daemon", e.stranger)
	case e.pid == 0:
		return "tapped by another daemon"
	}
	return fmt.Sprintf("tapped by another daemon, pid %d", e.pid)
}

// openLocks removes what dead daemons left in the directory, which is made if it is missing.
func openLocks(dir string) (*locks, error) {
	l := &locks{dir}
	err := l.alone(func() error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if _, err := strconv.ParseUint(entry.Name(), 10, 64); err != nil {
				continue
			}
			path := filepath.Join(dir, entry.Name())
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			if flock(file) == nil {
				err = os.Remove(path)
			} else {
				err = file.Chmod(lockFileMode) // earlier versions let everybody open it
			}
			file.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("prepare locks of network namespaces: %w", err)
	}
	return l, nil
}

func flock(file *os.File) error {
	return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// alone runs fn while no other daemon changes the directory. Others hold it for milliseconds.
func (l *locks) alone(fn func() error) error {
	if err := os.MkdirAll(l.dir, lockDirMode); err != nil {
		return fmt.Errorf("make lock directory, or name another: %w", err)
	}
	dir, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Chmod(lockDirMode); err != nil { // earlier versions let everybody open it
		return fmt.Errorf("keep others out of lock directory: %w", err)
	}
	const patience, pause = 5 * time.Second, 5 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		err := flock(dir)
		if err == nil {
			return fn()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock directory %s: %w", l.dir, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lock directory %s: held by %s: end it, no daemon holds it for so long", l.dir, holderOf(dir))
		}
	}
}

// acquire locks each namespace that it can. Its answers are in the namespaces' order; the error is a
// *heldError where another daemon has it.
func (l *locks) acquire(spaces []NetNS) ([]*lock, []error) {
	taken := make([]*lock, len(spaces))
	errs := make([]error, len(spaces))
	if len(spaces) == 0 {
		return taken, errs
	}
	err := l.alone(func() error {
		for i, ns := range spaces {
			taken[i], errs[i] = l.take(ns)
		}
		return nil
	})
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	return taken, errs
}

func (l *locks) take(ns NetNS) (*lock, error) {
	path := filepath.Join(l.dir, strconv.FormatUint(ns.Cookie, 10))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, lockFileMode)
	if err != nil {
		return nil, fmt.Errorf("lock network namespace: %w", err)
	}
	if err := flock(file); err != nil {
		defer file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, heldBy(file)
		}
		return nil, fmt.Errorf("lock network namespace by %s: %w", path, err)
	}
	err = file.Truncate(0)
	if err == nil {
		text := fmt.Sprintf("pid %d\nnamespace %s\ninode %d\n", os.Getpid(), ns.Name, ns.Inode)
		_, err = file.WriteAt([]byte(text), 0)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("write lock %s: %w", path, err)
	}
	return &lock{l, file}, nil
}

// release removes the file and frees the lock.
func (k *lock) release() error {
	err := k.in.alone(func() error {
		held, err := k.file.Stat()
		if err != nil {
			return err
		}
		// Somebody may have emptied the directory, and another daemon have begun anew.
		if there, err := os.Stat(k.file.Name()); err != nil || !os.SameFile(held, there) {
			return nil
		}
		return os.Remove(k.file.Name())
	})
	// Closing frees it, whether the file could be removed or not.
	if err := errors.Join(err, k.file.Close()); err != nil {
		return fmt.Errorf("free lock of network namespace: %w", err)
	}
	return nil
}

// Overlap is a namespace that another daemon taps.
type Overlap struct {
	NetNS NetNS
	// PID is the other daemon's, as it sees itself; 0 if not known.
	PID int
	// Stranger is who has the namespace's lock, where that is no daemon.
	Stranger string
}

// OverlapError says which of the selected namespaces other daemons tap. It is one line.
type OverlapError struct{ Held []Overlap }

func (e *OverlapError) Error() string {
	const named = 8 // more would hide the rest of the line
	var holders []string
	names := make(map[string][]string)
	for _, o := range e.Held {
		holder := o.holder()
		if names[holder] == nil {
			holders = append(holders, holder)
		}
		names[holder] = append(names[holder], o.NetNS.Name)
	}
	for i, holder := range holders {
		list := names[holder]
		text := strings.Join(list[:min(len(list), named)], ", ")
		if len(list) > named {
			text += fmt.Sprintf(" and %d more", len(list)-named)
		}
		holders[i] = holder + " " + text
	}
	return fmt.Sprintf("network namespaces are already tapped: %s; stop it, or select or exclude so that the sets do not overlap",
		strings.Join(holders, "; "))
}

// holder is who has the namespace, and what he does there.
func (o *Overlap) holder() string {
	switch {
	case o.Stranger != "":
		return o.Stranger + ", which is no ambit daemon, holds the lock of"
	case o.PID != 0:
		return fmt.Sprintf("pid %d taps", o.PID)
	}
	return "another daemon taps"
}
