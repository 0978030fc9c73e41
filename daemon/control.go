package daemon

import (
	"context"
	"time"
)

// control does what is due every second: it ends exchanges past the idle limit, adds up what the kernel counted, tells what
// is slow of a route, and gives new services their rules.
func (d *Daemon) control(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	slow := slowRoutes{set: d.series.SetSlow}
	sweeping := troubled{"idle exchanges are not ended for now", false}
	reading := troubled{"the counters of routes are not read for now", false}
	ruling := troubled{"new services have the rules that name none for now", false}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		sweeping.tell(d, d.kernel.Sweep())
		err := d.series.Read()
		if err == nil {
			d.routes.Forget(d.series.Snapshot())
			d.top.forget(time.Now())
			slow.tick(d.series.Snapshot(), d.rules.slowP99())
		}
		reading.tell(d, err)
		ruling.tell(d, d.rules.tick(time.Now()))
	}
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
