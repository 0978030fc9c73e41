package handover

import (
	"path/filepath"
	"testing"
	"time"

	"ambit/tests/e2e/stage"

	"github.com/cilium/ebpf"
)

// A daemon of a new version asks the one that runs, which hands over: no exchange is lost, nothing is unknown, no client
// meets an error. A stop of the old one changes nothing, a stop of the new one leaves nothing.
func TestUpgradeUnderLoad(t *testing.T) {
	next := build(t, "next")
	s := begin(t)
	before := s.programs(t)
	former := s.Next(t, next)
	if r := s.restart(t); r.gap != 0 || !r.taken {
		t.Errorf("the next daemon says of its start %+v", r)
	}
	if version := s.Status(t).Version; version != "next" {
		t.Errorf("the version is %s", version)
	}
	after := s.programs(t)
	for name, program := range before {
		if id, ok := after[name]; !ok || id == program {
			t.Errorf("link %s has program %d, and had %d", name, id, program)
		}
	}
	select {
	case <-former.Done():
		t.Errorf("the former daemon ended by itself: %s", former.Log())
	default:
	}
	stage.Must(t, former.Stop(10*time.Second))
	if log := former.Log(); log != "" {
		t.Errorf("the former daemon says %s", log)
	}
	time.Sleep(time.Second)
	done := s.load.Stop(t)
	spans, counts := s.Settled(t)
	verify(t, spans, counts, done)
	s.Close(t)
	s.nothing(t)
}

// What a killed daemon left is taken over. What it had taken from the kernel and not delivered is lost, and counted.
func TestKilled(t *testing.T) {
	s := begin(t)
	s.Kill(t)
	time.Sleep(500 * time.Millisecond)
	s.Next(t, stage.Binary())
	if r := s.restart(t); r.gap != 0 || !r.taken {
		t.Errorf("the next daemon says of its start %+v", r)
	}
	time.Sleep(time.Second)
	done := s.load.Stop(t)
	spans, counts := s.Settled(t)
	lost := counts.Dropped["earlier_daemon"]
	if lost != counts.DroppedTotal() || counts.Events["hpack_unknown_fields"] > 0 {
		t.Errorf("lost: %v", counts)
	}
	if low := 2 * (done.Requests + done.Calls); counts.Seen < low {
		t.Errorf("%d exchange sides were seen, want at least %d", counts.Seen, low)
	}
	// A batch may have come to the collector, and the daemon been killed before it said so.
	if calls := named(t, spans); calls > 2*done.Calls || calls+lost < 2*done.Calls {
		t.Errorf("%d spans are of %d calls, %d exchange sides are lost", calls, done.Calls, lost)
	}
	t.Logf("%+v: %v", done, counts)
	s.Close(t)
	s.nothing(t)
}

// What another version left can't be used: it is taken down, and the gap counted.
func TestOtherVersion(t *testing.T) {
	s := begin(t)
	s.Kill(t)
	m, err := ebpf.LoadPinnedMap(filepath.Join(s.pins, "m_heritage"), nil)
	stage.Must(t, err)
	value := make([]byte, m.ValueSize())
	stage.Must(t, m.Lookup(uint32(0), &value))
	value[0]++ // the version
	stage.Must(t, m.Put(uint32(0), value), m.Close())
	before := s.programs(t)
	s.Next(t, stage.Binary())
	if r := s.restart(t); r.gap <= 0 || r.gap > 60 || r.taken {
		t.Errorf("the next daemon says of its start %+v", r)
	}
	for name, program := range before {
		p, err := ebpf.NewProgramFromID(program)
		if err == nil {
			p.Close()
			t.Errorf("the program of link %s is still loaded", name)
		}
	}
	s.load.Stop(t)
	s.Close(t)
	s.nothing(t)
}

// A table of another size is another form: the next daemon begins anew.
func TestOtherConfiguration(t *testing.T) {
	s := begin(t)
	s.Kill(t)
	s.Flags("--max-connections", "1000")
	s.Next(t, stage.Binary())
	if r := s.restart(t); r.gap <= 0 || r.taken {
		t.Errorf("the next daemon says of its start %+v", r)
	}
	s.load.Stop(t)
	s.Close(t)
	s.nothing(t)
}

// Where the daemon that was handed over to ends, the former one, which waits for its end, ends too: whoever keeps it running
// starts it anew, and it takes over.
func TestSuccessorEnds(t *testing.T) {
	s := begin(t)
	former := s.Next(t, stage.Binary())
	s.Kill(t)
	select {
	case <-former.Done():
	case <-time.After(40 * time.Second):
		t.Fatal("40 s behind the end of the next daemon the former one waits on")
	}
	if err := former.Wait(); err == nil {
		t.Error("the former daemon ended as if nothing were wrong")
	}
	s.Next(t, stage.Binary())
	if r := s.restart(t); r.gap != 0 || !r.taken {
		t.Errorf("the third daemon says of its start %+v", r)
	}
	s.load.Stop(t)
	s.Close(t)
	s.nothing(t)
}

// A stop, paused or not, leaves nothing.
func TestStopWhilePaused(t *testing.T) {
	s := begin(t)
	s.Pause(t)
	if entries, err := filepath.Glob(filepath.Join(s.pins, "l_*")); err != nil || len(entries) > 0 {
		t.Errorf("paused, %v is pinned, %v", entries, err)
	}
	// Killed while paused its maps are taken over, and the next daemon traces.
	s.Kill(t)
	s.Next(t, stage.Binary())
	if r := s.restart(t); r.gap <= 0 || !r.taken {
		t.Errorf("the next daemon says of its start %+v", r)
	}
	s.load.Stop(t)
	s.Close(t)
	s.nothing(t)
}
