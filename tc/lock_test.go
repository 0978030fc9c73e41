package tc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// holdLock has a program that is no daemon, flock, lock a file or directory until release is called.
func holdLock(t *testing.T, path string) (pid int, release func()) {
	t.Helper()
	command := exec.Command("flock", "-x", path, "sh", "-c", "echo held; read _")
	stdin, inErr := command.StdinPipe()
	stdout, outErr := command.StdoutPipe()
	if err := errors.Join(inErr, outErr, command.Start()); err != nil {
		t.Fatal(err)
	}
	release = func() {
		stdin.Close()
		_ = command.Wait() // read found the end of its input
	}
	t.Cleanup(release)
	var said [4]byte
	if _, err := io.ReadFull(stdout, said[:]); err != nil || string(said[:]) != "held" {
		t.Fatalf("flock %s: %q, %v", path, said, err)
	}
	return command.Process.Pid, release
}

// nobodyCanLock checks that another user cannot have the lock.
func nobodyCanLock(t *testing.T, path string) {
	t.Helper()
	command := exec.Command("flock", "-n", path, "true")
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("uid 65534 locks %s: %v, %s", path, err, out)
	}
}

// Locks that anybody could open, anybody could hold: then ambit would not start.
func TestLocksAreForTheDaemonAlone(t *testing.T) {
	makeNetns(t, "t1")
	// What an earlier version left, a live daemon's lock among it.
	if err := os.MkdirAll(DefaultLocks, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(DefaultLocks, 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(DefaultLocks, "999999999")
	if err := os.WriteFile(other, []byte("pid 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	defer os.Remove(other)
	if err := flock(held); err != nil {
		t.Fatal(err)
	}

	taps := newRecorder().start(t, Config{Select: []string{"t1"}})
	own := filepath.Join(DefaultLocks, fmt.Sprint(taps.Attachments()[0].NetNS.Cookie))
	for path, want := range map[string]fs.FileMode{DefaultLocks: fs.ModeDir | 0o700, own: 0o600, other: 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %s, want %s", path, info.Mode(), want)
		}
		nobodyCanLock(t, path)
	}
}

// Who holds a lock without being a daemon is named in one line.
func TestLockOfAStranger(t *testing.T) {
	makeNetns(t, "t1")
	t.Run("the directory", func(t *testing.T) {
		if _, err := openLocks(DefaultLocks); err != nil {
			t.Fatal(err)
		}
		pid, release := holdLock(t, DefaultLocks)
		defer release()
		_, err := New(Config{Load: newRecorder().load, Log: quiet()})
		want := fmt.Sprintf("prepare locks of network namespaces: lock directory %s: held by flock (pid %d): end it, no daemon holds it for so long",
			DefaultLocks, pid)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
	t.Run("a namespace's", func(t *testing.T) {
		var cookie uint64
		probe := newRecorder().start(t, Config{Select: []string{"t1"}})
		cookie = probe.Attachments()[0].NetNS.Cookie
		if err := probe.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(DefaultLocks, fmt.Sprint(cookie))
		// As a dead daemon leaves it.
		if err := os.WriteFile(path, []byte("pid 4711\nnamespace t1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		pid, release := holdLock(t, path)
		taps := newRecorder().make(t, Config{Select: []string{"t1"}})
		err := taps.Start()
		var overlap *OverlapError
		want := fmt.Sprintf("flock (pid %d), which is no ambit daemon, holds the lock of t1;", pid)
		if !errors.As(err, &overlap) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "4711") {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		release()
		if _, err := openLocks(DefaultLocks); err != nil { // removes what is left
			t.Error(err)
		}
	})
}
