package tc

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// namedDirs are where tools keep named namespaces: iproute2 and the CNI plugins, and Docker.
var namedDirs = []string{"/run/netns", "/var/run/netns", "/run/docker/netns"}

const (
	// sightedPIDs is how many processes of a namespace are remembered as ways into it.
	sightedPIDs = 4
	// settled is the number of scans after which a process is read every second time only. A namespace is
	// made early in a process's life; one that an old process makes is found a scan later.
	settled = 5
	// kernelEvery is the same for the kernel's threads, which stay where they are. They are read at all
	// because another process may have the number of one that has ended.
	kernelEvery = 16
)

// sighting is a namespace as one scan found it.
type sighting struct {
	key   netnsKey
	names []string // what a selection may call it: "host", the names of its files
	paths []string // those of the configuration's paths that lead to it
	files []string // its files in the directories
	pids  []int    // some of its processes, lowest first
	home  bool
}

// finder lists the network namespaces of the host. Its memory is one entry for each process and each named
// namespace.
type finder struct {
	home  *home
	dirs  []string
	paths []string // from the configuration
	log   *slog.Logger

	procs  map[int]process
	named  map[netnsKey][]string // files in the directories
	turn   int
	denied bool // said once that processes are hidden
}

type process struct {
	inode uint64 // its namespace's, 0 for none (a zombie)
	scans uint8  // how often it was met, up to settled
	every uint8  // of so many scans, one reads it when it has settled
	turn  int    // when it was met last
}

// findings are what a scan found.
type findings struct {
	spaces map[netnsKey]*sighting
	cost   time.Duration // processor time spent
}

// scan looks at the directories and the processes if it is told to, and otherwise takes what the last such
// scan saw of them.
func (f *finder) scan(processes, dirs bool) (findings, error) {
	// Processor time is the thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := threadTime()

	found := findings{spaces: make(map[netnsKey]*sighting)}
	own := found.at(f.home.key)
	own.home = true
	own.names = []string{selectHost}

	if processes {
		if err := f.scanProcesses(); err != nil {
			return findings{}, err
		}
	}
	for pid, p := range f.procs {
		if p.inode != 0 {
			// There is one nsfs, so every namespace file has the same device.
			found.at(netnsKey{f.home.key.dev, p.inode}).addPID(pid)
		}
	}
	if dirs {
		if err := f.scanDirs(); err != nil {
			return findings{}, err
		}
	}
	for key, files := range f.named {
		found.at(key).addFiles(files)
	}
	for _, path := range f.paths {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Dev == f.home.key.dev {
			s := found.at(netnsKey{st.Dev, st.Ino})
			s.paths = append(s.paths, path)
		}
	}
	found.cost = threadTime() - began
	return found, nil
}

func (f *findings) at(key netnsKey) *sighting {
	s := f.spaces[key]
	if s == nil {
		s = &sighting{key: key}
		f.spaces[key] = s
	}
	return s
}

func (s *sighting) addPID(pid int) {
	i, _ := slices.BinarySearch(s.pids, pid)
	if i < sightedPIDs {
		s.pids = slices.Insert(s.pids, i, pid)
		s.pids = s.pids[:min(len(s.pids), sightedPIDs)]
	}
}

// scanProcesses reads /proc. The kernel's process events would not do instead: they tell nothing of
// unshare and setns.
func (f *finder) scanProcesses() error {
	dir, err := os.Open("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	f.turn++
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		p, known := f.procs[pid]
		if !known {
			p.every = 2
			if isKernelThread(int(dir.Fd()), name) {
				p.every = kernelEvery
			}
		}
		if p.scans < settled || (pid+f.turn)%int(p.every) == 0 {
			p.inode, err = readNetns(int(dir.Fd()), name)
			if errors.Is(err, fs.ErrPermission) && !f.denied {
				f.denied = true
				f.log.Warn("network namespaces of other users' processes are hidden, grant CAP_SYS_PTRACE to see them",
					"pid", pid, "error", err)
			}
		}
		p.scans = min(p.scans+1, settled)
		p.turn = f.turn
		f.procs[pid] = p
	}
	for pid, p := range f.procs {
		if p.turn != f.turn {
			delete(f.procs, pid)
		}
	}
	return nil
}

// readNetns reads the link "net:[4026531840]", at half the price of following it.
func readNetns(proc int, pid string) (uint64, error) {
	var buffer [64]byte
	n, err := unix.Readlinkat(proc, pid+"/ns/net", buffer[:])
	if err != nil {
		return 0, err
	}
	number, ok := strings.CutPrefix(strings.TrimSuffix(string(buffer[:n]), "]"), "net:[")
	if !ok {
		return 0, fmt.Errorf("/proc/%s/ns/net reads %q", pid, buffer[:n])
	}
	return strconv.ParseUint(number, 10, 64)
}

// isKernelThread tells whether a process executes no file, which is so for a zombie too.
func isKernelThread(proc int, pid string) bool {
	var buffer [1]byte
	_, err := unix.Readlinkat(proc, pid+"/exe", buffer[:])
	return errors.Is(err, unix.ENOENT)
}

func (f *finder) scanDirs() error {
	f.named = make(map[netnsKey][]string)
	listed := make(map[netnsKey]bool) // directories under two names
	for _, dir := range f.dirs {
		var st unix.Stat_t
		if unix.Stat(dir, &st) != nil || listed[netnsKey{st.Dev, st.Ino}] {
			continue
		}
		listed[netnsKey{st.Dev, st.Ino}] = true
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list named network namespaces: %w", err)
		}
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			// Any other file is one on which a namespace is about to be mounted, or was.
			if unix.Stat(path, &st) == nil && st.Dev == f.home.key.dev {
				key := netnsKey{st.Dev, st.Ino}
				f.named[key] = append(f.named[key], path)
			}
		}
	}
	return nil
}

func (s *sighting) addFiles(files []string) {
	s.files = files
	for _, path := range files {
		switch name := filepath.Base(path); name {
		case selectAll, selectAmbient, selectHost:
			// Words of a selection; such a file is called by its path.
		default:
			s.names = append(s.names, name)
		}
	}
}

// name is what people call the namespace. was is its name so far, which an unnamed one keeps.
func (s *sighting) name(was string) string {
	switch {
	case s.home:
		return selectHost
	case len(s.names) > 0:
		return s.names[0]
	case len(s.files) > 0:
		return s.files[0]
	case strings.HasPrefix(was, "pid:"):
		return was
	case len(s.pids) > 0:
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.pids[0]))
		if err != nil {
			return fmt.Sprintf("pid:%d", s.pids[0])
		}
		return fmt.Sprintf("pid:%d (%s)", s.pids[0], printable(strings.TrimSuffix(string(comm), "\n")))
	case len(s.paths) > 0:
		return s.paths[0]
	}
	return was
}

// printable replaces what a process must not put into a log or on a terminal.
func printable(comm string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(comm, "?"))
}

// place lists every way into the namespace that the scan knows of.
func (s *sighting) place(h *home) place {
	p := place{key: s.key}
	if s.home {
		p.paths = append(p.paths, h.path())
	}
	p.paths = append(append(p.paths, s.files...), s.paths...)
	for _, pid := range s.pids {
		p.paths = append(p.paths, fmt.Sprintf("/proc/%d/ns/net", pid))
	}
	return p
}

// threadTime is the processor time that the calling thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
