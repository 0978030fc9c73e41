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
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestSocketPermissions(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077} {
		t.Run(fmt.Sprintf("umask %03o", umask), func(t *testing.T) {
			defer syscall.Umask(syscall.Umask(umask))
			path := filepath.Join(t.TempDir(), "new", "ambit.sock")
			s, err := listenSocket(path)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for name, want := range map[string]fs.FileMode{path: fs.ModeSocket | 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
				info, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode() != want {
					t.Errorf("%s has mode %s, want %s", name, info.Mode(), want)
				}
			}
		})
	}
}

// A directory that is there is somebody's: its mode stays.
func TestDirectoryIsLeftAsItIs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mine")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := listenSocket(dir + "/ambit.sock")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// Whoever can open the socket's directory can lock it; that must hold nobody up.
func TestLockedDirectoryHoldsNobodyUp(t *testing.T) {
	dir := t.TempDir()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	s, err := listenSocket(dir + "/ambit.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.remove(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// leaveStale makes the file of a daemon that was killed.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ambit.sock")
	leaveStale(t, path)
	s, err := Listen(Config{Socket: path, Log: quiet()}, &stage{state: Tracing})
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr() != nil {
		t.Errorf("listens on %s, which nobody asked for", s.Addr())
	}
	if _, err := dial(t, path).Status(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestLiveSocketIsRefused(t *testing.T) {
	_, path := serve(t, &stage{state: Tracing})
	_, err := Listen(Config{Socket: path, Log: quiet()}, &stage{})
	comm, readErr := os.ReadFile("/proc/self/comm")
	if readErr != nil {
		t.Fatal(readErr)
	}
	want := fmt.Sprintf("admin socket %s: in use by %s (pid %d): stop it, or choose another path with --socket",
		path, strings.TrimSpace(string(comm)), os.Getpid())
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := dial(t, path).Status(context.Background()); err != nil {
		t.Errorf("the first daemon was disturbed: %v", err)
	}
}

func TestPathsThatCannotBeASocket(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/file"
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, dir+"/symlink"); err != nil {
		t.Fatal(err)
	}
	datagram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/datagram", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	const noSocket = "there is a file that is no socket: remove it, or choose another path with --socket"
	for path, want := range map[string]string{
		file:             noSocket,
		dir + "/symlink": noSocket,
		dir:              noSocket,
		dir + "/datagram": "in use (dial unix " + dir + "/datagram: connect: protocol wrong type for socket): " +
			"stop who listens there, or choose another path with --socket",
		file + "/ambit.sock":          file + " is no directory: remove it, or choose another path with --socket",
		"/proc/nowhere/at/ambit.sock": "make its directory: mkdir /proc/nowhere: no such file or directory",
	} {
		_, err := listenSocket(path)
		if want := "admin socket " + path + ": " + want; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if content, _ := os.ReadFile(file); string(content) != "precious" {
		t.Error("a file of somebody else's was destroyed")
	}
}

// Close removes its own socket only.
func TestSocketOfAnotherIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ambit.sock")
	first, err := Listen(Config{Socket: path, Log: quiet()}, &stage{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(Config{Socket: path, Log: quiet()}, &stage{state: Paused})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := dial(t, path).Status(context.Background()); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(context.Background()); err != nil {
		t.Errorf("without its directory: %v", err)
	}
}

// Of many that start at once over a dead daemon's socket, one gets it.
func TestOneOfManyStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ambit.sock")
	leaveStale(t, path)
	var started atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := listenSocket(path)
			if err == nil {
				started.Add(1)
				t.Cleanup(func() { s.Close() })
			} else if !strings.Contains(err.Error(), ": in use by ") {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := started.Load(); n != 1 {
		t.Errorf("%d started", n)
	}
}

func TestAddressErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for address, want := range map[string]string{
		taken.Addr().String(): "admin address " + taken.Addr().String() + ": in use: stop who listens there, or choose another with --admin",
		"192.0.2.1:9473":      "admin address 192.0.2.1:9473: this machine has no such address: choose another with --admin",
	} {
		path := filepath.Join(t.TempDir(), "ambit.sock")
		_, err := Listen(Config{Address: address, Socket: path, Log: quiet()}, &stage{})
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a socket was left behind", address)
		}
	}
}
