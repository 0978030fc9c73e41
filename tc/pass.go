package tc

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// maxTapped bounds the programs, locks and links that a host full of namespaces can cost.
	maxTapped = 4096
	// listDirs is of how many scans one lists the directories without being told to: a link there may lead
	// elsewhere without a change of its own.
	listDirs = 4
	// pollEvery is of how many scans one looks at all interfaces, if there are no events.
	pollEvery = 2
	// recheck is how long an attachment is believed in without a look at it; somebody may have removed it.
	recheck = 30 * time.Second
	// askAmbient is how long it takes at least until a namespace is asked again whether it is ambient.
	askAmbient = 700 * time.Millisecond
	// stayAmbient is how long a namespace remains ambient without ztunnel's listeners, so that ztunnel can
	// be restarted.
	stayAmbient = time.Minute
	// missedScans is how many scans in a row have to miss a namespace for it to have ended: one may miss
	// it when its processes change meanwhile. The end itself is mostly told by an event before.
	missedScans = 2
	// retryHeld is the time to the next try to lock a namespace that another daemon has.
	retryHeld = time.Second
	// retryMost bounds the time to the next try after errors, which begins at a second and doubles.
	retryMost = 32 * time.Second
)

// space is a network namespace of the host that is known for now. Its cookie is known once it has been
// entered for the first time.
type space struct {
	NetNS
	seen   *sighting
	missed int // scans in a row
	number int // of its events, 0 for none

	lock *lock
	tap  *tap // nil unless tapped
	// dirty asks for a look at its interfaces.
	dirty  bool
	looked time.Time

	asked, ambient time.Time // when it was last asked, and last found, to be ambient

	err      error // why it is not tapped, or not up to date
	failures int
	retry    time.Time
}

// errStopping means that Close was called during a pass, which takes seconds where much is to be attached.
var errStopping = errors.New("closed meanwhile")

// errReplaced means that another namespace has the inode of one that has ended.
var errReplaced = errors.New("another network namespace has its inode")

// pass brings everything up to date. A full one scans the processes. At the start errors are returned
// that later are kept with the namespace and tried again.
func (t *Taps) pass(full, starting bool) error {
	if full {
		t.watch.watchDirs(namedDirs)
	}
	happened := t.watch.changes()
	t.hear(happened)
	if full || happened.files {
		if full {
			t.fulls++
		}
		found, err := t.finder.scan(full, happened.files || full && t.fulls%listDirs == 1)
		if err != nil {
			t.watch.remounted.Store(true)
			return err
		}
		if full {
			t.cost = found.cost
		}
		// An inode in the list is a new namespace's if the old one's end has been told by now.
		later := t.watch.changes()
		t.hear(later)
		if later.files {
			t.watch.remounted.Store(true) // for the next pass
		}
		t.sight(found, full)
	}
	now := time.Now()
	if full {
		t.findAmbient(now)
		t.findUnmatched(now)
	}
	for _, s := range t.spaces {
		if s.tap != nil && !t.wants(s, now) {
			t.note(s, now, t.release(s))
		}
	}
	if err := t.takeUp(now, starting); err != nil {
		return err
	}
	t.look(now, full)
	if t.stopping.Load() {
		return errStopping
	}
	if t.changed {
		t.show()
	}
	if starting {
		return t.checkStart()
	}
	return nil
}

// hear notes what the events tell.
func (t *Taps) hear(c changes) {
	for _, s := range t.spaces {
		if s.number != 0 && c.ended[s.number] {
			t.end(s)
		} else if c.lost || s.number != 0 && c.links[s.number] {
			s.dirty = true
		}
	}
}

// sight notes which namespaces a scan has found, and ends those that full scans do not find any more.
func (t *Taps) sight(found findings, full bool) {
	for key, seen := range found.spaces {
		s := t.spaces[key]
		if s == nil {
			s = &space{NetNS: NetNS{Inode: key.inode}}
			t.spaces[key] = s
		}
		s.seen, s.missed = seen, 0
		was := s.Name
		s.Name = seen.name(was)
		t.changed = t.changed || s.Name != was
	}
	for key, s := range t.spaces {
		if found.spaces[key] != nil || !full {
			continue
		}
		if s.missed++; s.missed >= missedScans {
			t.end(s)
		}
	}
}

// end forgets a namespace that has ended, or that only a file descriptor still holds.
func (t *Taps) end(s *space) {
	if err := t.release(s); err != nil {
		t.log.Warn("network namespace was not released cleanly", "netns", s.Name, "error", err)
	}
	delete(t.spaces, s.seen.key)
	t.changed = true
}

func (t *Taps) wants(s *space, now time.Time) bool {
	if t.selection.excludes(s.seen) {
		return false
	}
	return t.selection.picks(s.seen) || t.selection.ambient && now.Sub(s.ambient) < stayAmbient
}

// note keeps err with its namespace and has the namespace tried again later. An end is no error, and is
// left to the next scan.
func (t *Taps) note(s *space, now time.Time, err error) {
	if err == nil || errors.Is(err, errGone) || errors.Is(err, errStopping) {
		return
	}
	if s.err == nil || s.err.Error() != err.Error() {
		t.log.Warn("network namespace cannot be tapped, trying again", "netns", s.Name, "inode", s.Inode, "error", err)
	}
	var held *heldError
	wait := retryHeld
	if !errors.As(err, &held) {
		wait = min(time.Second<<min(s.failures, 10), retryMost)
		s.failures++
	}
	s.err, s.retry = err, now.Add(wait)
	t.changed = true
}

// visit runs fn inside each of the namespaces.
func (t *Taps) visit(spaces []*space, fn func(s *space, v *visitor) error) []error {
	places := make([]place, len(spaces))
	for i, s := range spaces {
		places[i] = s.seen.place(t.home)
	}
	return t.home.visit(places, func(i int, v *visitor) error { return fn(spaces[i], v) })
}

func (t *Taps) findAmbient(now time.Time) {
	if !t.selection.ambient {
		return
	}
	var due []*space
	for _, s := range t.spaces {
		if !t.selection.picks(s.seen) && !t.selection.excludes(s.seen) && now.Sub(s.asked) >= askAmbient {
			s.asked = now
			due = append(due, s)
		}
	}
	errs := t.visit(due, func(s *space, _ *visitor) error {
		ambient, err := isAmbient()
		if ambient {
			s.ambient = now
		}
		return err
	})
	for i, err := range errs {
		t.note(due[i], now, err)
	}
}

// takeUp identifies, locks and loads the namespaces that are wanted and not tapped.
func (t *Taps) takeUp(now time.Time, starting bool) error {
	var wanted, unknown []*space
	tapped := 0
	for _, s := range t.spaces {
		switch {
		case s.tap != nil:
			tapped++
		case !t.wants(s, now):
			t.changed = t.changed || s.err != nil
			s.err = nil
		case now.Before(s.retry):
		case s.Cookie == 0:
			unknown = append(unknown, s)
		default:
			wanted = append(wanted, s)
		}
	}
	known, err := t.identify(unknown, now, starting)
	if err != nil {
		return err
	}
	wanted = append(wanted, known...)
	// So that logs and errors are the same each time.
	slices.SortFunc(wanted, func(a, b *space) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Cookie, b.Cookie))
	})
	for len(wanted) > 0 && tapped+len(wanted) > maxTapped {
		last := wanted[len(wanted)-1]
		t.note(last, now, fmt.Errorf("%d network namespaces are tapped, which is the most", maxTapped))
		wanted = wanted[:len(wanted)-1]
	}
	if wanted, err = t.acquire(wanted, now, starting); err != nil {
		return err
	}
	if starting {
		t.sweepOthers(wanted)
	}
	for _, s := range wanted {
		if err := t.load(s); err != nil {
			if starting {
				return err
			}
			t.note(s, now, errors.Join(err, s.unlock()))
		}
	}
	return nil
}

// identify learns the cookies of the namespaces and gives those back that still exist.
func (t *Taps) identify(spaces []*space, now time.Time, starting bool) ([]*space, error) {
	errs := t.visit(spaces, func(s *space, v *visitor) error {
		cookie, err := v.cookie()
		if err != nil {
			return err
		}
		if s.number, err = t.watch.number(v.fd); err != nil {
			return err
		}
		s.Cookie = cookie
		return nil
	})
	var known []*space
	for i, s := range spaces {
		switch err := errs[i]; {
		case err == nil:
			known = append(known, s)
		case starting && !errors.Is(err, errGone):
			return nil, fmt.Errorf("network namespace %s: %w", s.Name, err)
		default:
			t.note(s, now, err)
		}
	}
	return known, nil
}

// acquire locks the namespaces and gives those back that it got.
func (t *Taps) acquire(spaces []*space, now time.Time, starting bool) ([]*space, error) {
	names := make([]NetNS, len(spaces))
	for i, s := range spaces {
		names[i] = s.NetNS
	}
	taken, errs := t.locks.acquire(names)
	var got []*space
	var held []Overlap
	var failed error
	for i, s := range spaces {
		s.lock = taken[i]
		var other *heldError
		switch {
		case errs[i] == nil:
			got = append(got, s)
		case errors.As(errs[i], &other):
			held = append(held, Overlap{s.NetNS, other.pid, other.stranger})
			fallthrough
		default:
			failed = errs[i]
			if !starting {
				t.note(s, now, errs[i])
			}
		}
	}
	if starting && held != nil {
		return nil, &OverlapError{held}
	}
	if starting && failed != nil {
		return nil, failed
	}
	return got, nil
}

func (s *space) unlock() error {
	if s.lock == nil {
		return nil
	}
	lock := s.lock
	s.lock = nil
	return lock.release()
}

func (t *Taps) load(s *space) error {
	programs, err := t.config.Load(s.NetNS)
	if err == nil {
		err = programs.check()
	}
	if err != nil {
		return fmt.Errorf("load programs for network namespace %s: %w", s.Name, err)
	}
	s.tap = newTap(programs, t.config.Keep, s.Cookie, &t.stopping, t.log.With("netns", s.Name, "inode", s.Inode))
	s.dirty = true
	s.err, s.failures = nil, 0
	t.changed = true
	t.log.Info("network namespace taken", "netns", s.Name, "inode", s.Inode, "cookie", s.Cookie)
	return nil
}
