package handover

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// systemd is the file descriptor store of the service that this process is the main one of: sd_notify(3), FDSTORE=1.
type systemd struct {
	notify int // socket
	at     unix.SockaddrUnix
	left   map[string]*os.File
}

// Systemd opens the store of the service that this process runs as, nil where it runs as none. What systemd holds for the
// service is there from the start of the process; it must be asked for once, before other files are opened.
func Systemd() (*Store, error) {
	address := os.Getenv("NOTIFY_SOCKET")
	files := activation.Files(true)
	// systemd 254 and later tells how many descriptors the unit allows.
	if most := os.Getenv("FDSTORE"); address == "" || most == "0" {
		return nil, nil
	}
	k := &systemd{notify: -1, at: unix.SockaddrUnix{Name: address}, left: make(map[string]*os.File)}
	var names []string
	var others []error
	for _, f := range files {
		if name := f.Name(); (strings.HasPrefix(name, mapPrefix) || strings.HasPrefix(name, linkPrefix)) && k.left[name] == nil {
			k.left[name] = f
			names = append(names, name)
		} else {
			others = append(others, f.Close())
		}
	}
	var err error
	// Not a net.UnixConn, which takes no descriptors along where it is connected.
	k.notify, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err = errors.Join(append(others, err)...); err != nil {
		return nil, errors.Join(fmt.Errorf("open systemd's file descriptor store: %w", err), k.close())
	}
	return newStore(k, names), nil
}

func (k *systemd) put(name string, o Object) error {
	// Not watched for an error, which for maps and links means nothing.
	return k.tell("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(o.FD()))
}

func (k *systemd) drop(name string) error {
	if f := k.left[name]; f != nil {
		delete(k.left, name)
		f.Close()
	}
	return k.tell("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

func (k *systemd) tell(state string, rights []byte) error {
	for {
		err := unix.Sendmsg(k.notify, []byte(state), rights, &k.at, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("tell systemd: %w", err)
		}
		return nil
	}
}

// descriptor gives a descriptor that this process was started with, once.
func (k *systemd) descriptor(name string) (int, error) {
	f := k.left[name]
	if f == nil {
		return -1, os.ErrNotExist
	}
	delete(k.left, name)
	defer f.Close()
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

func (k *systemd) openMap(name string) (*ebpf.Map, error) {
	fd, err := k.descriptor(name)
	if err != nil {
		return nil, err
	}
	return ebpf.NewMapFromFD(fd)
}

func (k *systemd) openLink(name string) (link.Link, error) {
	fd, err := k.descriptor(name)
	if err != nil {
		return nil, err
	}
	return link.NewFromFD(fd)
}

func (k *systemd) close() error {
	var errs []error
	for _, f := range k.left {
		errs = append(errs, f.Close())
	}
	clear(k.left)
	if k.notify >= 0 {
		errs = append(errs, unix.Close(k.notify))
		k.notify = -1
	}
	return errors.Join(errs...)
}
