package tc

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ambit/handover"
)

// DefaultLocks is where daemons lock their namespaces.
const DefaultLocks = "/run/ambit/locks"

// Config is what Taps need to know.
type Config struct {
	// Select lists the namespaces wanted: "all", "ambient" (those that istio-cni has redirected to ztunnel),
	// "host" (the daemon's own), the name of a file under /run/netns or /run/docker/netns, or an absolute
	// path of a namespace file. One that does not exist is tapped when it appears. Empty means all.
	Select []string
	// Exclude lists names and paths, in the same form; it wins over Select.
	Exclude []string
	// Locks is the directory of the locks, shared by all daemons of the host. Empty means DefaultLocks.
	Locks string
	// ForceClsact has filters used even where the kernel has tcx.
	ForceClsact bool
	// Load makes the programs for a namespace before anything is attached there. They belong to Taps, which
	// close them. Its error keeps the namespace from being tapped: it is returned by Start, and logged and
	// followed by another try later on. It must not call Taps.
	Load func(NetNS) (Programs, error)
	// Released is told that nothing is attached in a namespace any more and its programs are closed; it
	// follows each successful Load. It may be nil, and must not call Taps.
	Released func(NetNS)
	// Keep has the links that an earlier daemon left, and keeps those that are made; nil does neither.
	Keep *handover.Store
	Log  *slog.Logger
}

// Attachment is one program attached to one interface.
type Attachment struct {
	NetNS     NetNS
	Interface string
	Ifindex   int
	// Hook is "egress" or "ingress".
	Hook string
	// Method is "tcx" or "clsact".
	Method string
}

// Skipped is a selected namespace, or an interface of a tapped one, that is not tapped for now.
type Skipped struct {
	NetNS NetNS
	// Interface is empty when it is the whole namespace.
	Interface string
	// PID is the daemon that taps the namespace instead; 0 if that is not the reason, or not known.
	PID int
	// Err is the reason.
	Err error
}

// Unmatched is a selector that no network namespace of the host meets for now.
type Unmatched struct {
	// Selector is a name, a path, or "ambient", as Config.Select has it.
	Selector string
	// Reason is what is missing.
	Reason string
}

// Taps attach programs in the selected network namespaces of the host and keep that up to date.
//
//	New ──> Start ──> running <──Resume── paused
//	                     │  └────Pause──────^ │
//	                     └──────> Close <─────┘
//
// Their memory is one entry for each process and each namespace of the host, and at most maxTapped of the
// namespaces are tapped.
type Taps struct {
	config    Config
	selection selection
	log       *slog.Logger
	home      *home
	finder    *finder
	watch     *watcher
	locks     *locks
	method    method
	done      chan struct{} // closed when the loop has ended; nil before it begins
	failure   string        // the loop's last, so that it is logged once

	stopping atomic.Bool // Close was called

	mu      sync.Mutex // of all below, held during a pass
	spaces  map[netnsKey]*space
	paused  bool
	closed  bool
	leaving bool          // closed for the next daemon
	changed bool          // something that is shown
	fulls   int           // passes that scanned the processes
	cost    time.Duration // of the last of those scans

	shown       sync.Mutex // of what is shown, so that nobody waits for a pass
	attachments []Attachment
	skipped     []Skipped
	unmatched   []Unmatched
}

// New checks the configuration and the process's privileges (a *PrivilegeError). Nothing is attached
// before Start. A Taps that is not wanted any more has to be closed, started or not.
func New(config Config) (*Taps, error) {
	if config.Load == nil || config.Log == nil {
		return nil, errors.New("tap network namespaces: Load and Log have to be set")
	}
	t := &Taps{config: config, log: config.Log, spaces: make(map[netnsKey]*space)}
	t.method.clsact = config.ForceClsact
	var err error
	if t.selection, err = parseSelection(config.Select, config.Exclude); err != nil {
		return nil, err
	}
	if err := CheckPrivileges(); err != nil {
		return nil, err
	}
	if t.selection.ambient {
		if err := checkAmbient(); err != nil {
			return nil, fmt.Errorf("select ambient network namespaces: %w", err)
		}
	}
	if t.locks, err = openLocks(cmp.Or(config.Locks, DefaultLocks)); err != nil {
		return nil, err
	}
	if t.home, err = openHome(); err != nil {
		return nil, err
	}
	t.finder = &finder{
		home:  t.home,
		dirs:  namedDirs,
		paths: t.selection.everyPath(),
		log:   t.log,
		procs: make(map[int]process),
	}
	if t.watch, err = openWatcher(); err != nil {
		t.home.Close()
		return nil, err
	}
	if err := t.watch.listen(t.home); err != nil {
		t.log.Warn("no link events, looking into every network namespace instead", "error", err)
	}
	return t, nil
}

// Start finds the namespaces and attaches in all that are selected, and then follows them until Close. An
// error (a *OverlapError where another daemon taps one of them) leaves nothing attached.
func (t *Taps) Start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.done != nil {
		return errors.New("tap network namespaces: Start is called once")
	}
	t.watch.watchDirs(namedDirs)
	if err := t.pass(true, true); err != nil {
		return errors.Join(fmt.Errorf("tap network namespaces: %w", err), t.releaseAll())
	}
	t.warnUnmatched()
	t.done = make(chan struct{})
	go t.loop(t.done)
	return nil
}

const (
	// scanEvery is the time from one scan of the processes to the next. It is stretched, up to slowest, so
	// that scans take no more than one part in scanShare of a processor.
	scanEvery = 450 * time.Millisecond
	slowest   = 900 * time.Millisecond
	scanShare = 100
	// settle is the time given to events, which come in bursts, before they are looked into.
	settle = 20 * time.Millisecond
)

func (t *Taps) loop(done chan<- struct{}) {
	defer close(done)
	next := time.Now()
	for {
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return
		}
		now := time.Now()
		full := !now.Before(next)
		err := t.pass(full, false)
		if errors.Is(err, errStopping) {
			err = nil
		}
		if full {
			next = now.Add(min(max(scanEvery, t.cost*scanShare), slowest))
		}
		limit := time.Until(next) - settle
		t.mu.Unlock()
		if waitErr := errors.Join(t.watch.wait(settle, false), t.watch.wait(limit, true)); waitErr != nil {
			err = errors.Join(err, waitErr)
			time.Sleep(scanEvery)
		}
		t.tell(err)
	}
}

// tell logs what went wrong in the loop, once for as long as it stays the same.
func (t *Taps) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != t.failure {
		t.log.Warn("network namespaces are not followed for now", "error", err)
	}
	t.failure = text
}

// Pause detaches everything; namespaces stay locked, and are still followed. It returns when nothing is
// attached any more, or with the reason why something is, which Attachments then list. It may be called
// again, and then tries again.
func (t *Taps) Pause() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.turn(true); err != nil {
		return err
	}
	// No pass: what it may run into, such as a /proc that cannot be read, must not keep anything attached.
	t.look(time.Now(), false)
	t.show()
	var errs []error
	for _, s := range t.spaces {
		if s.tap != nil && len(s.tap.ifaces) > 0 && s.err != nil {
			errs = append(errs, fmt.Errorf("detach in network namespace %s: %w", s.Name, s.err))
		}
	}
	return errors.Join(errs...)
}

// Resume attaches again, and returns when that is done.
func (t *Taps) Resume() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.turn(false); err != nil {
		return err
	}
	return t.pass(true, false)
}

// turn has every namespace looked at, also where a look has just failed.
func (t *Taps) turn(paused bool) error {
	if t.closed || t.done == nil {
		return errors.New("tap network namespaces: not started")
	}
	t.paused = paused
	for _, s := range t.spaces {
		s.dirty, s.retry = true, time.Time{}
	}
	return nil
}

// Leave is Close for a daemon that is to be followed by another one at once: links that are kept stay attached. Filters of
// kernels without tcx, which would stay if nobody followed, are detached.
func (t *Taps) Leave() error { return t.finish(true) }

// Close detaches everything and frees the locks. It may be called again.
func (t *Taps) Close() error { return t.finish(false) }

func (t *Taps) finish(leave bool) error {
	t.stopping.Store(true)
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed, t.leaving = true, leave
	err := t.watch.stop()
	t.mu.Unlock()
	if t.done != nil {
		<-t.done
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// Ways into the namespaces may have changed since the last scan.
	if found, scanErr := t.finder.scan(true, true); scanErr == nil {
		t.sight(found, false)
	}
	err = errors.Join(err, t.releaseAll())
	t.watch.Close()
	return errors.Join(err, t.home.Close())
}

// Taken tells how many links of an earlier daemon are in use, and how many hooks were attached anew.
func (t *Taps) Taken() (taken, anew int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.method.taken, t.method.anew
}

// Attachments lists what is attached, by namespace, interface and hook.
func (t *Taps) Attachments() []Attachment {
	t.shown.Lock()
	defer t.shown.Unlock()
	return slices.Clone(t.attachments)
}

// Skipped lists what is selected and cannot be tapped for now.
func (t *Taps) Skipped() []Skipped {
	t.shown.Lock()
	defer t.shown.Unlock()
	return slices.Clone(t.skipped)
}

// Unmatched lists the selectors that no network namespace meets for now.
func (t *Taps) Unmatched() []Unmatched {
	t.shown.Lock()
	defer t.shown.Unlock()
	return slices.Clone(t.unmatched)
}
