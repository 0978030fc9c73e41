package daemon

import (
	"fmt"
	"sync"

	"ambit/bpf"
	"ambit/tc"

	"github.com/cilium/ebpf"
)

// spaces are the tapped namespaces, as far as the daemon itself has to know them: their names, and what
// their stubs have run. The sums of those that ended are kept. It holds one entry per tapped namespace.
type spaces struct {
	mu    sync.Mutex
	live  map[uint64]space // by cookie
	ended map[string]bpf.ProgramInfo
}

type space struct {
	netns tc.NetNS
	// stubs are clones: tc closes the programs that it was given.
	stubs []*ebpf.Program
}

func (s *spaces) add(n tc.NetNS, stubs *bpf.Stubs) error {
	sp := space{netns: n}
	for _, p := range []*ebpf.Program{stubs.LoEgress, stubs.Egress, stubs.Ingress} {
		c, err := p.Clone()
		if err != nil {
			sp.close()
			return fmt.Errorf("hold the programs of network namespace %s: %w", n.Name, err)
		}
		sp.stubs = append(sp.stubs, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = make(map[uint64]space)
		s.ended = make(map[string]bpf.ProgramInfo)
	}
	s.live[n.Cookie] = sp
	return nil
}

func (s *spaces) remove(n tc.NetNS) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp, ok := s.live[n.Cookie]
	if !ok {
		return
	}
	delete(s.live, n.Cookie)
	for _, p := range sp.stubs {
		if info, err := bpf.ProgramOf(p); err == nil {
			s.ended[info.Name] = sum(s.ended[info.Name], info)
		}
	}
	sp.close()
}

func (sp *space) close() {
	for _, p := range sp.stubs {
		p.Close()
	}
}

// name gives a tapped namespace's name, "" for another.
func (s *spaces) name(cookie uint64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[cookie].netns.Name
}

func sum(a, b bpf.ProgramInfo) bpf.ProgramInfo {
	return bpf.ProgramInfo{Name: b.Name, Runs: a.Runs + b.Runs, NS: a.NS + b.NS, Verified: b.Verified}
}

// programs sums up what the stubs of all namespaces have run, by name. The tap's own time is part of it.
func (s *spaces) programs() (map[string]bpf.ProgramInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]bpf.ProgramInfo)
	for name, info := range s.ended {
		out[name] = info
	}
	for _, sp := range s.live {
		for _, p := range sp.stubs {
			info, err := bpf.ProgramOf(p)
			if err != nil {
				return nil, err
			}
			out[info.Name] = sum(out[info.Name], info)
		}
	}
	return out, nil
}

// has tells whether a namespace is tapped.
func (s *spaces) has(cookie uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.live[cookie]
	return ok
}

// count is how many namespaces are tapped.
func (s *spaces) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}
