// Package harness builds small networks out of network namespaces for tests and for the demo: pods and
// nodes, the redirection that istio-cni installs in a pod, a stand-in for ztunnel, and programs that run
// inside. A Lab owns all of it; closing the lab takes everything down and says what it could not.
package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Config describes a lab.
type Config struct {
	// Prefix begins the name of everything that the lab makes: 1 to 8 lower-case letters.
	Prefix string
	// KeepSignals leaves SIGINT, SIGTERM and SIGHUP to the caller. Otherwise they close the lab and then
	// end the process as they would have.
	KeepSignals bool
}

// Lab owns namespaces, cgroups and processes. Its methods may be called from any goroutine.
type Lab struct {
	id   string
	lock *os.File

	mu         sync.Mutex
	closed     bool
	cgroup     *Cgroup
	namespaces []*Namespace
	processes  []*Process
}

// New makes an empty lab, after clearing away what labs of killed processes left on this machine. Close it.
func New(cfg Config) (*Lab, error) {
	if err := Sweep(); err != nil {
		return nil, fmt.Errorf("clear away what an earlier run left: %w", err)
	}
	lab := &Lab{}
	var err error
	if lab.id, lab.lock, err = claim(cfg.Prefix); err != nil {
		return nil, err
	}
	if lab.cgroup, err = newLabCgroup(lab.id); err != nil {
		return nil, errors.Join(err, lab.release())
	}
	if !cfg.KeepSignals {
		closeOnSignal(lab)
	}
	return lab, nil
}

// ID is the beginning of the name of everything that the lab makes, such as "h-x3k9".
func (l *Lab) ID() string { return l.id }

// Dir is a folder of the lab's own, for sockets and the like, root's alone. It goes with the lab.
func (l *Lab) Dir() (string, error) {
	path := labDir(l.id)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", fmt.Errorf("make the lab's folder: %w", err)
	}
	return path, nil
}

func labDir(id string) string { return filepath.Join("/run", id) }

// Close ends the lab's processes, removes its namespaces and cgroups and looks whether anything is left.
// A second call does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	processes, namespaces := l.processes, l.namespaces
	l.mu.Unlock()

	var errs []error
	// Grandchildren first: they would hold the outputs open that Done waits for.
	errs = append(errs, l.cgroup.kill())
	for i := len(processes) - 1; i >= 0; i-- {
		processes[i].Kill()
		<-processes[i].Done()
	}
	errs = append(errs, l.cgroup.kill())
	for i := len(namespaces) - 1; i >= 0; i-- {
		errs = append(errs, namespaces[i].close())
	}
	errs = append(errs, l.cgroup.remove(), os.RemoveAll(labDir(l.id)), l.leftovers(namespaces))
	forgetSignals(l)
	errs = append(errs, l.release())
	return errors.Join(errs...)
}

// leftovers says what of the lab still exists, nil if nothing does.
func (l *Lab) leftovers(namespaces []*Namespace) error {
	var errs []error
	names, err := filepath.Glob(filepath.Join(netnsDir, l.id+"-*"))
	if err != nil {
		return fmt.Errorf("list the namespaces of lab %s: %w", l.id, err)
	}
	for _, name := range names {
		errs = append(errs, fmt.Errorf("namespace %s is left: remove it by \"ip netns del\"", name))
	}
	if _, err := os.Stat(l.cgroup.path); !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("cgroup %s is left: remove it by rmdir", l.cgroup.path))
	}
	inodes := make(map[uint64]string, len(namespaces))
	for _, ns := range namespaces {
		if !ns.host {
			inodes[ns.inode] = ns.name
		}
	}
	return errors.Join(append(errs, threadsIn(inodes))...)
}

// release gives the lab's name back.
func (l *Lab) release() error {
	err := os.Remove(filepath.Join(lockDir, l.id))
	_ = os.Remove(lockDir) // fails while another lab is there
	return errors.Join(err, l.lock.Close())
}
