package faults

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
)

const (
	spansPerSecond = 10_000
	growthMax      = 8 << 20
	outageVariable = "AMBIT_FAULTS_OUTAGE"
	// outageDefault stands for ten minutes. What could grow are two queues: the ring buffer, whose memory is taken
	// at the start, and the exporter's of 4 MiB, which is full after two seconds at this rate (an encoded span takes
	// about 300 bytes). From then on every span meets the same full queue, so what ten minutes would show and one
	// does not is a leak for each span, each failed attempt or each second; TestOutage looks for the slope of one
	// over hundreds of thousands of spans and dozens of attempts. AMBIT_FAULTS_OUTAGE=10m shows the ten minutes.
	outageDefault = 45 * time.Second
)

// memory is what ambit takes, in bytes.
type memory struct{ rss, heap uint64 }

func (m memory) max(o memory) memory { return memory{max(m.rss, o.rss), max(m.heap, o.heap)} }

func (m memory) String() string {
	return fmt.Sprintf("%.1f MiB resident, %.1f MiB of heap", float64(m.rss)/(1<<20), float64(m.heap)/(1<<20))
}

// peak is the most that ambit takes at any second of a while.
func (d *instance) peak(t testing.TB, while time.Duration) memory {
	t.Helper()
	proc, err := procfs.NewProc(d.PID())
	must(t, err)
	var most memory
	for end := time.Now().Add(while); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		stat, err := proc.Stat()
		must(t, err)
		most = most.max(memory{uint64(stat.ResidentMemory()), d.status(t).Memory.ProcessHeap})
	}
	return most
}

func outage(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv(outageVariable)
	if text == "" {
		return outageDefault
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v: give a duration such as 10m", outageVariable, err)
	}
	return length
}

// The collector is absent when ambit starts, comes, is killed under 10,000 spans a second and comes back.
func TestOutage(t *testing.T) {
	s := newScene(t)
	c := newCollector(t)
	d := s.trace(t, c)
	held := d.objects(t)

	requests(t, s.pod, 1000)
	wait(t, 10*time.Second, "ambit says that the export fails", func() error {
		if e := d.status(t).Exporter; e.State != "failing" || e.LastError == "" || e.Exported != 0 {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	c.come(t)
	if e := d.settled(t, 20*time.Second, 1000); e.Exported != 2000 || c.received() != 2000 {
		t.Fatalf("what was made before the collector came: %d of 2000 spans received, %+v", c.received(), e)
	}

	load := startTraffic(t, s.pod, spansPerSecond/2)
	time.Sleep(2 * time.Second)
	before := d.peak(t, 8*time.Second)
	wait(t, 10*time.Second, "delivery keeps up", func() error {
		if e := d.status(t).Exporter; e.State != "ok" || e.Queued > 2*spansPerSecond {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})

	c.kill()
	dead := time.Now()
	length := outage(t)
	first := d.peak(t, length/3)
	second := d.peak(t, length/3)
	third := d.peak(t, length-2*(length/3))
	during := first.max(second).max(third)
	middle := d.status(t)
	t.Logf("before: %v; during %v: %v, %v, %v; %d spans dropped", before, length, first, second, third, middle.Exchanges.DroppedTotal())
	for what, grown := range map[string]int64{
		"resident memory": int64(during.rss) - int64(before.rss), "heap": int64(during.heap) - int64(before.heap),
	} {
		if grown > growthMax {
			t.Errorf("%s grew by %d bytes while the collector was dead, at most %d are allowed", what, grown, growthMax)
		}
	}
	// No slope: behind the first third all queues are full.
	if slope := int64(third.rss) - int64(second.rss); slope > 1<<20 {
		t.Errorf("resident memory still grows, by %d bytes over the last third", slope)
	}
	if middle.Exporter.State != "failing" || middle.Exporter.QueuedBytes < 3<<20 {
		t.Errorf("the outage did not fill the queue: %+v", middle.Exporter)
	}

	exported := middle.Exchanges.Exported
	c.come(t)
	wait(t, 20*time.Second, "delivery resumes", func() error {
		if e := d.status(t).Exporter; e.State != "ok" || e.Exported <= exported+spansPerSecond {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	took := time.Since(dead)
	made := load.stop(t)
	e := d.settled(t, 30*time.Second, 1000+made)
	t.Logf("%d requests, of them in about %v without a collector; %+v", made, took, e)
	if made < uint64(took/time.Second)*spansPerSecond/2*9/10 {
		t.Errorf("%d requests are no 10,000 spans a second", made)
	}
	if d.status(t).Memory.ProcessRSS > during.rss+(1<<20) {
		t.Errorf("memory went on growing when delivery resumed")
	}
	for reason, n := range e.Dropped {
		if n > 0 && !strings.HasPrefix(reason, "export_") {
			t.Errorf("%d lost before the exporter: %s", n, reason)
		}
	}
	// A call that the kill broke off may have been taken without a word of it: then its spans came twice.
	if got := uint64(c.received()); got < e.Exported-e.Exported/100 || got > e.Exported+5*1024 {
		t.Errorf("exported %d spans, received %d", e.Exported, got)
	}
	if took := d.stop(t); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	s.clean(t, held, d.socket)
	checkLog(t, d.Log())
}

// checkLog looks at an outage's log as who has to read it at night: few lines, each told once.
func checkLog(t *testing.T, log string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if len(lines) > 20 {
		t.Errorf("%d lines of log:\n%s", len(lines), log)
	}
	for _, want := range []string{"otlp export is failing", "otlp export has recovered"} {
		if n := strings.Count(log, want); n != 2 {
			t.Errorf("%q is told %d times, want once for each of two outages:\n%s", want, n, log)
		}
	}
}
