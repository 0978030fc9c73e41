package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// lockDir holds a file per living lab. The kernel lets go of a file's lock when its process ends, however it
// ends, so a file that can be locked is what tells a dead lab, whatever became of its pid.
const lockDir = "/run/ambit-labs"

var prefixPattern = regexp.MustCompile(`^[a-z]{1,8}$`)

// claim takes an unused lab name. The name is the lab's until the file is closed.
func claim(prefix string) (string, *os.File, error) {
	if !prefixPattern.MatchString(prefix) {
		return "", nil, fmt.Errorf("lab prefix %q: use 1 to 8 lower-case letters", prefix)
	}
	if err := os.MkdirAll(lockDir, 0o755); err != nil {
		return "", nil, fmt.Errorf("make %s (labs need root): %w", lockDir, err)
	}
	// The file gets its name only once it is locked, or a sweep in between would take it for a dead lab's.
	file, err := os.CreateTemp(lockDir, ".new-")
	if err != nil {
		return "", nil, fmt.Errorf("make a lock file for the lab: %w", err)
	}
	temporary := file.Name()
	defer os.Remove(temporary)
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", nil, errors.Join(fmt.Errorf("lock %s: %w", temporary, err), file.Close())
	}
	for {
		id := prefix + "-" + strconv.FormatInt(36*36*36+rand.Int64N(35*36*36*36), 36)
		path := filepath.Join(lockDir, id)
		err := os.Link(temporary, path)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", nil, errors.Join(fmt.Errorf("name the lab's lock file %s: %w", path, err), file.Close())
		}
		return id, file, nil
	}
}

// Sweep removes the namespaces and cgroups of labs whose process is gone. New does so by itself.
func Sweep() error {
	entries, err := os.ReadDir(lockDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list labs: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		path := filepath.Join(lockDir, entry.Name())
		file, err := os.Open(path)
		if err != nil {
			continue // closed since it was listed
		}
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			if !strings.HasPrefix(entry.Name(), ".") {
				errs = append(errs, sweepLab(entry.Name()))
			}
			_ = os.Remove(path)
		}
		file.Close()
	}
	return errors.Join(errs...)
}

func sweepLab(id string) error {
	errs := []error{os.RemoveAll(labDir(id))}
	if cgroup, err := findLabCgroup(id); err == nil {
		errs = append(errs, cgroup.kill(), cgroup.remove())
	}
	paths, err := filepath.Glob(filepath.Join(netnsDir, id+"-*"))
	if err != nil {
		return fmt.Errorf("list the namespaces of dead lab %s: %w", id, err)
	}
	for _, path := range paths {
		err := netns.DeleteNamed(filepath.Base(path))
		if errors.Is(err, unix.EINVAL) { // killed between making the file and mounting on it
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove namespace %s of dead lab: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// threadsIn says which processes have a thread in one of the namespaces, given by inode; nil if none has.
// A thread that has been told to end takes a moment, so it looks for a second before it complains.
func threadsIn(inodes map[uint64]string) error {
	var err error
	for range 20 {
		if err = threadsNow(inodes); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

func threadsNow(inodes map[uint64]string) error {
	paths, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	var errs []error
	for _, path := range paths {
		target, err := os.Readlink(path)
		if err != nil {
			continue // ended since it was listed
		}
		var inode uint64
		if _, err := fmt.Sscanf(target, "net:[%d]", &inode); err != nil {
			continue
		}
		if name, ok := inodes[inode]; ok {
			errs = append(errs, fmt.Errorf("thread %s is left in namespace %s", filepath.Dir(filepath.Dir(path)), name))
		}
	}
	return errors.Join(errs...)
}

var signals struct {
	sync.Mutex
	labs map[*Lab]struct{}
	once sync.Once
}

// closeOnSignal closes every open lab when a signal is about to end the process.
func closeOnSignal(lab *Lab) {
	signals.Lock()
	defer signals.Unlock()
	if signals.labs == nil {
		signals.labs = make(map[*Lab]struct{})
	}
	signals.labs[lab] = struct{}{}
	signals.once.Do(func() {
		caught := make(chan os.Signal, 1)
		signal.Notify(caught, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
		go func() {
			sig := <-caught
			signals.Lock()
			labs := make([]*Lab, 0, len(signals.labs))
			for lab := range signals.labs {
				labs = append(labs, lab)
			}
			signals.Unlock()
			for _, lab := range labs {
				if err := lab.Close(); err != nil {
					fmt.Fprintf(os.Stderr, "close lab %s: %v\n", lab.id, err)
				}
			}
			signal.Reset(sig)
			_ = unix.Kill(os.Getpid(), sig.(syscall.Signal))
		}()
	})
}

func forgetSignals(lab *Lab) {
	signals.Lock()
	defer signals.Unlock()
	delete(signals.labs, lab)
}
