package meta

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ambit/l7"
)

func live(t testing.TB, config Config) *Meta {
	t.Helper()
	m, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// liveCgroup makes a real cgroup and returns its directory; what is in it dies with the test.
func liveCgroup(t *testing.T, path string) string {
	t.Helper()
	mount, err := CgroupMount("/")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(mount, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for dir := dir; dir != mount; dir = filepath.Dir(dir) {
			err := os.Remove(dir)
			for deadline := time.Now().Add(2 * time.Second); err != nil && time.Now().Before(deadline); err = os.Remove(dir) {
				time.Sleep(10 * time.Millisecond)
			}
			if err != nil {
				t.Errorf("remove cgroup %s: %v", dir, err)
			}
		}
	})
	return dir
}

// run starts a program, in a cgroup if dir is not "", and kills it when the test ends.
func run(t testing.TB, dir string, environ []string, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command(args[0], args[1:]...)
	command.Env = environ
	if dir != "" {
		group, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer group.Close()
		command.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have exited
		_ = command.Wait()
	})
	return command
}

// owner describes a running process as the kernel side does.
func owner(t testing.TB, pid int) l7.Owner {
	t.Helper()
	executed(t, pid)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	comm, ticks, err := parseStat(stat)
	if err != nil {
		t.Fatal(err)
	}
	return l7.Owner{PID: uint32(pid), StartedNS: ticks*clockTick + clockTick/2, Comm: comm}
}

// executed waits until a program has its environment: it has its name, and its parent goes on, a moment earlier.
func executed(t testing.TB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		if len(environ) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d has no environment", pid)
		}
	}
}

func TestLiveProcess(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	m := live(t, Config{})
	process := run(t, "", []string{"OTEL_RESOURCE_ATTRIBUTES=service.version=3", "OTEL_SERVICE_NAME=sleeper"}, sleep, "60").Process
	r := enrich(m, owner(t, process.Pid))
	check(t, "a process", r, map[string]string{"service.name": "sleeper", "service.version": "3", "process.pid": strconv.Itoa(process.Pid)})
	if path := value(r, "process.executable.path"); filepath.Base(path) != value(r, "process.executable.name") || !filepath.IsAbs(path) {
		t.Errorf("process.executable.path is %q", path)
	}
	created, err := time.Parse(time.RFC3339, value(r, "process.creation.time"))
	if age := time.Since(created); err != nil || age < -time.Second || age > 30*time.Second {
		t.Errorf("process.creation.time is %q, %v ago", value(r, "process.creation.time"), age)
	}
	if value(r, "host.name") == "" || value(r, "host.arch") == "" {
		t.Errorf("no host in %v", r.Attributes)
	}
}

func TestLiveInterpreter(t *testing.T) {
	script := filepath.Join(t.TempDir(), "shop.py")
	ready := script + ".ready"
	if err := os.WriteFile(script, []byte("import sys, time\nopen(sys.argv[0] + '.ready', 'w').close()\ntime.sleep(60)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	process := run(t, "", nil, python, "-u", script, "--password=secret").Process
	m := live(t, Config{})
	// It may be a wrapper that executes the interpreter under the same name, so that what is read before
	// the script runs is another program.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the script does not run")
		}
	}
	check(t, "a script", enrich(m, owner(t, process.Pid)), map[string]string{"service.name": "shop.py", "process.pid": strconv.Itoa(process.Pid)})
}

func TestLiveExitedProcess(t *testing.T) {
	dir := liveCgroup(t, "/ambit-test.slice/ambit-exited.service")
	m := live(t, Config{})
	id, err := m.CgroupID(dir)
	if err != nil {
		t.Fatal(err)
	}
	command := run(t, dir, []string{"OTEL_SERVICE_NAME=never-read"}, "true")
	gone := l7.Owner{PID: uint32(command.Process.Pid), StartedNS: 1, Cgroup: id, Comm: "true"}
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
	check(t, "exited", enrich(m, gone), map[string]string{"service.name": "ambit-exited", "process.executable.name": "true"})
	if s := m.Stats(); s.Gone != 1 {
		t.Errorf("%+v", s)
	}
	// This process has the number of one that had it before.
	reused := owner(t, os.Getpid())
	reused.StartedNS -= 50 * clockTick
	reused.Cgroup = id
	check(t, "reused", enrich(m, reused), map[string]string{"service.name": "ambit-exited", "process.executable.path": ""})
}

func TestLiveCgroup(t *testing.T) {
	path := "/ambit-test.slice/ambit-test-web@1.service"
	dir := liveCgroup(t, path)
	m := live(t, Config{})
	id, err := m.CgroupID(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{dir, path[1:], "/" + path + "/", path + "/../ambit-test-web@1.service"} {
		if other, err := m.CgroupID(form); err != nil || other != id {
			t.Errorf("CgroupID(%q) = %d, %v, want %d", form, other, err, id)
		}
	}
	for _, form := range []string{"/ambit-test.slice/none", path + "/cgroup.procs", "/../../../../etc"} {
		if other, err := m.CgroupID(form); err == nil {
			t.Errorf("CgroupID(%q) = %d, want an error", form, other)
		}
	}
	if root, err := m.CgroupID("/"); err != nil || root != rootInode {
		t.Errorf("CgroupID of the root is %d, %v, want %d", root, err, rootInode)
	}

	if !m.cgroups.handles {
		t.Error("cgroups cannot be opened by ID; this test needs CAP_DAC_READ_SEARCH")
	}
	walker := live(t, Config{})
	walker.cgroups.handles = false
	walker.cgroups.share = 0
	if s := m.unread(l7.Owner{Cgroup: id, Comm: "x"}); s.place.unit != "ambit-test-web@1" {
		t.Errorf("a process that is not read is placed in %+v", s.place)
	}
	for _, m := range []*Meta{m, walker} {
		if got, settled := m.cgroups.path(id); got != path || !settled {
			t.Errorf("the path of %d is %q, %v, want %q", id, got, settled, path)
		}
		if got, settled := m.cgroups.path(rootInode); got != "/" || !settled {
			t.Errorf("the path of the root is %q, %v", got, settled)
		}
		if got, settled := m.cgroups.path(1 << 40); got != "" || !settled {
			t.Errorf("the path of no cgroup is %q, %v", got, settled)
		}
		if s := m.Stats(); s.UnknownCgroup != 1 {
			t.Errorf("%+v", s)
		}
	}

	walker.cgroups.share = walkShare
	if _, settled := walker.cgroups.path(1 << 41); !settled {
		t.Error("the walk that may be made is not")
	}
	walker.cgroups.rest = time.Now().Add(time.Minute)
	if _, settled := walker.cgroups.path(1 << 42); settled {
		t.Error("walks are not rationed")
	}
	walker.cgroups.rest = time.Time{}

	process := run(t, dir, []string{"A=b"}, "sleep", "60").Process
	check(t, "in the cgroup", enrich(m, owner(t, process.Pid)), map[string]string{"service.name": "ambit-test-web@1"})
	if name := m.ServiceName(l7.Owner{Cgroup: id, Comm: "sleep"}); name != "ambit-test-web@1" {
		t.Errorf("the counter of the cgroup is named %q", name)
	}
}

func TestCgroupMountIsTheWholeHierarchy(t *testing.T) {
	mount, err := CgroupMount("/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(mount, "cgroup.procs")); err != nil || !strings.HasPrefix(mount, "/") {
		t.Errorf("%s: %v", mount, err)
	}
	f := newFixture(t)
	f.mkdir("a b")
	f.write("proc/self/mountinfo", "1 1 0:1 / /gone rw - cgroup2 cgroup2 rw\n2 1 0:1 / /a\\040b rw - cgroup2 cgroup2 rw\n3 1 0:1 / "+f.root+"/a\\040b rw - cgroup2 cgroup2 rw\n")
	if got, err := CgroupMount(f.root); err != nil || got != f.path("a b") {
		t.Errorf("%q, %v, want %q", got, err, f.path("a b"))
	}
}
