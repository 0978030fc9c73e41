package daemon

import (
	"context"
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

const (
	// statusEvery is how often systemd is told how the daemon fares.
	statusEvery = 10 * time.Second
	// tickLate is by how much control may be late before the daemon is taken for stuck.
	tickLate = 10 * time.Second
)

// notify tells systemd something; without one nobody is told.
func (d *Daemon) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("systemd is not told how ambit fares", "state", state, "error", err)
	}
}

// serve keeps systemd informed until ctx ends: that the daemon is ready, how it fares, and, where the unit has a watchdog,
// that it is healthy. A daemon that is not lets the watchdog run out, which kills and restarts it.
func (d *Daemon) serve(ctx context.Context) {
	d.notify(sd.SdNotifyReady)
	every := statusEvery
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("the watchdog is not fed", "error", err)
	}
	if watchdog > 0 {
		every = min(every, watchdog/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	sick := false
	for {
		err := d.healthy(time.Now())
		if err == nil {
			d.notify("STATUS=" + d.statusLine())
			if watchdog > 0 {
				d.notify(sd.SdNotifyWatchdog)
			}
		} else if !sick {
			d.log.Error("ambit is not healthy: the watchdog is not fed until it is", "error", err)
			d.notify("STATUS=not healthy: " + err.Error())
		}
		sick = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// healthy tells what does not work any more that only a restart mends.
func (d *Daemon) healthy(now time.Time) error {
	if last := d.ticked.Load(); last != 0 {
		if late := now.Sub(time.Unix(0, last)); late > tickLate {
			return fmt.Errorf("the goroutine that moves rates and ends idle exchanges has stood still for %s", late.Round(time.Second))
		}
	}
	if !d.pump.running.Load() {
		return fmt.Errorf("the ring buffer is not read any more")
	}
	if _, err := d.kernel.Rates(); err != nil {
		return fmt.Errorf("the kernel side does not answer: %w", err)
	}
	return nil
}

// statusLine is what "systemctl status" shows.
func (d *Daemon) statusLine() string {
	c, err := d.kernel.Counters()
	if err != nil {
		return string(d.State())
	}
	return fmt.Sprintf("%s %d namespaces; %d exchange sides seen, %d kept, spans to %s", d.State(), d.spaces.count(),
		c.Exchanges.Seen, c.Exchanges.Submitted, d.out.endpoint())
}
