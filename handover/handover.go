// Package handover keeps maps and links beyond the end of the process that made them, by name, for the next one: in
// systemd's file descriptor store (systemd.go), or pinned in a BPF file system (pins.go).
//
//	one daemon:   Put ... Drop ... end
//	the next one: Map, Link (takes what was left) ... Discard (the rest)
//
// In the store systemd holds a second descriptor of each; when the service is stopped, and not restarted, it closes them,
// and what is attached by them goes. Pins stay until somebody removes them.
package handover

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Object is a map or a link.
type Object interface {
	FD() int
	Pin(path string) error
}

// Names tell maps from links, and hold no dot, which a BPF file system refuses.
const (
	mapPrefix  = "m_"
	linkPrefix = "l_"
)

// keeper is one of the two places.
type keeper interface {
	put(name string, o Object) error
	drop(name string) error
	// open gives what an earlier process left; the keeper goes on to hold it.
	openMap(name string) (*ebpf.Map, error)
	openLink(name string) (link.Link, error)
	close() error
}

// Store is where things are kept. A nil *Store keeps nothing, and nothing was left in it.
type Store struct {
	mu     sync.Mutex
	keeper keeper
	left   map[string]bool // what an earlier process left, and nobody has taken
	held   map[string]bool // everything that is kept
	room   int             // bytes of names that there is room for
	full   error           // the first thing that was not kept
}

// nameRoom bounds the names of what is kept: systemd hands them on in one variable of the environment, which the kernel
// bounds to 128 KiB.
const nameRoom = 120 << 10

func newStore(k keeper, left []string) *Store {
	s := &Store{keeper: k, left: make(map[string]bool), held: make(map[string]bool), room: nameRoom}
	for _, name := range left {
		s.left[name] = true
		s.hold(name)
	}
	return s
}

// hold and release count a name; the caller holds mu.
func (s *Store) hold(name string) {
	if !s.held[name] {
		s.held[name] = true
		s.room -= len(name) + 1
	}
}

func (s *Store) release(name string) {
	if s.held[name] {
		delete(s.held, name)
		s.room += len(name) + 1
	}
}

// PutMap keeps a map under a name, in the place of what had it. What can't be kept ends with this process; the first
// error is Trouble's, too.
func (s *Store) PutMap(name string, m *ebpf.Map) error { return s.put(mapPrefix+name, m) }

// PutLink is PutMap for a link.
func (s *Store) PutLink(name string, l link.Link) error {
	o, ok := l.(Object)
	if !ok {
		return fmt.Errorf("keep link %s for the next daemon: it is a %T, which has no file descriptor", name, l)
	}
	return s.put(linkPrefix+name, o)
}

func (s *Store) put(name string, o Object) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.dropped(name)
	if err == nil && len(name)+1 > s.room {
		err = fmt.Errorf("%d maps and links are kept already, and there is no room for more names", len(s.held))
	}
	if err == nil {
		err = s.keeper.put(name, o)
	}
	if err != nil {
		err = fmt.Errorf("keep %s for the next daemon: %w", name, err)
		s.full = cmp.Or(s.full, err)
		return err
	}
	s.hold(name)
	return nil
}

// dropped makes a name free; the caller holds mu.
func (s *Store) dropped(name string) error {
	if !s.held[name] {
		return nil
	}
	if err := s.keeper.drop(name); err != nil {
		return err
	}
	delete(s.left, name)
	s.release(name)
	return nil
}

// DropLink lets go of a link that was detached. Where there is none of the name it does nothing.
func (s *Store) DropLink(name string) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.dropped(linkPrefix + name); err != nil {
		return fmt.Errorf("let go of link %s: %w", name, err)
	}
	return nil
}

// Map takes a map that an earlier process left: it is the caller's, and stays kept. nil where there is none.
func (s *Store) Map(name string) (*ebpf.Map, error) {
	if !s.take(mapPrefix + name) {
		return nil, nil
	}
	m, err := s.keeper.openMap(mapPrefix + name)
	if err != nil {
		return nil, fmt.Errorf("take map %s of an earlier daemon: %w", name, err)
	}
	return m, nil
}

// Link is Map for a link.
func (s *Store) Link(name string) (link.Link, error) {
	if !s.take(linkPrefix + name) {
		return nil, nil
	}
	l, err := s.keeper.openLink(linkPrefix + name)
	if err != nil {
		return nil, fmt.Errorf("take link %s of an earlier daemon: %w", name, err)
	}
	return l, nil
}

func (s *Store) take(name string) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.left[name]
	delete(s.left, name)
	return had
}

// Left tells how many maps and links an earlier process left that nobody has taken.
func (s *Store) Left() int {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.left)
}

// Discard detaches and lets go of all that an earlier process left and nobody has taken.
func (s *Store) Discard() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	// In order, so that logs are the same each time.
	names := make([]string, 0, len(s.left))
	for name := range s.left {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasPrefix(name, linkPrefix) {
			// At once, not when the last descriptor of it is closed, which may be somebody else's.
			if l, err := s.keeper.openLink(name); err == nil {
				errs = append(errs, Detach(l))
			}
		}
		if err := s.dropped(name); err != nil {
			errs = append(errs, fmt.Errorf("let go of %s of an earlier daemon: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Detach takes a link off, whoever else holds it, and closes it. That it has ended already, with its interface or its
// cgroup, is no error.
func Detach(l link.Link) error {
	err := l.Detach()
	if gone(err) || errors.Is(err, link.ErrNotSupported) {
		err = nil
	}
	return errors.Join(err, l.Close())
}

// Clear lets go of everything, so that nothing outlives this process.
func (s *Store) Clear() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for name := range s.held {
		if err := s.dropped(name); err != nil {
			errs = append(errs, fmt.Errorf("let go of %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Trouble is why something is not kept, nil where everything is.
func (s *Store) Trouble() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// Kept is how many maps and links are kept.
func (s *Store) Kept() int {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

// Close lets go of this process's own hold; what is kept stays.
func (s *Store) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeper.close()
}
