package meta

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit/l7"
)

// fixture is a host's file system with processes, cgroups and containers in it.
type fixture struct {
	t    testing.TB
	root string
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, root: t.TempDir()}
	f.write("proc/self/mountinfo", "25 30 0:23 / /proc rw - proc proc rw\n"+
		"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"+
		"41 31 0:38 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n")
	f.write("proc/sys/kernel/hostname", "node-1\n")
	f.write("proc/sys/kernel/random/boot_id", "8e0b1f3c-6d1b-4b55-9d3a-0d9f6a2f8c11\n")
	f.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	f.mkdir("sys/fs/cgroup/unified")
	return f
}

func (f *fixture) path(name string) string { return filepath.Join(f.root, name) }

func (f *fixture) mkdir(name string) {
	f.t.Helper()
	if err := os.MkdirAll(f.path(name), 0o755); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) write(name, contents string) {
	f.t.Helper()
	f.mkdir(filepath.Dir(name))
	if err := os.WriteFile(f.path(name), []byte(contents), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) remove(name string) {
	f.t.Helper()
	if err := os.RemoveAll(f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

// task is a process of a fixture.
type task struct {
	pid     uint32
	ticks   uint64
	comm    string
	exe     string
	cmdline string   // arguments between spaces
	environ []string // variables
	cgroup  string   // path in the v2 hierarchy
}

func (f *fixture) start(p task) {
	f.t.Helper()
	dir := fmt.Sprintf("proc/%d/", p.pid)
	f.write(dir+"stat", fmt.Sprintf("%d (%s) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 %d 1 1 1 1 1 1 1 1\n", p.pid, p.comm, p.ticks))
	f.write(dir+"comm", p.comm+"\n")
	f.write(dir+"cgroup", "0::"+p.cgroup+"\n")
	f.write(dir+"cmdline", strings.ReplaceAll(p.cmdline, " ", "\x00")+"\x00")
	environ := ""
	for _, v := range p.environ {
		environ += v + "\x00"
	}
	f.write(dir+"environ", environ)
	f.remove(dir + "exe")
	if p.exe != "" {
		if err := os.Symlink(p.exe, f.path(dir+"exe")); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fixture) exit(pid uint32) { f.remove(fmt.Sprintf("proc/%d", pid)) }

// cgroup makes a cgroup with these members and returns its ID.
func (f *fixture) cgroup(path string, pids ...uint32) uint64 {
	f.t.Helper()
	dir := "sys/fs/cgroup/unified" + path
	procs := ""
	for _, pid := range pids {
		procs += fmt.Sprintln(pid)
	}
	f.write(dir+"/cgroup.procs", procs)
	info, err := os.Stat(f.path(dir))
	if err != nil {
		f.t.Fatal(err)
	}
	return inode(info)
}

func (f *fixture) meta(config Config) *Meta {
	f.t.Helper()
	config.Root = f.root
	m, err := New(config)
	if err != nil {
		f.t.Fatal(err)
	}
	// A fixture's cgroups cannot be opened by ID. Walks are not rationed, and the slowest machine has time
	// to read a process.
	m.cgroups.share = 0
	m.patience = time.Minute
	return m
}

// clocked replaces the clock and returns its hand.
func clocked(m *Meta) *time.Duration {
	hand := new(time.Duration)
	m.clock = func() time.Duration { return *hand }
	return hand
}

func enrich(m *Meta, o l7.Owner) *l7.Resource {
	span := l7.Span{Owner: o}
	m.Enrich(&span)
	return span.Resource
}

// value returns an attribute as text, "" if it is not there.
func value(r *l7.Resource, key string) string {
	for _, a := range r.Attributes {
		if a.Key == key {
			if a.IsInt {
				return fmt.Sprint(a.Int)
			}
			return a.Str
		}
	}
	return ""
}

func check(t *testing.T, about string, r *l7.Resource, want map[string]string) {
	t.Helper()
	for key, v := range want {
		if got := value(r, key); got != v {
			t.Errorf("%s: %s is %q, want %q", about, key, got, v)
		}
	}
	seen := map[string]bool{}
	for _, a := range r.Attributes {
		if seen[a.Key] {
			t.Errorf("%s: %s occurs twice", about, a.Key)
		}
		seen[a.Key] = true
	}
	if got := value(r, "service.name"); got != r.ServiceName {
		t.Errorf("%s: service.name is %q, ServiceName %q", about, got, r.ServiceName)
	}
}
