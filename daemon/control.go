package daemon

import (
	"context"
	"time"
)

// stepLeast is how soon one step may follow another, where a signal of load is urgent.
const stepLeast = 250 * time.Millisecond

// control does what is due every second: it ends exchanges past the idle limit, adds up what the kernel counted, tells what
// is slow of a route, gives new services their rules, and moves rates.
func (d *Daemon) control(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	load := newPressure("/proc", d.meta.CgroupDir, d.reader, d.out.filled)
	defer load.close()
	urgent := d.alarm(ctx)
	slow := slowRoutes{set: d.series.SetSlow}
	sweeping := troubled{message: "idle exchanges are not ended for now"}
	reading := troubled{message: "the counters of routes are not read for now"}
	ruling := troubled{message: "new services have the rules that name none for now"}
	steering := troubled{message: "rates are not moved for now"}
	living := troubled{message: "a restart will tell too long a gap"}
	saving := troubled{message: "rates would not survive a restart"}
	step := func() (read bool) {
		err := d.series.Read()
		if err == nil {
			steering.tell(d, d.steering.tick(time.Now(), d.series.Snapshot(), d.rules.steered(), d.serviceName, load.read))
		}
		reading.tell(d, err)
		return err == nil
	}
	var stepped time.Time
	for {
		select {
		case <-ctx.Done():
			saving.tell(d, d.steering.save(time.Now(), true))
			return
		case <-urgent:
			if time.Since(stepped) >= stepLeast {
				stepped = time.Now()
				step()
			}
			continue
		case <-tick.C:
		}
		stepped = time.Now()
		d.ticked.Store(stepped.UnixNano())
		sweeping.tell(d, d.kernel.Sweep())
		if step() {
			d.routes.Forget(d.series.Snapshot())
			d.top.forget(time.Now())
			slow.tick(d.series.Snapshot(), d.rules.slowP99())
		}
		ruling.tell(d, d.rules.tick(time.Now()))
		saving.tell(d, d.steering.save(time.Now(), false))
		living.tell(d, d.gap.alive(stepped))
		d.settle()
	}
}

// alarm has the node's pressure interrupt control, until ctx ends. Without it control finds out at its next tick.
func (d *Daemon) alarm(ctx context.Context) <-chan struct{} {
	a, err := newAlarm("/proc")
	if err != nil {
		d.log.Warn("pressure of the node is seen a second later", "error", err)
		return nil
	}
	d.running.Go(a.run)
	context.AfterFunc(ctx, a.close)
	return a.C
}

// troubled is something that is tried again and again, and whose trouble is logged once.
type troubled struct {
	message string
	failing bool
}

func (t *troubled) tell(d *Daemon, err error) {
	if err != nil && !t.failing {
		d.log.Warn(t.message, "error", err)
	}
	t.failing = err != nil
}
