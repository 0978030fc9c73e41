package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	socketMode = 0o600
	dirMode    = 0o700
	// claimTimeout is the longest to wait for another daemon that is starting or stopping.
	claimTimeout = 5 * time.Second
)

// socket is a unix socket that this process listens on. Its file is removed by remove, and by nobody else
// as long as the process lives.
type socket struct {
	*net.UnixListener
	path string
	id   os.FileInfo
}

// listenSocket opens the socket for root alone. The file of a daemon that has died is replaced; that of one
// that lives is an error which says who it is. The directory is made where there is none.
func listenSocket(path string) (*socket, error) {
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	var s *socket
	err := alone(path, func() (err error) {
		if err = clearStale(path); err == nil {
			s, err = bind(path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	return s, nil
}

func makeDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is no directory: remove it, or choose another path with --socket", dir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("make its directory: %w", err)
	}
	if err := os.Chmod(dir, dirMode); err != nil { // whatever the umask
		return fmt.Errorf("make its directory: %w", err)
	}
	return nil
}

// alone runs do while no other daemon is between looking at the socket's file and replacing it. The lock is a
// file beside it for root alone, which nobody else can hold as he could the directory, and it is removed again.
func alone(path string, do func() error) error {
	path += ".lock"
	for deadline := time.Now().Add(claimTimeout); ; time.Sleep(20 * time.Millisecond) {
		lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, socketMode)
		if err != nil {
			return err
		}
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(lock, path) {
			err = do()
			return errors.Join(err, os.Remove(path), lock.Close())
		}
		lock.Close()
		switch {
		case err == nil: // its last holder has removed it
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock %s: %w", path, err)
		case time.Now().After(deadline):
			return fmt.Errorf("lock %s: held for %s: end the process that \"fuser -v %s\" names", path, claimTimeout, path)
		}
	}
}

// isAt tells whether the file is still the one of that path.
func isAt(file *os.File, path string) bool {
	opened, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, there)
}

// clearStale removes the file of a socket that nobody listens on.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is no socket: remove it, or choose another path with --socket")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		defer conn.Close()
		return fmt.Errorf("in use by %s: stop it, or choose another path with --socket", listener(conn))
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("in use (%w): stop who listens there, or choose another path with --socket", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove what a dead daemon left: %w", err)
	}
	return nil
}

// listener names the process that listens at the other end of a unix connection.
func listener(conn net.Conn) string {
	const unknown = "another process"
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return unknown
	}
	var cred *unix.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}) != nil || err != nil || cred.Pid == 0 {
		return unknown
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid))
	if err != nil {
		return fmt.Sprintf("pid %d", cred.Pid)
	}
	return fmt.Sprintf("%s (pid %d)", Printable(strings.TrimSpace(string(comm))), cred.Pid)
}

func bind(path string) (*socket, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		// Linux makes the file with the mode of the socket, so that there is no moment with a wider one.
		if control := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); control != nil {
			return control
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		var syscallErr *os.SyscallError
		if errors.As(err, &syscallErr) { // net.OpError repeats the path
			err = syscallErr
		}
		return nil, err
	}
	s := &socket{UnixListener: l.(*net.UnixListener), path: path}
	s.SetUnlinkOnClose(false)
	if s.id, err = os.Lstat(path); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// remove deletes the socket's file, unless somebody has put another there.
func (s *socket) remove() error {
	err := alone(s.path, func() error {
		info, err := os.Lstat(s.path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, s.id) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.Remove(s.path)
	})
	if errors.Is(err, fs.ErrNotExist) { // the directory is gone too
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the admin socket %s: %w", s.path, err)
	}
	return nil
}
