package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"ambit/admin"
)

// hooks is everything that ambit attaches, which the kill switch takes off and puts back.
type hooks struct {
	cgroup  string // where the socket programs are attached
	sockets interface {
		Attach(root string) error
		Detach() error
		Open() error
		Shut() error
		Abandon() error
	}
	taps interface {
		Pause() error
		Resume() error
	}
	// listening tells whether the socket programs are attached.
	listening atomic.Bool
}

// on attaches: sockets first, so that the taps know whose they are. What was followed before is forgotten, as nobody
// saw how it went on: also what a packet left that was on its way when the pause began.
func (h *hooks) on() error {
	if err := h.sockets.Abandon(); err != nil {
		return err
	}
	if err := h.sockets.Attach(h.cgroup); err != nil {
		return err
	}
	h.listening.Store(true)
	if err := h.taps.Resume(); err != nil {
		return err
	}
	return h.sockets.Open()
}

// off stops all taps at once, and detaches as much as it can.
func (h *hooks) off() error {
	err := errors.Join(h.sockets.Shut(), h.taps.Pause())
	detached := h.sockets.Detach()
	h.listening.Store(detached != nil)
	return errors.Join(err, detached)
}

// Pause detaches everything, also what an earlier one could not. The daemon is paused once nothing is attached.
func (d *Daemon) Pause(context.Context) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := d.ready(); err != nil {
		return err
	}
	if err := d.detach(); err != nil {
		return fmt.Errorf("something is still attached, \"ambit status\" lists it; pause again: %w", err)
	}
	return nil
}

// detach is Pause for one that has d.change.
func (d *Daemon) detach() error {
	err := d.hooks.off()
	d.torn = err != nil
	if err != nil {
		d.state.Store(admin.Tracing)
		return err
	}
	if d.State() == admin.Paused {
		return nil
	}
	d.state.Store(admin.Paused)
	d.log.Info("paused")
	// Now, before the exchanges under way pass for idle. Resume does it again.
	if err := d.hooks.sockets.Abandon(); err != nil {
		d.log.Warn("connections that end while paused keep their places until ambit resumes", "error", err)
	}
	return nil
}

// Resume attaches again, all of it or nothing.
func (d *Daemon) Resume(context.Context) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := d.ready(); err != nil {
		return err
	}
	if d.State() == admin.Tracing && !d.torn {
		return nil
	}
	if err := d.hooks.on(); err != nil {
		return errors.Join(err, d.detach())
	}
	d.torn = false
	d.state.Store(admin.Tracing)
	d.log.Info("resumed")
	return nil
}
