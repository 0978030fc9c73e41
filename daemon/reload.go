package daemon

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"ambit/admin"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// lookEvery is how often the configuration file is looked at. What it says is taken once it has been the same for two
// looks, so that a file that is being written is not read: half a second at the most.
const lookEvery = 200 * time.Millisecond

// From says where a configuration was read, for a reload and for people.
type From struct {
	Sources Sources
	Origins Origins
}

// fileMark tells one state of a file from another, also where its name leads to another file now, by a rename or by a
// link somewhere in its path.
type fileMark struct {
	exists              bool
	device, inode       uint64
	size                int64
	modified, statusSet syscall.Timespec
}

func markOf(path string) fileMark {
	info, err := os.Stat(path)
	if err != nil {
		return fileMark{}
	}
	m := fileMark{exists: true, size: info.Size()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		m.device, m.inode, m.modified, m.statusSet = uint64(s.Dev), s.Ino, s.Mtim, s.Ctim
	}
	return m
}

// reloader reads the configuration anew when it is told to: by SIGHUP, by a change of its file, or by ambit reload.
type reloader struct {
	from   From
	path   string   // of the file, "" for none
	mark   fileMark // of the file when it was read first
	hangup chan os.Signal
	mu     sync.Mutex // one at a time
}

// listen takes SIGHUP, which would end the process, and changes of the file from now on.
func (r *reloader) listen() {
	if r.path = r.from.Sources.path(environment(r.from.Sources.Env)); r.path != "" {
		r.mark = markOf(r.path)
	}
	r.hangup = make(chan os.Signal, 1)
	signal.Notify(r.hangup, syscall.SIGHUP)
}

func (r *reloader) close() {
	if r.hangup != nil {
		signal.Stop(r.hangup)
	}
}

// fileWatch tells when a file has changed, and has come to rest.
type fileWatch struct{ taken, last fileMark }

// changed is asked with each look. It is true once for each change.
func (w *fileWatch) changed(now fileMark) bool {
	settled := now != w.taken && now == w.last
	if settled {
		w.taken = now
	}
	w.last = now
	return settled
}

// watch reloads until ctx ends.
func (d *Daemon) watch(ctx context.Context) {
	path, file := d.reloader.path, fileWatch{d.reloader.mark, d.reloader.mark}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	if path == "" {
		tick.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.reloader.hangup:
			now := markOf(path)
			file = fileWatch{now, now}
			d.reload("SIGHUP")
		case <-tick.C:
			if file.changed(markOf(path)) {
				d.reload("a change of " + path)
			}
		}
	}
}

// reload reads the configuration and puts its rules, rates and budgets in force. A configuration that is wrong changes
// nothing, and is logged with its place.
func (d *Daemon) reload(why string) error {
	d.reloader.mu.Lock()
	defer d.reloader.mu.Unlock()
	d.notify(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
	defer d.notify(sd.SdNotifyReady)
	cfg, origins, err := Load(d.reloader.from.Sources)
	if err == nil {
		err = d.rules.load(&cfg, origins)
	}
	if err != nil {
		d.rules.refuse(err)
		if errors.Is(err, fs.ErrNotExist) {
			d.log.Error("the configuration file is gone: the rules in force stay", "asked by", why, "error", err)
		} else {
			d.log.Error("the configuration is wrong: the rules in force stay", "asked by", why, "error", err)
		}
		return err
	}
	if cfg.SampleRate != d.rates.base() {
		d.rates.setBase(cfg.SampleRate, "configuration")
	}
	status := d.rules.status()
	d.log.Info("configuration read", "asked by", why, "rules", status.Count, "generation", status.Generation)
	if keys := waiting(&d.cfg, &cfg); len(keys) > 0 {
		d.log.Warn("these settings have changed and need a restart", "keys", strings.Join(keys, ", "))
	}
	return nil
}

// reloaded tells the settings that a reload puts in force.
func reloaded(key string) bool {
	return key == keySampleRate || strings.HasPrefix(key, "sampling.") && key != keyForcedFrom && key != keyState && !strings.HasPrefix(key, keyRemote)
}

// waiting lists the settings that differ and that a reload does not change.
func waiting(running, read *Config) (keys []string) {
	for _, s := range table {
		if !reloaded(s.Key) && !slices.Equal(s.get(running), s.get(read)) {
			keys = append(keys, s.Key)
		}
	}
	return keys
}

// Rules tells the rules in force.
func (d *Daemon) Rules() (admin.RuleSet, error) {
	if err := d.ready(); err != nil {
		return admin.RuleSet{}, err
	}
	return d.rules.set()
}

// Reload reads the configuration anew.
func (d *Daemon) Reload(context.Context) (admin.RuleSet, error) {
	if err := d.ready(); err != nil {
		return admin.RuleSet{}, err
	}
	if err := d.reload("ambit reload"); err != nil {
		return admin.RuleSet{}, &admin.Error{Status: http.StatusConflict, Message: err.Error() + " (the rules in force stay)"}
	}
	return d.rules.set()
}
