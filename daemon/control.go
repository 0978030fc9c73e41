package daemon

import (
	"context"
	"time"
)

// control does what is due every second: it ends exchanges past the idle limit, and gives new services their rules.
func (d *Daemon) control(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	failing, unruled := false, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := d.kernel.Sweep()
		if err != nil && !failing {
			d.log.Warn("idle exchanges are not ended for now", "error", err)
		}
		failing = err != nil
		err = d.rules.tick(time.Now())
		if err != nil && !unruled {
			d.log.Warn("new services have the rules that name none for now", "error", err)
		}
		unruled = err != nil
	}
}
