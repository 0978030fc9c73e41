package meta

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/l7"
)

func TestServiceNameOrder(t *testing.T) {
	f := newFixture(t)
	f.write("var/lib/docker/containers/"+id2+"/config.v2.json", `{"Name":"/web","Config":{"Env":["PASSWORD=secret"],"Labels":{}}}`)
	unit, docker := "/system.slice/shop.service", "/system.slice/docker-"+id2+".scope"
	for i, test := range []struct {
		about string
		task  task
		want  string
	}{
		{"OTEL_SERVICE_NAME is first", task{environ: []string{"OTEL_RESOURCE_ATTRIBUTES=service.name=b", "OTEL_SERVICE_NAME=a"}, cgroup: unit, exe: "/bin/x", comm: "y"}, "a"},
		{"an empty one is none", task{environ: []string{"OTEL_RESOURCE_ATTRIBUTES=service.name=b", "OTEL_SERVICE_NAME="}, cgroup: unit, exe: "/bin/x", comm: "y"}, "b"},
		{"then the attribute", task{environ: []string{"OTEL_RESOURCE_ATTRIBUTES=x=y,service.name=b"}, cgroup: unit, exe: "/bin/x", comm: "y"}, "b"},
		{"then the unit", task{environ: []string{"OTEL_RESOURCE_ATTRIBUTES=service.name=b,broken"}, cgroup: unit, exe: "/bin/x", comm: "y"}, "shop"},
		{"then the container's name", task{cgroup: docker, exe: "/bin/x", comm: "y"}, "web"},
		{"but never its ID", task{cgroup: "/docker/" + id1, exe: "/bin/x", comm: "y"}, "x"},
		{"then the executable", task{cgroup: "/user.slice/user-0.slice/session-1.scope", exe: "/bin/x", comm: "y"}, "x"},
		{"a replaced one too", task{cgroup: "/", exe: "/bin/x (deleted)", comm: "y"}, "x"},
		{"or what it interprets", task{cgroup: "/", exe: "/usr/bin/python3.11", comm: "python3", cmdline: "python3 /srv/app.py --password x"}, "app.py"},
		{"or itself, where that is not named", task{cgroup: "/", exe: "/usr/bin/python3.11", comm: "python3", cmdline: "python3 -c secret"}, "python3.11"},
		{"then the name", task{cgroup: "/", comm: "y"}, "y"},
		{"a name may hold anything", task{cgroup: "/", comm: ") R (\x1b"}, ") R (\ufffd"},
	} {
		test.task.pid, test.task.ticks = uint32(100+i), uint64(5000+i)
		f.start(test.task)
		m := f.meta(Config{})
		r := enrich(m, l7.Owner{PID: test.task.pid, StartedNS: test.task.ticks*clockTick + 123, Comm: "recorded"})
		check(t, test.about, r, map[string]string{"service.name": test.want})
		for _, a := range r.Attributes {
			if strings.Contains(a.Str, "secret") || strings.Contains(a.Str, "password") {
				t.Errorf("%s: %s holds an argument", test.about, a.Key)
			}
		}
	}
	if r := enrich(f.meta(Config{}), l7.Owner{}); r.ServiceName != unknownService {
		t.Errorf("an owner of which nothing is known is named %q", r.ServiceName)
	}
}

func TestResource(t *testing.T) {
	f := newFixture(t)
	f.start(task{pid: 42, ticks: 777, comm: "server", exe: "/usr/bin/server", cgroup: "/system.slice/shop.service", environ: []string{
		"OTEL_RESOURCE_ATTRIBUTES=service.version=1.2,service.namespace=store,team=a%2Cb," +
			"host.id=forged,host.name=forged,process.pid=1,container.id=forged,k8s.pod.uid=forged,telemetry.sdk.name=forged,ambit.netns.cookie=1," +
			"k8s.deployment.name=shop,deployment.environment.name=its-own",
	}})
	m := f.meta(Config{
		Version:            "1.0.0",
		ResourceAttributes: "deployment.environment.name=prod,k8s.cluster.name=c1,service.name=ambit,service.instance.id=x,process.pid=1,host.name=forged",
		NamespaceName: func(cookie uint64) string {
			return map[uint64]string{9: "pod-a\n"}[cookie]
		},
	})
	owner := l7.Owner{PID: 42, StartedNS: 777*clockTick + 1, NetNS: 9, Cgroup: 1, UID: 1000, Comm: "server"}
	r := enrich(m, owner)
	check(t, "a process", r, map[string]string{
		"service.name": "shop", "service.version": "1.2", "service.namespace": "store", "team": "a,b",
		"process.pid": "42", "process.executable.name": "server", "process.executable.path": "/usr/bin/server",
		"host.name": "node-1", "host.id": "0123456789abcdef0123456789abcdef", "host.arch": m.host.arch, "os.type": "linux",
		"container.id": "", "k8s.pod.uid": "", "telemetry.sdk.name": "", "process.command": "", "process.command_line": "",
		"ambit.network.namespace": "pod-a\ufffd", "ambit.netns.cookie": "9",
		"telemetry.distro.name": "ambit", "telemetry.distro.version": "1.0.0",
		"k8s.deployment.name": "shop", "deployment.environment.name": "its-own", "k8s.cluster.name": "c1",
	})
	if id := value(r, "service.instance.id"); !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("service.instance.id %q is no version 5 UUID", id)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	created, err := time.Parse(time.RFC3339, value(r, "process.creation.time"))
	if want := time.Now().Add(-time.Duration(now.Nano()) + 7770*time.Millisecond); err != nil || created.Sub(want).Abs() > time.Second {
		t.Errorf("process.creation.time is %v, %v, want %v", created, err, want)
	}

	owner.NetNS = 8
	if other := enrich(m, owner); value(other, "ambit.network.namespace") != "" || value(other, "service.instance.id") != value(r, "service.instance.id") {
		t.Error("another namespace of the process has a name that nobody gave, or is another instance")
	}
	again := f.meta(Config{})
	if value(enrich(again, owner), "service.instance.id") != value(r, "service.instance.id") {
		t.Error("the instance is another one after a restart")
	}
	f.start(task{pid: 42, ticks: 778, comm: "server", cgroup: "/", environ: []string{"OTEL_RESOURCE_ATTRIBUTES=service.instance.id=mine"}})
	owner.StartedNS = 778 * clockTick
	if got := value(enrich(again, owner), "service.instance.id"); got != "mine" {
		t.Errorf("the process's own instance ID becomes %q", got)
	}
}

func TestPointerIsSharedUntilTheProcessIsAnotherOne(t *testing.T) {
	f := newFixture(t)
	f.start(task{pid: 7, ticks: 100, comm: "a", exe: "/bin/a", cgroup: "/"})
	m := f.meta(Config{})
	owner := l7.Owner{PID: 7, StartedNS: 100 * clockTick, Comm: "a", Cookie: 1}
	first := enrich(m, owner)
	owner.Cookie = 2
	if enrich(m, owner) != first {
		t.Error("two sockets of a process have two resources")
	}
	f.start(task{pid: 7, ticks: 200, comm: "b", exe: "/bin/b", cgroup: "/"})
	if enrich(m, owner) != first {
		t.Error("the first process lost its resource when its number was used again")
	}
	owner.StartedNS, owner.Comm = 200*clockTick, "b"
	second := enrich(m, owner)
	if second == first || second.ServiceName != "b" || value(first, "service.instance.id") == value(second, "service.instance.id") {
		t.Errorf("the second process is %q", second.ServiceName)
	}
	f.start(task{pid: 7, ticks: 200, comm: "c", exe: "/bin/c", cgroup: "/"})
	owner.Comm = "c"
	if got := enrich(m, owner).ServiceName; got != "c" {
		t.Errorf("after it executed another program it is still %q", got)
	}
	if s := m.Stats(); s.Misses != 3 || s.Entries != 3 || s.Gone != 0 {
		t.Errorf("%+v", s)
	}
	// Nobody knows the first one any more, after a restart.
	if got := enrich(f.meta(Config{}), l7.Owner{PID: 7, StartedNS: 100 * clockTick, Comm: "a"}); got.ServiceName != "a" || value(got, "process.executable.path") != "" {
		t.Errorf("a process whose number is another's is described as %v", got)
	}
}

func TestUnknownStartIsReadAgain(t *testing.T) {
	f := newFixture(t)
	f.start(task{pid: 7, ticks: 100, comm: "a", exe: "/bin/a", cgroup: "/"})
	m := f.meta(Config{})
	hand := clocked(m)
	owner := l7.Owner{PID: 7}
	first := enrich(m, owner)
	f.start(task{pid: 7, ticks: 200, comm: "b", exe: "/bin/b", cgroup: "/"})
	*hand = unconfirmedFor - 1
	if enrich(m, owner) != first {
		t.Error("read again too soon")
	}
	*hand = unconfirmedFor
	if got := enrich(m, owner); got.ServiceName != "b" {
		t.Errorf("not read again: %q", got.ServiceName)
	}
}

func TestExitedProcess(t *testing.T) {
	f := newFixture(t)
	f.write("run/containerd/io.containerd.runtime.v2.task/k8s.io/"+id1+"/config.json",
		`{"process":{"env":["PASSWORD=secret"]},"annotations":{"io.kubernetes.cri.container-name":"probe"}}`)
	f.start(task{pid: 50, ticks: 1, comm: "nginx", exe: "/usr/sbin/nginx", cgroup: "/system.slice/edge.service", environ: []string{"OTEL_SERVICE_NAME=front", "OTEL_RESOURCE_ATTRIBUTES=service.version=7"}})
	f.start(task{pid: 51, ticks: 1, comm: "curl", exe: "/usr/bin/curl", cgroup: "/user.slice/session-1.scope", environ: []string{"OTEL_SERVICE_NAME=somebody-else"}})
	unit := f.cgroup("/system.slice/edge.service", 0, 49, 50)
	session := f.cgroup("/user.slice/session-1.scope", 51)
	pod := f.cgroup("/kubepods/burstable/pod" + uid + "/" + id1)
	m := f.meta(Config{})
	for _, test := range []struct {
		about string
		owner l7.Owner
		want  map[string]string
	}{
		{"the parent of a server that went to the background", l7.Owner{PID: 40, StartedNS: 100, Cgroup: unit, Comm: "nginx"},
			map[string]string{"service.name": "front", "service.version": "7", "process.pid": "40", "process.executable.path": ""}},
		{"another program of the unit", l7.Owner{PID: 41, StartedNS: 200, Cgroup: unit, Comm: "curl"},
			map[string]string{"service.name": "edge", "process.executable.name": "curl"}},
		{"in a session one speaks for itself only", l7.Owner{PID: 42, StartedNS: 300, Cgroup: session, Comm: "curl"},
			map[string]string{"service.name": "curl", "process.pid": "42"}},
		{"in a pod", l7.Owner{PID: 43, StartedNS: 400, Cgroup: pod, Comm: "curl"},
			map[string]string{"service.name": "probe", "container.id": id1, "k8s.pod.uid": uid, "k8s.container.name": "probe"}},
		{"in a cgroup that was removed", l7.Owner{PID: 44, StartedNS: 500, Cgroup: 1 << 60, Comm: "curl"},
			map[string]string{"service.name": "curl"}},
		{"without a process", l7.Owner{Cgroup: unit, Comm: "nginx"},
			map[string]string{"service.name": "front", "process.pid": "", "process.creation.time": ""}},
	} {
		check(t, test.about, enrich(m, test.owner), test.want)
	}
	if s := m.Stats(); s.Gone != 5 || s.UnknownCgroup != 1 || s.Misses != 6 || s.Denied != 0 {
		t.Errorf("%+v", s)
	}
	misses := m.Stats().Misses
	enrich(m, l7.Owner{PID: 42, StartedNS: 300, Cgroup: session, Comm: "curl"})
	if m.Stats().Misses != misses {
		t.Error("that a process has exited is not remembered")
	}
}

func TestServiceNameWithoutProcess(t *testing.T) {
	f := newFixture(t)
	f.start(task{pid: 50, ticks: 1, comm: "nginx", exe: "/usr/sbin/nginx", cgroup: "/system.slice/edge.service", environ: []string{"OTEL_SERVICE_NAME=front"}})
	unit := f.cgroup("/system.slice/edge.service", 50)
	root := f.cgroup("", 50)
	m := f.meta(Config{})
	for _, test := range []struct {
		owner l7.Owner
		want  string
	}{
		{l7.Owner{Cgroup: unit, Comm: "nginx"}, "front"},
		{l7.Owner{Cgroup: unit, Comm: "other"}, "edge"},
		{l7.Owner{Cgroup: root, Comm: "nginx"}, "nginx"},
		{l7.Owner{Comm: "a\xff"}, "a\ufffd"},
		{l7.Owner{}, unknownService},
		{l7.Owner{PID: 50, StartedNS: clockTick, Cgroup: unit, Comm: "nginx"}, "front"},
	} {
		if got := m.ServiceName(test.owner); got != test.want {
			t.Errorf("%+v is named %q, want %q", test.owner, got, test.want)
		}
	}
	f.exit(50)
	if got := m.ServiceName(l7.Owner{Cgroup: unit, Comm: "nginx"}); got != "front" {
		t.Errorf("a counter's name changed to %q", got)
	}
}

func TestCacheIsBounded(t *testing.T) {
	f := newFixture(t)
	m := f.meta(Config{Entries: 8})
	for pid := range uint32(20) {
		enrich(m, l7.Owner{PID: pid + 1, StartedNS: 1, Comm: "x"})
	}
	if s := m.Stats(); s.Entries != 8 || s.Evictions != 12 || s.Misses != 20 {
		t.Errorf("%+v", s)
	}
}

func TestLookupsAreRationed(t *testing.T) {
	f := newFixture(t)
	f.start(task{pid: 7, ticks: 1, comm: "a", exe: "/bin/a", cgroup: "/", environ: []string{"OTEL_SERVICE_NAME=named"}})
	m := f.meta(Config{})
	hand := clocked(m)
	for pid := range uint32(lookupBurst) {
		enrich(m, l7.Owner{PID: pid + 1000, StartedNS: 1, Comm: "x"})
	}
	owner := l7.Owner{PID: 7, StartedNS: clockTick, Comm: "a"}
	if got := enrich(m, owner); got.ServiceName != "a" || value(got, "process.pid") != "7" {
		t.Errorf("a process that was not read is %v", got)
	}
	if s := m.Stats(); s.Deferred != 1 || s.Gone != lookupBurst {
		t.Errorf("%+v", s)
	}
	*hand = provisionalFor
	if got := enrich(m, owner); got.ServiceName != "named" {
		t.Errorf("not read later: %q", got.ServiceName)
	}
}

// A pipe that nobody writes to stands for a process whose memory lock is held: opening it blocks.
func TestBlockedProcessDoesNotBlockTheCaller(t *testing.T) {
	f := newFixture(t)
	m := f.meta(Config{})
	m.patience = lookupPatience
	hand := clocked(m)
	for pid := uint32(1); pid <= lookupsAtOnce; pid++ {
		f.start(task{pid: pid, ticks: 1, comm: "stuck", cgroup: "/system.slice/a.service"})
		f.remove(fmt.Sprintf("proc/%d/environ", pid))
		if err := unix.Mkfifo(f.path(fmt.Sprintf("proc/%d/environ", pid)), 0o600); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		r := enrich(m, l7.Owner{PID: pid, StartedNS: clockTick, Comm: "stuck"})
		if took := time.Since(start); r.ServiceName != "stuck" || took > time.Second {
			t.Errorf("%q after %v", r.ServiceName, took)
		}
	}
	f.start(task{pid: 9, ticks: 1, comm: "a", exe: "/bin/b", cgroup: "/"})
	start := time.Now()
	if r := enrich(m, l7.Owner{PID: 9, StartedNS: clockTick, Comm: "a"}); r.ServiceName != "a" || time.Since(start) > lookupPatience {
		t.Errorf("with every reader stuck: %q after %v", r.ServiceName, time.Since(start))
	}
	if s := m.Stats(); s.Late != lookupsAtOnce+1 {
		t.Errorf("%+v", s)
	}
	for pid := uint32(1); pid <= lookupsAtOnce; pid++ { // let go
		file, err := os.OpenFile(f.path(fmt.Sprintf("proc/%d/environ", pid)), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); len(m.readers) < lookupsAtOnce; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d readers came back, want %d", len(m.readers), lookupsAtOnce)
		}
	}
	*hand = provisionalFor
	if r := enrich(m, l7.Owner{PID: 9, StartedNS: clockTick, Comm: "a"}); r.ServiceName != "b" {
		t.Errorf("not read later: %q", r.ServiceName)
	}
}

func TestBrokenProcFiles(t *testing.T) {
	for _, stat := range []string{"", "7", "7 (a", "7 a) S", "7 (a) S 1 2", "7 (a) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 x 1"} {
		f := newFixture(t)
		f.start(task{pid: 7, comm: "a"})
		f.write("proc/7/stat", stat)
		m := f.meta(Config{})
		if r := enrich(m, l7.Owner{PID: 7, Comm: "a"}); r.ServiceName != "a" || m.Stats().Denied != 1 {
			t.Errorf("stat %q: %v, %+v", stat, r, m.Stats())
		}
	}
	f := newFixture(t)
	f.write("proc/7/stat", "7 (a) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 5 1\n") // and nothing else
	m := f.meta(Config{})
	if r := enrich(m, l7.Owner{PID: 7, Comm: "a"}); r.ServiceName != "a" || m.Stats().Gone != 1 {
		t.Errorf("%v, %+v", r, m.Stats())
	}
}

func TestConcurrentUse(t *testing.T) {
	f := newFixture(t)
	for pid := range uint32(20) {
		f.start(task{pid: pid + 1, ticks: 1, comm: "a", exe: fmt.Sprint("/bin/a", pid+1), cgroup: "/"})
	}
	m := f.meta(Config{Entries: 16})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range uint32(400) {
				pid := i%20 + 1
				owner := l7.Owner{PID: pid, StartedNS: clockTick, Comm: "a"}
				if got, want := enrich(m, owner).ServiceName, fmt.Sprint("a", pid); got != want && m.Stats().Deferred+m.Stats().Late == 0 {
					t.Errorf("%q, want %q", got, want)
				}
				m.ServiceName(l7.Owner{Comm: "a", Cgroup: uint64(i % 3)})
				m.Stats()
			}
		})
	}
	group.Wait()
}

func TestNewRefuses(t *testing.T) {
	for _, test := range []struct {
		about  string
		change func(*fixture, *Config)
		want   string
	}{
		{"a malformed attribute", func(_ *fixture, c *Config) { c.ResourceAttributes = "a" }, `OTEL_RESOURCE_ATTRIBUTES: "a" has no "="`},
		{"too many attributes", func(_ *fixture, c *Config) {
			for i := range maxAttributes + 1 {
				c.ResourceAttributes += fmt.Sprintf("k%d=v,", i)
			}
		}, "more than 32 attributes"},
		{"no cgroup v2", func(f *fixture, _ *Config) { f.write("proc/self/mountinfo", "32 31 0:29 / /a rw - cgroup cgroup rw\n") }, "no cgroup2 in"},
		{"no /proc", func(f *fixture, _ *Config) { f.remove("proc/self") }, "mount /proc"},
	} {
		f := newFixture(t)
		config := Config{Root: f.root}
		test.change(f, &config)
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.about, err, test.want)
		}
	}
}
