package tc

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// look goes into the tapped namespaces where something may have changed.
func (t *Taps) look(now time.Time, full bool) {
	poll := full && t.watch.events < 0 && t.fulls%pollEvery == 0
	verify := make(map[*space]bool)
	var due []*space
	for _, s := range t.spaces {
		if s.tap == nil || s.failures > 0 && now.Before(s.retry) {
			continue
		}
		// Spread over several scans what was found in one.
		old := now.Sub(s.looked) > recheck+time.Duration(s.Inode%8)*scanEvery
		if t.paused && len(s.tap.ifaces) == 0 || !s.dirty && !old && !poll {
			continue
		}
		t.changed = true
		if t.paused && !s.tap.needsVisit() {
			// The kill switch waits for no way into a namespace that it can do without.
			t.settle(s, now, s.tap.detach(nil))
			continue
		}
		verify[s] = s.dirty || old
		due = append(due, s)
	}
	errs := t.visit(due, func(s *space, v *visitor) error {
		if t.stopping.Load() {
			return errStopping
		}
		// Before the look: an event during it asks for another.
		s.dirty = false
		cookie, err := v.cookie()
		if err != nil {
			return err
		}
		if cookie != s.Cookie {
			return errReplaced
		}
		if t.paused {
			return s.tap.detach(v)
		}
		if verify[s] {
			s.looked = now
		}
		return s.tap.reconcile(v, &t.method, verify[s])
	})
	for i, s := range due {
		if errors.Is(errs[i], errReplaced) {
			t.end(s)
		} else {
			t.settle(s, now, errs[i])
		}
	}
}

// settle notes what came of a look: after an error there is another.
func (t *Taps) settle(s *space, now time.Time, err error) {
	if err == nil {
		s.err, s.failures = nil, 0
		return
	}
	s.dirty = true
	t.note(s, now, err)
}

// release undoes everything in a namespace: programs, lock and what Released is for.
func (t *Taps) release(s *space) error {
	if s.tap == nil {
		return s.unlock()
	}
	s.tap.leaving = t.leaving
	var errs []error
	if s.tap.needsVisit() {
		err := t.visit([]*space{s}, func(s *space, v *visitor) error {
			if cookie, err := v.cookie(); err != nil || cookie != s.Cookie {
				return errors.Join(err, errGone)
			}
			return s.tap.detach(v)
		})[0]
		if err != nil && !errors.Is(err, errGone) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, s.tap.detach(nil), s.tap.programs.close())
	s.tap = nil
	t.changed = true
	if t.config.Released != nil {
		t.config.Released(s.NetNS)
	}
	errs = append(errs, s.unlock())
	t.log.Info("network namespace released", "netns", s.Name, "inode", s.Inode, "cookie", s.Cookie)
	return errors.Join(errs...)
}

func (t *Taps) releaseAll() error {
	var errs []error
	for _, s := range t.spaces {
		if err := t.release(s); err != nil {
			errs = append(errs, fmt.Errorf("release network namespace %s: %w", s.Name, err))
		}
	}
	t.show()
	return errors.Join(errs...)
}

// sweepOthers removes what a dead daemon left in namespaces that are not among the wanted ones. A live
// daemon's are locked and left alone.
func (t *Taps) sweepOthers(wanted []*space) {
	var others []*space
	for _, s := range t.spaces {
		if !slices.Contains(wanted, s) {
			others = append(others, s)
		}
	}
	errs := t.visit(others, func(s *space, v *visitor) error {
		kinds, err := v.ingressQdiscs()
		if err != nil || len(kinds) == 0 {
			return err
		}
		cookie, err := v.cookie()
		if err != nil {
			return err
		}
		taken, errs := t.locks.acquire([]NetNS{{s.Name, s.Inode, cookie}})
		if errs[0] != nil {
			return nil
		}
		for index := range kinds {
			err = errors.Join(err, v.sweep(index))
		}
		return errors.Join(err, taken[0].release())
	})
	for i, err := range errs {
		if err != nil && !errors.Is(err, errGone) {
			t.log.Warn("network namespace was not searched for filters of a dead daemon", "netns", others[i].Name, "error", err)
		}
	}
}

// checkStart finds out whether anything at all could be attached.
func (t *Taps) checkStart() error {
	for _, s := range t.spaces {
		if s.tap != nil && s.err != nil {
			return fmt.Errorf("network namespace %s: %w", s.Name, s.err)
		}
	}
	if len(t.attachments) == 0 && len(t.skipped) > 0 {
		first := t.skipped[0]
		return fmt.Errorf("network namespace %s: interface %s: %w", first.NetNS.Name, first.Interface, first.Err)
	}
	return nil
}

// show publishes what is attached and what is not.
func (t *Taps) show() {
	var attachments []Attachment
	var skipped []Skipped
	for _, s := range t.spaces {
		if s.err != nil {
			skip := Skipped{NetNS: s.NetNS, Err: s.err}
			var held *heldError
			if errors.As(s.err, &held) {
				skip.PID = held.pid
			}
			skipped = append(skipped, skip)
		}
		if s.tap == nil {
			continue
		}
		for index, i := range s.tap.ifaces {
			for _, h := range i.hooks {
				attachments = append(attachments, Attachment{s.NetNS, i.name, index, string(h.at), h.method})
			}
		}
		for _, trouble := range s.tap.trouble {
			trouble.NetNS = s.NetNS
			skipped = append(skipped, trouble)
		}
	}
	slices.SortFunc(attachments, func(a, b Attachment) int {
		return cmp.Or(cmp.Compare(a.NetNS.Name, b.NetNS.Name), cmp.Compare(a.NetNS.Cookie, b.NetNS.Cookie),
			cmp.Compare(a.Ifindex, b.Ifindex), cmp.Compare(a.Hook, b.Hook))
	})
	slices.SortFunc(skipped, func(a, b Skipped) int {
		return cmp.Or(cmp.Compare(a.NetNS.Name, b.NetNS.Name), cmp.Compare(a.NetNS.Cookie, b.NetNS.Cookie),
			cmp.Compare(a.Interface, b.Interface))
	})
	t.changed = false
	t.shown.Lock()
	defer t.shown.Unlock()
	t.attachments, t.skipped = attachments, skipped
}
