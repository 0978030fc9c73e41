package daemon

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ambit/bpf"
)

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// near tells shares apart by a hundredth: a test takes its time.
func near(a, b float64) bool { return math.Abs(a-b) < 0.01 }

// The same host without PSI, with files of its own in the place of the kernel's.
func TestPressureWithoutPSI(t *testing.T) {
	proc, pod := t.TempDir(), t.TempDir()
	writeFiles(t, proc, map[string]string{
		"stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1\n", "meminfo": "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 50 kB\n",
	})
	writeFiles(t, pod, map[string]string{
		"cgroup.type": "domain\n", "cpu.stat": "usage_usec 5\nthrottled_usec 1000000\n", "memory.high": "max\n", "memory.max": "1000\n",
		"memory.current": "990\n", "memory.stat": "anon 1\ninactive_file 30\n",
	})
	dir := func(id uint64) string { return map[uint64]string{7: pod}[id] }
	p := newPressure(proc, dir, nil, func() float64 { return 0.25 })
	defer p.close()
	names := map[uint16]string{1: "cart", 2: "gone"}
	snap := &bpf.Snapshot{Services: map[uint16]bpf.Service{1: {Cgroup: 7}, 2: {Cgroup: 8}}}
	s := p.read(names, snap)
	if s.Node.CPU != 0 || s.Self != 0 || s.Queue != 0.25 || !near(s.Node.Memory, 0.5) || len(s.Services) != 1 || !near(s.Services["cart"].Memory, 0.6) {
		t.Errorf("first %+v", s)
	}
	writeFiles(t, proc, map[string]string{"stat": "cpu  146 0 150 804 0 0 0 0 0 0\n"})
	writeFiles(t, pod, map[string]string{"cpu.stat": "throttled_usec 31000000\n"})
	p.at = p.at.Add(-time.Minute)
	if s := p.read(names, snap); !near(s.Node.CPU, 0.6) || !near(s.Services["cart"].CPU, 0.5) {
		t.Errorf("then %+v", s)
	}
	delete(snap.Services, 1)
	if s := p.read(names, snap); len(s.Services) != 0 || len(p.cgroups) != 0 {
		t.Errorf("of a workload that is gone %+v", s)
	}
}

func TestPressureOfPSI(t *testing.T) {
	proc, pod := t.TempDir(), t.TempDir()
	psi := func(us string) string {
		return "some avg10=9.00 avg60=9.00 avg300=9.00 total=" + us + "\nfull avg10=0.00 total=99\n"
	}
	writeFiles(t, proc, map[string]string{"pressure/cpu": psi("1000"), "pressure/memory": psi("1000"), "stat": "cpu 0 0 0 0 0 0 0 0\n", "meminfo": "MemTotal: 100 kB\nMemAvailable: 5 kB\n"})
	writeFiles(t, pod, map[string]string{"cgroup.type": "domain\n", "cpu.pressure": psi("0"), "memory.pressure": psi("0")})
	p := newPressure(proc, func(uint64) string { return pod }, nil, nil)
	defer p.close()
	names, snap := map[uint16]string{1: "cart"}, &bpf.Snapshot{Services: map[uint16]bpf.Service{1: {Cgroup: 7}}}
	if s := p.read(names, snap); s.Node.CPU != 0 || s.Node.Memory != 0 || s.Services["cart"].CPU != 0 {
		t.Errorf("what was before is taken for now: %+v", s)
	}
	// The same files go on, as those of the kernel do.
	writeFiles(t, proc, map[string]string{"pressure/cpu": psi("30001000"), "pressure/memory": psi("6001000"), "stat": "cpu 90 0 0 10 0 0 0 0\n"})
	writeFiles(t, pod, map[string]string{"cpu.pressure": psi("15000000"), "memory.pressure": psi("99000000")})
	p.at = p.at.Add(-time.Minute)
	s := p.read(names, snap)
	if !near(s.Node.CPU, 0.5) || !near(s.Node.Memory, 0.1) || !near(s.Services["cart"].CPU, 0.25) || s.Services["cart"].Memory != 1 {
		t.Errorf("got %+v", s)
	}
	// Who stalls at a limit of its own does not stall the node.
	writeFiles(t, proc, map[string]string{"pressure/memory": psi("60001000"), "meminfo": "MemTotal: 100 kB\nMemAvailable: 60 kB\n"})
	// One processor of four that many wait for is no loaded node.
	writeFiles(t, proc, map[string]string{"pressure/cpu": psi("90001000"), "stat": "cpu 115 0 0 85 0 0 0 0\n"})
	p.at = p.at.Add(-time.Minute)
	if s := p.read(names, snap); !near(s.Node.CPU, 0.25) || s.Node.Memory != 0 {
		t.Errorf("got %+v", s)
	}
}

// The kernel's own triggers: a process that waits for its processor wakes the alarm.
func TestAlarm(t *testing.T) {
	a, err := newAlarm("/proc")
	if err != nil {
		t.Fatal(err)
	}
	if len(a.polled) != 3 {
		t.Fatalf("%d triggers could be set, want 2: is CONFIG_PSI on?", len(a.polled)-1)
	}
	done := make(chan struct{})
	go func() { a.run(); close(done) }()
	a.close()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("run does not end")
	}
}
