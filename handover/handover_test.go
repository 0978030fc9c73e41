package handover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// bpffs is a directory of a BPF file system of the test's own.
func bpffs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "ambit")
}

func newMap(t *testing.T, value uint32) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err == nil {
		err = m.Put(uint32(0), value)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// newLink attaches a program that does nothing to loopback, of the test's own namespace.
func newLink(t *testing.T) link.Link {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: 1, Program: p, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Pins(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestPins(t *testing.T) {
	dir := bpffs(t)
	first := open(t, dir)
	if _, err := Pins(dir); !errors.Is(err, ErrHeld) {
		t.Errorf("a second daemon opens the directory: %v", err)
	}
	l := newLink(t)
	info, err := l.Info()
	must(t, err, first.PutMap("a", newMap(t, 1)), first.PutMap("b", newMap(t, 2)), first.PutLink("c", l), first.PutLink("d", newLink(t)))
	if n := first.Kept(); n != 4 {
		t.Errorf("%d are kept, want 4", n)
	}
	// A name has one object, the latest.
	must(t, first.PutMap("b", newMap(t, 3)), first.DropLink("d"), first.DropLink("unknown"))
	must(t, l.Close(), first.Close())

	second := open(t, dir)
	if n := second.Left(); n != 3 {
		t.Errorf("%d are left, want 3", n)
	}
	b, err := second.Map("b")
	must(t, err)
	var value uint32
	if err := b.Lookup(uint32(0), &value); err != nil || value != 3 {
		t.Errorf("map b holds %d, %v", value, err)
	}
	if again, err := second.Map("b"); again != nil || err != nil {
		t.Errorf("it is taken twice: %v, %v", again, err)
	}
	if none, err := second.Link("d"); none != nil || err != nil {
		t.Errorf("what was dropped is there: %v, %v", none, err)
	}
	must(t, b.Close(), second.Discard())
	if _, err := link.NewFromID(info.ID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link that nobody took is attached: %v", err)
	}
	if n := second.Kept(); n != 1 {
		t.Errorf("%d are kept, want the map that was taken", n)
	}
	must(t, second.Clear(), second.Close())
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

func TestPinsElsewhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ambit")
	if _, err := Pins(dir); err == nil || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Errorf("on no BPF file system: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory that was made for it is left")
	}
}

// counting is a keeper that keeps names.
type counting map[string]bool

func (c counting) put(name string, _ Object) error {
	c[name] = true
	return nil
}

func (c counting) drop(name string) error {
	delete(c, name)
	return nil
}

func (c counting) openMap(string) (*ebpf.Map, error)  { return nil, os.ErrNotExist }
func (c counting) openLink(string) (link.Link, error) { return nil, os.ErrNotExist }
func (c counting) close() error                       { return nil }

// The kernel bounds a variable of the environment, by which systemd hands the names on.
func TestNamesHaveRoom(t *testing.T) {
	kept := make(counting)
	s := newStore(kept, nil)
	m := newMap(t, 0)
	var err error
	for i := range 20000 {
		if err = s.PutMap(fmt.Sprintf("t%x-%x-e", i, i), m); err != nil {
			break
		}
	}
	bytes := 0
	for name := range kept {
		bytes += len(name) + 1
	}
	if err == nil || bytes > nameRoom || bytes < nameRoom-64 || s.Trouble() == nil {
		t.Errorf("%d names of %d bytes are kept: %v, %v", len(kept), bytes, err, s.Trouble())
	}
	// What goes makes room.
	for name := range kept {
		must(t, s.DropLink(strings.TrimPrefix(name, linkPrefix)), s.dropped(name))
		break
	}
	if err := s.PutMap("t0-0-e", m); err != nil {
		t.Error(err)
	}
}

func TestNoStore(t *testing.T) {
	var s *Store
	m, err := s.Map("a")
	if m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
	must(t, s.PutMap("a", nil), s.DropLink("a"), s.Discard(), s.Clear(), s.Trouble(), s.Close())
	if s.Left()+s.Kept() > 0 {
		t.Error("something is kept")
	}
}

// Messages are those of sd_notify(3): this is systemd's end.
func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	end, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(end)
	must(t, unix.Bind(end, &unix.SockaddrUnix{Name: path}))
	t.Setenv("NOTIFY_SOCKET", path)
	s, err := Systemd()
	must(t, err)
	defer s.Close()
	must(t, s.PutMap("a", newMap(t, 7)))
	text, rights := make([]byte, 256), make([]byte, 256)
	n, r, _, _, err := unix.Recvmsg(end, text, rights, 0)
	must(t, err)
	if got := string(text[:n]); got != "FDSTORE=1\nFDPOLL=0\nFDNAME=m_a" {
		t.Errorf("systemd is told %q", got)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:r])
	must(t, err)
	fds, err := unix.ParseUnixRights(&messages[0])
	must(t, err)
	m, err := ebpf.NewMapFromFD(fds[0])
	must(t, err)
	defer m.Close()
	var value uint32
	if err := m.Lookup(uint32(0), &value); err != nil || value != 7 {
		t.Errorf("the map that came holds %d, %v", value, err)
	}
	must(t, s.Clear())
	if n, _, _, _, err = unix.Recvmsg(end, text, rights, 0); err != nil || string(text[:n]) != "FDSTOREREMOVE=1\nFDNAME=m_a" {
		t.Errorf("systemd is told %q, %v", text[:n], err)
	}
	// systemd 254 and later says where a unit allows none.
	t.Setenv("FDSTORE", "0")
	if s, err := Systemd(); s != nil || err != nil {
		t.Errorf("a store without room is opened: %v, %v", s, err)
	}
}
