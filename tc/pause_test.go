package tc

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
)

func TestPauseAndResume(t *testing.T) {
	eachWay(t, func(t *testing.T, method string, start func(*recorder, ...string) *Taps) {
		makeNetns(t, "t1")
		r := newRecorder()
		taps := start(r, "all")
		if err := taps.Pause(); err != nil {
			t.Fatalf("pause: %v", err)
		}
		if now := taps.Attachments(); len(now) > 0 {
			t.Errorf("paused, and attached: %v", now)
		}
		makeNetns(t, "t2")
		waitFor(t, "t2 is taken while paused", func() bool { _, live := r.of("t2"); return live })
		if left := append(inventory(t, ""), append(inventory(t, "t1"), inventory(t, "t2")...)...); left != nil {
			t.Errorf("paused, and in the kernel: %q", left)
		}
		if err := taps.Resume(); err != nil {
			t.Fatalf("resume: %v", err)
		}
		if got := len(taps.Attachments()); got != 3 {
			t.Errorf("resumed with %d attachments: %v", got, taps.Attachments())
		}
	})
}

// stuck is a hook that cannot be detached for now.
type stuck struct {
	hook
	free *atomic.Bool
}

func (s stuck) detach(v *visitor) error {
	if !s.free.Load() {
		return errors.New("it is stuck")
	}
	return s.hook.detach(v)
}

// A pause that does not get everything off says so, shows what is left, and gets it off when asked again.
func TestPauseThatFails(t *testing.T) {
	eachWay(t, func(t *testing.T, method string, start func(*recorder, ...string) *Taps) {
		makeNetns(t, "t1")
		taps := start(newRecorder(), "t1", "host")
		var free atomic.Bool
		taps.mu.Lock()
		for _, s := range taps.spaces {
			if s.Name == "t1" {
				for _, i := range s.tap.ifaces {
					i.hooks[0].hook = stuck{i.hooks[0].hook, &free}
				}
			}
		}
		taps.mu.Unlock()
		for range 2 {
			if err := taps.Pause(); err == nil || !strings.Contains(err.Error(), "detach in network namespace t1: it is stuck") {
				t.Errorf("pause: %v", err)
			}
			if got, want := lines(taps.Attachments()), "t1 lo egress "+method; len(got) != 1 || got[0] != want {
				t.Errorf("shown are %q, attached is %q", got, want)
			}
			if !contains(inventory(t, "t1"), "lo egress") {
				t.Error("nothing is attached, so this test shows nothing")
			}
		}
		free.Store(true)
		if err := taps.Pause(); err != nil {
			t.Errorf("pause: %v", err)
		}
		if left := append(inventory(t, ""), inventory(t, "t1")...); left != nil || len(taps.Attachments()) > 0 {
			t.Errorf("paused, and attached: %q, %v", left, taps.Attachments())
		}
		if err := taps.Resume(); err != nil {
			t.Errorf("resume: %v", err)
		}
		wantLines(t, taps, "host lo egress "+method, "t1 lo egress "+method)
	})
}
