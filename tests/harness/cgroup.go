package harness

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup is a group of the version 2 hierarchy below the lab's own.
type Cgroup struct {
	path string
}

// CgroupRoot is where the version 2 hierarchy is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified on a
// hybrid host.
func CgroupRoot() (string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for cgroup v2: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if ok && strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return fields[4], nil
		}
	}
	return "", errors.New("look for cgroup v2: it is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

func newLabCgroup(id string) (*Cgroup, error) {
	root, err := CgroupRoot()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root, id)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make the lab's cgroup (it needs root): %w", err)
	}
	return &Cgroup{path: path}, nil
}

func findLabCgroup(id string) (*Cgroup, error) {
	root, err := CgroupRoot()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root, id)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("find the cgroup of lab %s: %w", id, err)
	}
	return &Cgroup{path: path}, nil
}

// Cgroup makes the group of that path below the lab's own, with the groups above it.
func (l *Lab) Cgroup(path string) (*Cgroup, error) {
	full := filepath.Join(l.cgroup.path, path)
	if err := os.MkdirAll(full, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup %s: %w", full, err)
	}
	return &Cgroup{path: full}, nil
}

// Container says which pod and container a cgroup's path names.
type Container struct {
	PodUID      string // with dashes, as Kubernetes writes it
	ContainerID string // 64 hexadecimal digits
}

// ContainerCgroup makes a group as kubelet and containerd name it (with the systemd driver), of a new
// container in a new pod.
func (l *Lab) ContainerCgroup() (*Cgroup, Container, error) {
	var random [48]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	text := hex.EncodeToString(random[:])
	uid := strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:32]}, "-")
	c := Container{PodUID: uid, ContainerID: text[32:96]}
	group, err := l.Cgroup(fmt.Sprintf("kubepods.slice/kubepods-pod%s.slice/cri-containerd-%s.scope",
		strings.ReplaceAll(c.PodUID, "-", "_"), c.ContainerID))
	return group, c, err
}

// Path is the group's directory.
func (c *Cgroup) Path() string { return c.path }

// ID is the number by which BPF programs know the group.
func (c *Cgroup) ID() (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Stat(c.path, &stat); err != nil {
		return 0, fmt.Errorf("ask for the id of cgroup %s: %w", c.path, err)
	}
	return stat.Ino, nil
}

// tree lists the group and the groups below it, the deepest first.
func (c *Cgroup) tree() ([]string, error) {
	var paths []string
	err := filepath.WalkDir(c.path, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	slices.Reverse(paths) // WalkDir is in lexical order: parents come before children
	return paths, err
}

// kill ends every process in the group and below it, also grandchildren that nobody waits for.
func (c *Cgroup) kill() error {
	paths, err := c.tree()
	if err != nil {
		return fmt.Errorf("list cgroup %s: %w", c.path, err)
	}
	for _, path := range paths {
		pids, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(pids)) {
			var pid int
			if _, err := fmt.Sscan(line, &pid); err == nil && pid > 0 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	return nil
}

// remove removes the group and those below it. The kernel says EBUSY until the last process is reaped.
func (c *Cgroup) remove() error {
	var failed error
	for range 100 {
		paths, err := c.tree()
		if err != nil {
			return fmt.Errorf("list cgroup %s: %w", c.path, err)
		}
		failed = nil
		for _, path := range paths {
			if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
				failed = fmt.Errorf("remove cgroup %s: %w", path, err)
			}
		}
		if failed == nil {
			return nil
		}
		if err := c.kill(); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return failed
}
