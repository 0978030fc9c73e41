package daemon

import (
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

// routeTextMax bounds what is kept of a template or a host, in bytes.
const routeTextMax = 256

// Routes are the names of routes, by key. It is safe for concurrent use.
type Routes struct {
	// named tells the kernel that a name is known; it is false for a route that is not there any more.
	named func(key uint64) bool
	rules ruleTexts

	mu    sync.RWMutex
	names map[uint64]*routeEntry
}

// ruleTexts tells what the kernel says of rules by their places; "" is not known any more, or none.
type ruleTexts interface {
	rule(generation uint32, place uint16) string
	template(generation uint32, action uint16) string
}

type routeEntry struct {
	route   l7.Route
	learned time.Time
	decided Decided
}

// Decided says what the latest span of a route was kept by, or, while there is none, by which rule none was.
type Decided struct {
	Rule   string    // "" is not known
	Reason l7.Reason // 0: none of its requests was kept yet
}

func newRoutes(named func(key uint64) bool, rules ruleTexts) *Routes {
	return &Routes{named: named, rules: rules, names: make(map[uint64]*routeEntry)}
}

// Learn notes the name of a route and tells the kernel so. An announcement of a route that has gone since is nothing.
func (r *Routes) Learn(a *l7.Announcement) {
	e := &routeEntry{learned: time.Now(), route: l7.Route{Kind: a.Kind, Method: l7.MethodName(a.Method), GRPC: a.GRPC}}
	e.decided.Rule = r.rules.rule(a.Generation, a.Decided)
	if a.Rule != bpf.NoRule {
		e.route.Template = routeText(r.rules.template(a.Generation, a.Rule))
	}
	if e.route.FromRule = e.route.Template != ""; !e.route.FromRule {
		e.route.Template = routeText(l7.Template(a.Path, a.GRPC))
	}
	if a.Kind == l7.Client {
		e.route.Host, e.route.Port = l7.Authority(routeText(a.Host))
		if e.route.Host == "" && a.Remote.IsValid() {
			e.route.Host, e.route.Port = a.Remote.Addr().String(), a.Remote.Port()
		}
	}
	// The name comes first: whoever sees the route as named finds it.
	r.mu.Lock()
	before := r.names[a.Key]
	r.names[a.Key] = e
	r.mu.Unlock()
	if r.named(a.Key) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if before != nil {
		r.names[a.Key] = before
	} else {
		delete(r.names, a.Key)
	}
}

// routeText is valid UTF-8 of bounded length.
func routeText(s string) string {
	if len(s) > routeTextMax {
		const ellipsis = "…"
		s = s[:routeTextMax-len(ellipsis)] + ellipsis
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Decide notes by what a span of the route was kept, and gives the route's name; false where that is not known.
func (r *Routes) Decide(key uint64, by Decided) (*l7.Route, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.names[key]
	if e == nil {
		return nil, false
	}
	e.decided = by
	return &e.route, true
}

// Of is the name of a route; false where it is not known.
func (r *Routes) Of(key uint64) (*l7.Route, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.names[key]
	if e == nil {
		return nil, false
	}
	return &e.route, true
}

// Decided is what Decide noted last.
func (r *Routes) Decided(key uint64) Decided {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.names[key]; e != nil {
		return e.decided
	}
	return Decided{}
}

// forgetAfter spares names that came while the snapshot was made.
const forgetAfter = 2 * time.Second

// Forget drops the names of routes that the snapshot does not have any more.
func (r *Routes) Forget(snap *bpf.Snapshot) {
	known := make(map[uint64]bool, len(snap.Routes))
	for _, route := range snap.Routes {
		known[route.Key] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, e := range r.names {
		if !known[key] && e.learned.Before(snap.At.Add(-forgetAfter)) {
			delete(r.names, key)
		}
	}
}

// hostPort is what a client's route called, for people; "" of a server's.
func hostPort(r *l7.Route) string {
	if r.Host == "" || r.Port == 0 || r.Port == 80 {
		return r.Host
	}
	return net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port)))
}
