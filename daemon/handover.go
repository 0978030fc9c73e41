package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ambit/admin"
	"ambit/handover"

	"github.com/prometheus/client_golang/prometheus"
)

// legacy is what an earlier daemon left, and what this one keeps for the next.
//
//	systemd's store: every end of the process leaves it; systemd lets go of it when the service is stopped
//	pins:            a daemon that is asked to hands over; one that is ended takes all of it down
type legacy struct {
	store *handover.Store // nil: nothing is kept
	pins  string          // directory, "" where systemd keeps it
	// before is what became of exchange sides before this process.
	exported, lost uint64
	// taken and anew are hooks at the start.
	taken, anew int
	continued   bool // no packet passed unseen between the two
	over        bool // handed over to a daemon that lives
	alone       chan struct{}
}

const (
	// handOverWait is how long a daemon that was asked to hand over may take to free the directory of pins.
	handOverWait = 10 * time.Second
	// handOverGrace is how long the next daemon has to take the directory, before it is looked after.
	handOverGrace = handOverWait
)

// openStore finds what an earlier daemon left. One that lives, and works with the same pins, is asked to hand over.
func (d *Daemon) openStore(ctx context.Context) (err error) {
	l := &d.legacy
	l.alone = make(chan struct{})
	if l.pins = d.cfg.Handover.Pins; l.pins == "" {
		l.store, err = handover.Systemd()
		return err
	}
	l.store, err = handover.Pins(l.pins)
	if errors.Is(err, handover.ErrHeld) {
		if err := d.askToHandOver(ctx); err != nil {
			return fmt.Errorf("another ambit works with the pins in %s, and does not hand over: stop it, or set handover.pins to another directory: %w", l.pins, err)
		}
		for deadline := time.Now().Add(handOverWait); ; time.Sleep(50 * time.Millisecond) {
			if l.store, err = handover.Pins(l.pins); !errors.Is(err, handover.ErrHeld) || time.Now().After(deadline) {
				break
			}
		}
	}
	if errors.Is(err, handover.ErrHeld) {
		return err
	}
	if err != nil {
		d.log.Warn("nothing is kept for the next daemon: a restart will leave a gap", "error", err)
	}
	return nil
}

func (d *Daemon) askToHandOver(ctx context.Context) error {
	d.log.Info("asking the daemon that works here to hand over", "socket", d.cfg.Admin.Socket)
	client, err := admin.Dial(d.cfg.Admin.Socket)
	if err != nil {
		return err
	}
	_, err = client.HandOver(ctx)
	return err
}

// leaves tells whether Close is to leave what is kept to another daemon.
func (d *Daemon) leaves() bool {
	l := &d.legacy
	switch {
	case l.store == nil:
		return false
	case d.State() == admin.Starting:
		// What was taken over waits for the next try.
		inherited := d.kernel == nil
		if !inherited {
			inherited, _ = d.kernel.Inherited()
		}
		return inherited
	}
	return l.pins == "" || l.over
}

// takeOver says what was taken over, once everything is attached.
func (d *Daemon) takeOver() error {
	l := &d.legacy
	inherited, refused := d.kernel.Inherited()
	// What is for namespaces and interfaces that are not tapped any more.
	left := l.store.Left()
	if err := l.store.Discard(); err != nil {
		return err
	}
	if err := d.kernel.Retain(d.spaces.has); err != nil {
		return err
	}
	if err := l.store.Trouble(); err != nil {
		d.log.Warn("not everything is kept for the next daemon: a restart will leave a gap", "error", err)
	}
	if refused != "" {
		d.log.Warn("what an earlier daemon left is not taken over: connections that are open are met anew", "reason", refused)
	}
	if !inherited {
		return nil
	}
	l.taken, l.anew = d.taps.Taken()
	l.continued = d.kernel.Continued() && (l.taken > 0 || l.anew == 0)
	account := d.kernel.Account()
	l.exported, l.lost = account.Exported, account.Lost
	// Every daemon settles at its end. One that was killed had these.
	if unsettled := account.Taken - account.Exported - account.Lost; account.Taken > account.Exported+account.Lost {
		l.lost += unsettled
	}
	d.settle()
	d.log.Info("taken over from an earlier daemon", "links", l.taken, "attached_anew", l.anew, "let_go", left, "gap", !l.continued)
	return nil
}

// settle leaves what became of exchange sides to the next daemon.
func (d *Daemon) settle() {
	e := d.exporterStatus()
	lost := d.legacy.lost
	for _, n := range e.Dropped {
		lost += n
	}
	d.kernel.Settle(d.legacy.exported+e.Exported, lost)
}

func (d *Daemon) handoverStatus() admin.Handover {
	h := admin.Handover{Kept: d.legacy.store.Kept(), GapSeconds: d.gap.length.Seconds()}
	h.TakenOver, h.Refused = d.kernel.Inherited()
	if err := d.legacy.store.Trouble(); err != nil {
		h.Trouble = err.Error()
	}
	return h
}

// HandOver has this daemon leave everything to another one, which asks for it, and wait for its end.
func (d *Daemon) HandOver(ctx context.Context) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := d.ready(); err != nil {
		return err
	}
	if d.legacy.pins == "" || d.legacy.store == nil {
		return admin.Unavailable("ambit keeps nothing that it could hand over: handover.pins names no directory of a BPF file system")
	}
	d.log.Info("handing over to another daemon")
	d.legacy.over = true
	flush, cancel := context.WithTimeout(ctx, d.cfg.Export.FlushTimeout)
	defer cancel()
	err := d.windDown(flush)
	d.state.Store(admin.HandedOver)
	err = errors.Join(err, d.server.Retire(), d.legacy.store.Close())
	if err != nil {
		d.log.Error("handing over left something behind", "error", err)
	}
	go d.lookAfter(d.legacy.pins)
	return nil
}

// lookAfter finds out whether the next daemon has gone: then nobody reads what the kernel side goes on to say.
func (d *Daemon) lookAfter(pins string) {
	time.Sleep(handOverGrace)
	for ; ; time.Sleep(time.Second) {
		store, err := handover.Pins(pins)
		if errors.Is(err, handover.ErrHeld) {
			continue
		}
		if err == nil {
			store.Close()
		}
		close(d.legacy.alone)
		return
	}
}

var (
	takenOver = prometheus.NewDesc("ambit_restart_taken_over",
		"1 where this daemon took over the maps of an earlier one, 0 where it began anew.", nil, nil)
	handoverKept = prometheus.NewDesc("ambit_handover_kept", "Maps and links that are kept for the next daemon.", nil, nil)
)

// legacyCollector makes metrics of it.
type legacyCollector struct{ d *Daemon }

func (legacyCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- takenOver
	descs <- handoverKept
}

func (c legacyCollector) Collect(out chan<- prometheus.Metric) {
	if c.d.ready() != nil {
		return
	}
	value := 0.
	if inherited, _ := c.d.kernel.Inherited(); inherited {
		value = 1
	}
	out <- prometheus.MustNewConstMetric(takenOver, prometheus.GaugeValue, value)
	out <- prometheus.MustNewConstMetric(handoverKept, prometheus.GaugeValue, float64(c.d.legacy.store.Kept()))
}
