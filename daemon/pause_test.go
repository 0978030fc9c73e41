package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"ambit/admin"
	"ambit/tc"
)

// switchboard stands in for what is attached. It notes what it is asked for.
type switchboard struct {
	asked                         []string
	attach, detach, pause, resume error
	abandon                       error
	open                          bool
}

func (s *switchboard) note(what string, err error) error {
	s.asked = append(s.asked, what)
	return err
}

func (s *switchboard) Attach(string) error { return s.note("attach", s.attach) }
func (s *switchboard) Detach() error       { return s.note("detach", s.detach) }
func (s *switchboard) Abandon() error      { return s.note("abandon", s.abandon) }
func (s *switchboard) Open() error         { s.open = true; return nil }
func (s *switchboard) Shut() error         { s.open = false; return nil }
func (s *switchboard) Pause() error        { return s.note("pause", s.pause) }
func (s *switchboard) Resume() error       { return s.note("resume", s.resume) }

// want checks what was asked for since the last call, and what the daemon says of itself.
func (s *switchboard) want(t *testing.T, d *Daemon, state admin.State, listening bool, asked ...string) {
	t.Helper()
	if !slices.Equal(s.asked, asked) || d.State() != state {
		t.Errorf("asked for %q, it is %s; want %q, %s", s.asked, d.State(), asked, state)
	}
	if n := len(d.attachments()); n > 0 != listening {
		t.Errorf("%d programs are shown at the sockets", n)
	}
	if s.open && state == admin.Paused {
		t.Error("the taps are open in a pause")
	}
	s.asked = nil
}

func switched(t *testing.T) (*Daemon, *switchboard) {
	t.Helper()
	s := new(switchboard)
	d := &Daemon{log: slog.New(slog.DiscardHandler), taps: new(tc.Taps)}
	d.hooks.sockets, d.hooks.taps = s, s
	d.hooks.listening.Store(true)
	d.state.Store(admin.Tracing)
	return d, s
}

func TestPauseAndResume(t *testing.T) {
	d, s := switched(t)
	ctx := context.Background()
	if err := d.Resume(ctx); err != nil {
		t.Error(err)
	}
	s.want(t, d, admin.Tracing, true)         // nothing to do
	s.abandon = errors.New("the map is gone") // does not matter yet
	for _, more := range [][]string{{"abandon"}, nil} {
		if err := d.Pause(ctx); err != nil {
			t.Error(err)
		}
		s.want(t, d, admin.Paused, false, append([]string{"pause", "detach"}, more...)...)
	}
	s.abandon = nil
	if err := d.Resume(ctx); err != nil {
		t.Error(err)
	}
	s.want(t, d, admin.Tracing, true, "abandon", "attach", "resume")
}

// Paused means that nothing is attached: a pause that failed is none, and the next one tries again.
func TestPauseIsTruthful(t *testing.T) {
	stuck := errors.New("it is stuck")
	ctx := context.Background()
	for about, c := range map[string]struct {
		fail      func(*switchboard, error)
		listening bool
	}{
		"the taps":    {func(s *switchboard, err error) { s.pause = err }, false},
		"the sockets": {func(s *switchboard, err error) { s.detach = err }, true},
	} {
		t.Run(about, func(t *testing.T) {
			d, s := switched(t)
			c.fail(s, stuck)
			for range 2 {
				if err := d.Pause(ctx); !errors.Is(err, stuck) || !strings.Contains(err.Error(), `"ambit status" lists it`) {
					t.Errorf("pause: %v", err)
				}
				s.want(t, d, admin.Tracing, c.listening, "pause", "detach")
			}
			// Half of it is off, so there is something to resume.
			if err := d.Resume(ctx); err != nil {
				t.Error(err)
			}
			s.want(t, d, admin.Tracing, true, "abandon", "attach", "resume")
			_ = d.Pause(ctx)
			c.fail(s, nil)
			if err := d.Pause(ctx); err != nil {
				t.Error(err)
			}
			s.want(t, d, admin.Paused, false, "pause", "detach", "pause", "detach", "abandon")
		})
	}
}

// A resume that fails leaves nothing attached.
func TestResumeIsAllOrNothing(t *testing.T) {
	broken := errors.New("it is broken")
	ctx := context.Background()
	d, s := switched(t)
	if err := d.Pause(ctx); err != nil {
		t.Error(err)
	}
	s.asked = nil
	s.attach = broken
	if err := d.Resume(ctx); !errors.Is(err, broken) {
		t.Errorf("resume: %v", err)
	}
	s.want(t, d, admin.Paused, false, "abandon", "attach", "pause", "detach")
	s.attach, s.resume = nil, broken
	if err := d.Resume(ctx); !errors.Is(err, broken) {
		t.Errorf("resume: %v", err)
	}
	s.want(t, d, admin.Paused, false, "abandon", "attach", "resume", "pause", "detach")
}
