package handover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// pins is a directory of a BPF file system, locked (flock) by the daemon that works with it.
type pins struct {
	dir  string
	lock *os.File
}

// ErrHeld says that a daemon that lives has the directory.
var ErrHeld = errors.New("another daemon works with it")

// Pins opens a directory of a BPF file system, which it makes where it is missing. The error is ErrHeld where another
// daemon has it.
func Pins(dir string) (*Store, error) {
	k, names, err := openPins(dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of pins %s: %w", dir, err)
	}
	return newStore(k, names), nil
}

func openPins(dir string) (*pins, []string, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, err
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return nil, nil, err
	}
	if stat.Type != unix.BPF_FS_MAGIC {
		return nil, nil, errors.Join(errors.New("it is on no BPF file system: mount one with \"mount -t bpf bpf /sys/fs/bpf\""), removeEmpty(dir))
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrHeld
		}
		return nil, nil, err
	}
	entries, err := lock.ReadDir(-1)
	if err != nil {
		lock.Close()
		return nil, nil, err
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, mapPrefix) || strings.HasPrefix(name, linkPrefix) {
			names = append(names, name)
		}
	}
	return &pins{dir, lock}, names, nil
}

func removeEmpty(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

func (k *pins) path(name string) string { return filepath.Join(k.dir, name) }

func (k *pins) put(name string, o Object) error { return o.Pin(k.path(name)) }

func (k *pins) drop(name string) error {
	if err := os.Remove(k.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (k *pins) openMap(name string) (*ebpf.Map, error) { return ebpf.LoadPinnedMap(k.path(name), nil) }

func (k *pins) openLink(name string) (link.Link, error) {
	return link.LoadPinnedLink(k.path(name), nil)
}

// close removes the directory where nothing is kept, and frees it.
func (k *pins) close() error {
	if k.lock == nil {
		return nil
	}
	err := errors.Join(removeEmpty(k.dir), k.lock.Close())
	k.lock = nil
	return err
}

func gone(err error) bool {
	return errors.Is(err, unix.ENOLINK) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}
