// Package meta tells who is behind a socket: it turns the process and cgroup that the kernel recorded
// into an OpenTelemetry resource.
//
// service.name is the first of these that is known:
//
//  1. OTEL_SERVICE_NAME, or service.name in OTEL_RESOURCE_ATTRIBUTES, of the process's environment
//  2. the systemd unit, without ".service" or ".socket" (see unitName)
//  3. the container's name in Kubernetes, in a compose project or in Docker (see container)
//  4. the program: the script, module, class or archive that an interpreter runs, else the executable
//  5. the name the kernel knows (comm)
//
// A container's ID is never a service name: it changes with every restart. It is in container.id, and
// the pod's UID in k8s.pod.uid, for the Collector's k8sattributes.
package meta

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"ambit/l7"
)

const (
	// defaultEntries bounds the cache. A resource takes about 2 KiB, and at most 8 KiB with a hostile
	// environment, so the cache takes about 4 MiB and at most 16 MiB.
	defaultEntries = 2048

	// Reading a process takes about 0.1 ms; this many a second are a tenth of a CPU at most.
	lookupsPerSecond = 1000
	lookupBurst      = 1000

	// A read in /proc can block on the process's memory lock. The caller waits this long, and this many
	// reads may hang at a time.
	lookupPatience = 50 * time.Millisecond
	lookupsAtOnce  = 4

	// How long an answer holds that was given without reading the process.
	provisionalFor = 2 * time.Second
	// How long an answer holds when the kernel did not say when the process started: its number may go
	// to another process.
	unconfirmedFor = 10 * time.Second
)

// Config says where to look and what to add. The zero value serves a daemon in the host's own
// namespaces. The daemon must see the host's pid namespace.
type Config struct {
	// Root is where the host's file system is seen; "" is "/". Under it: proc, the cgroup mounts,
	// etc/machine-id and the container runtimes' state.
	Root string
	// ResourceAttributes is the daemon's own OTEL_RESOURCE_ATTRIBUTES, added to every resource with the
	// lowest precedence. What belongs to a service, a process or a container is ignored in it, and so is
	// the daemon's own OTEL_SERVICE_NAME: they would rename what is traced.
	ResourceAttributes string
	// HostName is host.name; "" is the kernel's.
	HostName string
	// Version is ambit's, for telemetry.distro.version.
	Version string
	// NamespaceName names a network namespace by its cookie, "" if it has no name. May be nil.
	NamespaceName func(cookie uint64) string
	// Entries bounds the number of cached resources; 0 is 2,048.
	Entries int
}

// Stats counts what happened since New. Entries is the present number of cached resources.
type Stats struct {
	Entries   int
	Misses    uint64 // resources that were not in the cache
	Evictions uint64 // resources pushed out of the full cache

	Gone          uint64 // processes that had exited, or whose number another process has now
	Denied        uint64 // files of a live process that could not be read: a capability is missing
	Deferred      uint64 // processes not read yet, because too many were asked for at once
	Late          uint64 // processes whose read took longer than 50 ms
	UnknownCgroup uint64 // cgroup IDs without a path: removed, or outside the mount
	Malformed     uint64 // OTEL_RESOURCE_ATTRIBUTES that could not be parsed or were too long
	Cut           uint64 // environments, attribute lists and values that exceeded a bound
	Repaired      uint64 // strings that were not valid UTF-8 or held control characters
}

type counters struct {
	misses, evictions, gone, denied, deferred, late, unknownCgroup, malformed, cut, repaired atomic.Uint64
}

// key is what tells one resource from another. Beside the process it holds its name, which changes when
// the process executes another program, and the socket's network namespace, which is part of the
// resource. It holds no string, which would make the look-up slower.
type key struct {
	started, cgroup, netns uint64
	pid                    uint32
	comm                   [16]byte
}

func keyOf(o *l7.Owner) key {
	k := key{started: o.StartedNS, cgroup: o.Cgroup, netns: o.NetNS, pid: o.PID}
	copy(k.comm[:], o.Comm)
	return k
}

type entry struct {
	resource *l7.Resource
	expires  time.Duration // on Meta.clock; 0 is never
}

// Meta finds resources and remembers them. It is safe for concurrent use.
type Meta struct {
	config   Config
	host     host
	own      []l7.Attribute // from Config.ResourceAttributes
	cgroups  *cgroups
	runtimes *runtimes

	cache    *lru.Cache[key, entry]
	services *lru.Cache[serviceKey, service]

	missing sync.Mutex // held while a miss is looked up, so that it is looked up once
	budget  budget     // guarded by missing
	readers chan *reader
	// patience is how long a caller waits for a reader.
	patience time.Duration
	clock    func() time.Duration // monotonic

	count counters
}

// New reads what is known of the host. It fails when no cgroup v2 hierarchy is mounted under
// Config.Root or when Config.ResourceAttributes is malformed.
func New(config Config) (*Meta, error) {
	if config.Root == "" {
		config.Root = "/"
	}
	if config.Entries <= 0 {
		config.Entries = defaultEntries
	}
	start := time.Now()
	m := &Meta{
		config: config, readers: make(chan *reader, lookupsAtOnce), budget: budget{tokens: lookupBurst},
		patience: lookupPatience, clock: func() time.Duration { return time.Since(start) },
	}
	own, err := parseAttributes(config.ResourceAttributes)
	if err != nil {
		return nil, fmt.Errorf("parse OTEL_RESOURCE_ATTRIBUTES: %w; write key=value,key=value with percent-encoded values", err)
	}
	if len(own) > maxAttributes {
		return nil, fmt.Errorf("parse OTEL_RESOURCE_ATTRIBUTES: more than %d attributes; leave some out", maxAttributes)
	}
	m.own = m.ownAttributes(own)
	mount, err := CgroupMount(config.Root)
	if err != nil {
		return nil, err
	}
	m.host = readHost(config.Root, config.HostName, &m.count)
	if m.cgroups, err = newCgroups(mount, &m.count); err != nil {
		return nil, err
	}
	if m.runtimes, err = newRuntimes(config.Root, &m.count); err != nil {
		return nil, err
	}
	if m.cache, err = lru.New[key, entry](config.Entries); err != nil {
		return nil, fmt.Errorf("make the resource cache: %w", err)
	}
	if m.services, err = lru.New[serviceKey, service](maxServices); err != nil {
		return nil, fmt.Errorf("make the service cache: %w", err)
	}
	for range lookupsAtOnce {
		m.readers <- newReader(config.Root, &m.count)
	}
	return m, nil
}

// Enrich sets the span's resource from its owner. Spans of one service instance and network namespace
// get the same pointer for as long as it is cached. It does not block for longer than 50 ms: an owner
// that cannot be read in time is described by its cgroup and name, and read again later.
func (m *Meta) Enrich(span *l7.Span) {
	span.Resource = m.resource(&span.Owner)
}

// Stats returns the counters.
func (m *Meta) Stats() Stats {
	return Stats{
		Entries:       m.cache.Len(),
		Misses:        m.count.misses.Load(),
		Evictions:     m.count.evictions.Load(),
		Gone:          m.count.gone.Load(),
		Denied:        m.count.denied.Load(),
		Deferred:      m.count.deferred.Load(),
		Late:          m.count.late.Load(),
		UnknownCgroup: m.count.unknownCgroup.Load(),
		Malformed:     m.count.malformed.Load(),
		Cut:           m.count.cut.Load(),
		Repaired:      m.count.repaired.Load(),
	}
}

func (m *Meta) resource(o *l7.Owner) *l7.Resource {
	k := keyOf(o)
	if e, ok := m.cached(k); ok {
		return e.resource
	}
	m.missing.Lock()
	defer m.missing.Unlock()
	if e, ok := m.cached(k); ok { // another caller was faster
		return e.resource
	}
	m.count.misses.Add(1)
	s, lasts := m.subject(*o)
	e := entry{resource: m.build(s)}
	if lasts > 0 {
		e.expires = m.clock() + lasts
	}
	if m.cache.Add(k, e) {
		m.count.evictions.Add(1)
	}
	return e.resource
}

func (m *Meta) cached(k key) (entry, bool) {
	e, ok := m.cache.Get(k)
	if ok && e.expires != 0 && m.clock() >= e.expires {
		return entry{}, false
	}
	return e, ok
}

// subject describes an owner, and says for how long that holds; 0 is for ever. The caller holds missing.
func (m *Meta) subject(o l7.Owner) (subject, time.Duration) {
	if !m.budget.take(m.clock()) {
		m.count.deferred.Add(1)
		return m.unread(o), provisionalFor
	}
	type answer struct {
		subject subject
		lasts   time.Duration
	}
	got, ok := within(m, func(r *reader) answer {
		s, lasts := m.look(r, o)
		return answer{s, lasts}
	})
	if !ok {
		return m.unread(o), provisionalFor
	}
	return got.subject, got.lasts
}

// within runs look with one of the readers and returns what it found, unless every reader hangs or this
// one takes too long. What comes late is thrown away, and the reader is free again when it comes.
func within[T any](m *Meta, look func(*reader) T) (found T, ok bool) {
	var r *reader
	select {
	case r = <-m.readers:
	default:
		m.count.late.Add(1)
		return found, false
	}
	done := make(chan T, 1)
	go func() {
		done <- look(r)
		m.readers <- r
	}()
	patience := time.NewTimer(m.patience)
	defer patience.Stop()
	select {
	case found = <-done:
		return found, true
	case <-patience.C:
		m.count.late.Add(1)
		return found, false
	}
}

// budget is a token bucket of look-ups.
type budget struct {
	tokens float64
	at     time.Duration
}

func (b *budget) take(now time.Duration) bool {
	b.tokens = min(b.tokens+(now-b.at).Seconds()*lookupsPerSecond, lookupBurst)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
