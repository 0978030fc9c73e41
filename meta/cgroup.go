package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sys/unix"
)

const (
	maxCgroups = 1024 // cached paths, of mostly 150 and at most 4,096 bytes each

	// kernfsHandle is FILEID_KERNFS: a file handle that holds a cgroup's ID.
	kernfsHandle = 0xfe
	// rootInode is the ID of the root of the v2 hierarchy.
	rootInode = 1

	// A walk of the hierarchy visits at most this many cgroups, and at most a twentieth of the time goes
	// to walking.
	maxWalk   = 1 << 14
	walkShare = 19
)

// CgroupMount returns the directory where the cgroup v2 hierarchy is mounted, as this process sees it:
// /sys/fs/cgroup, or /sys/fs/cgroup/unified on a hybrid host, or anywhere else. root is where the
// host's file system is seen, as in Config. The mount that shows the hierarchy's root is preferred to
// one of a part of it, such as a container has.
func CgroupMount(root string) (string, error) {
	file := filepath.Join(root, "proc/self/mountinfo")
	mounts, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("find the cgroup v2 mount: %w; mount /proc", err)
	}
	var best string
	for line := range strings.SplitSeq(string(mounts), "\n") {
		before, after, found := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if !found || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		dir := unescapeMount(fields[4])
		under, ok := relative(root, dir)
		if !ok { // the file was written without knowledge of root, or it is a mount of our own container
			under = dir
		}
		dir = filepath.Join(root, under)
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			continue
		}
		if inode(info) == rootInode {
			return dir, nil
		}
		if best == "" {
			best = dir
		}
	}
	if best == "" {
		return "", fmt.Errorf("find the cgroup v2 mount: no cgroup2 in %s; mount it with: mount -t cgroup2 none /sys/fs/cgroup/unified", file)
	}
	return best, nil
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// relative returns path as seen from directory dir, beginning with a slash, if it lies there.
func relative(dir, path string) (string, bool) {
	if dir = strings.TrimRight(dir, "/"); path == dir {
		return "/", true
	}
	rest, ok := strings.CutPrefix(path, dir+"/")
	return "/" + rest, ok
}

func inode(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}

// cgroups finds the paths of cgroup IDs. An ID is never used twice, and a cgroup is never renamed, so
// what was found stays true, and what was removed stays removed.
type cgroups struct {
	mount string
	count *counters
	paths *lru.Cache[uint64, string] // from the v2 root; "" is an ID without a path
	// handles tells that IDs can be opened. It takes CAP_DAC_READ_SEARCH in the initial user namespace;
	// without it the hierarchy is walked.
	handles bool

	walking sync.Mutex
	rest    time.Time // until when nothing is walked
	// share is the part of the time that may go to walking, as its reciprocal less one.
	share time.Duration
}

func newCgroups(mount string, count *counters) (*cgroups, error) {
	paths, err := lru.New[uint64, string](maxCgroups)
	if err != nil {
		return nil, fmt.Errorf("make the cgroup cache: %w", err)
	}
	c := &cgroups{mount: mount, count: count, paths: paths, share: walkShare}
	info, err := os.Stat(mount)
	if err != nil {
		return nil, fmt.Errorf("read the cgroup v2 mount: %w", err)
	}
	_, err = c.byHandle(inode(info))
	c.handles = err == nil
	return c, nil
}

// path returns the path of a cgroup from the v2 root, "" if it has none. settled is false when that
// could not be found out now and may be asked again.
func (c *cgroups) path(id uint64) (path string, settled bool) {
	if path, settled = c.quick(id); settled || c.handles {
		return path, settled
	}
	if path, settled = c.byWalk(id); settled {
		c.learn(id, path)
	}
	return path, settled
}

// quick is path without a walk, so that it never takes long.
func (c *cgroups) quick(id uint64) (path string, settled bool) {
	if id == 0 {
		return "", true
	}
	if path, ok := c.paths.Get(id); ok {
		return path, true
	}
	if !c.handles {
		return "", false
	}
	path, err := c.byHandle(id)
	if err != nil && !errors.Is(err, unix.ESTALE) {
		return "", false
	}
	c.learn(id, path)
	return path, true
}

func (c *cgroups) learn(id uint64, path string) {
	if path == "" {
		c.count.unknownCgroup.Add(1)
	}
	c.paths.Add(id, path)
}

func (c *cgroups) byHandle(id uint64) (string, error) {
	mount, err := unix.Open(c.mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer closeFD(mount)
	fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(kernfsHandle, binary.NativeEndian.AppendUint64(nil, id)), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer closeFD(fd)
	dir, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	path, ok := relative(c.mount, dir)
	if !ok { // outside the part of the hierarchy that is mounted
		return "", nil
	}
	return strings.TrimSuffix(path, " (deleted)"), nil
}

// byWalk searches the hierarchy, whose inode numbers are the IDs.
func (c *cgroups) byWalk(id uint64) (path string, settled bool) {
	c.walking.Lock()
	defer c.walking.Unlock()
	start := time.Now()
	if start.Before(c.rest) {
		return "", false
	}
	visited := 0
	err := filepath.WalkDir(c.mount, func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil // a cgroup that is removed meanwhile is no error
		}
		if visited++; visited > maxWalk {
			return fs.SkipAll
		}
		if info, err := entry.Info(); err == nil && inode(info) == id {
			path, _ = relative(c.mount, dir)
			return fs.SkipAll
		}
		return nil
	})
	end := time.Now()
	c.rest = end.Add(c.share * end.Sub(start))
	return path, err == nil
}

// CgroupID returns the cgroup v2 ID of a cgroup given by its path: relative to the root of the v2
// hierarchy, with or without a leading slash, or absolute below the mount.
func (m *Meta) CgroupID(path string) (uint64, error) {
	under, ok := relative(m.cgroups.mount, filepath.Clean(path))
	if !ok {
		under = filepath.Clean("/" + path)
	}
	dir := filepath.Join(m.cgroups.mount, under)
	info, err := os.Stat(dir)
	if err != nil {
		return 0, fmt.Errorf("find cgroup %q: %w; give its path below %s", path, err, m.cgroups.mount)
	}
	if !info.IsDir() {
		return 0, fmt.Errorf("find cgroup %q: %s is a file; give the path of its directory", path, dir)
	}
	return inode(info), nil
}

// CgroupDir is the directory of a cgroup by its ID, "" where it is gone or was not found yet. It walks no hierarchy.
func (m *Meta) CgroupDir(id uint64) string {
	path, _ := m.cgroups.quick(id)
	if path == "" {
		return ""
	}
	return filepath.Join(m.cgroups.mount, path)
}
