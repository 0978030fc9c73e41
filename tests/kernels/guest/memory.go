package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"ambit/admin"
)

// roles are what this program does as another process than the first.
var roles = map[string]func([]string) error{"serve": serve, "hog": hog}

// serve is the role of a server on a port of loopback.
func serve(args []string) error {
	return http.ListenAndServe("127.0.0.1:"+args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "ok")
	}))
}

// hog is the role of a process that wants so many MiB, and looks at all of them again and again.
func hog(args []string) error {
	mib, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var held [][]byte
	for range mib {
		held = append(held, make([]byte, 1<<20))
		for _, page := range held {
			for at := 0; at < len(page); at += 4096 {
				page[at]++
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	select {}
}

const groups = "/sys/fs/cgroup"

// Cgroups of the two servers, named as systemd does, so that services are named after them.
const (
	ours   = "ours.service"
	theirs = "theirs.service"
)

// startIn starts a role in a cgroup.
func startIn(group string, role ...string) (*exec.Cmd, error) {
	c := exec.Command("/init", role...)
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), "OTEL_SERVICE_NAME="+group)
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start %v: %w", role, err)
	}
	return c, set(group, "cgroup.procs", strconv.Itoa(c.Process.Pid))
}

func set(group, file, value string) error {
	if err := os.WriteFile(filepath.Join(groups, group, file), []byte(value), 0o644); err != nil {
		return fmt.Errorf("write %q to %s of cgroup %q: %w", value, file, group, err)
	}
	return nil
}

const memoryRate = 0.5

// memoryPressure has a hog press the memory of one server's cgroup. That workload's rate falls, the neighbour's does not, and
// when the hog is gone the rate comes back.
func memoryPressure() (detail map[string]string, err error) {
	if err := set("", "cgroup.subtree_control", "+memory"); err != nil {
		return nil, err
	}
	for _, group := range []string{ours, theirs} {
		if err := os.Mkdir(filepath.Join(groups, group), 0o755); err != nil {
			return nil, err
		}
	}
	// Above the soft limit the kernel lets the group wait; what it wants is more than that, and less than the hard one.
	if err := errors.Join(set(ours, "memory.high", "64M"), set(ours, "memory.max", "160M")); err != nil {
		return nil, err
	}
	for port, group := range map[string]string{"8080": ours, "8081": theirs} {
		if _, err := startIn(group, "serve", port); err != nil {
			return nil, err
		}
	}
	d, err := startDaemon("--control", "on", "--sample-rate", fmt.Sprint(memoryRate), "--anomalies", "off",
		"--load-marks", "node_cpu=1:1,cpu=1:1,self=1:1") // one emulated processor is always loaded
	if err != nil {
		return nil, err
	}
	if err := d.tracing(); err != nil {
		return nil, err
	}
	for _, port := range []string{"8080", "8081"} {
		go func() {
			for range time.Tick(100 * time.Millisecond) {
				if answer, err := http.Get("http://127.0.0.1:" + port + "/work"); err == nil {
					answer.Body.Close()
				}
			}
		}()
	}
	detail = make(map[string]string)
	_, err = os.Stat("/proc/pressure/memory")
	detail["psi"] = fmt.Sprint(err == nil)
	w := &watch{daemon: d}
	whole := func() error { return w.holds(func(rate float64) bool { return rate == memoryRate }) }
	if err := d.eventually(settleLimit, whole); err != nil {
		return detail, fmt.Errorf("before the hog: %w", err)
	}
	hog, err := startIn(ours, "hog", "90")
	if err != nil {
		return detail, err
	}
	begun := time.Now()
	if err := d.eventually(time.Minute, func() error { return w.holds(func(rate float64) bool { return rate <= memoryRate/2 }) }); err != nil {
		return detail, fmt.Errorf("under the hog: %w", err)
	}
	detail["lowered_after"] = time.Since(begun).Round(100 * time.Millisecond).String()
	if err := errors.Join(hog.Process.Kill(), set(ours, "memory.high", "max")); err != nil {
		return detail, err
	}
	_ = hog.Wait() // it was killed
	begun = time.Now()
	if err := d.eventually(2*time.Minute, whole); err != nil {
		return detail, fmt.Errorf("behind the hog: %w", err)
	}
	detail["back_after"] = time.Since(begun).Round(100 * time.Millisecond).String()
	return detail, errors.Join(w.wrong, d.stop())
}

// watch is what was ever seen of the neighbour's rate, and of the node's load, that should not be.
type watch struct {
	*daemon
	wrong error
}

// holds demands that our rate is what it should be. The neighbour's never changes.
func (w *watch) holds(right func(float64) bool) error {
	var r admin.Rates
	if err := ask(&r, "rates", "--limit", "50"); err != nil {
		return err
	}
	found := map[string]float64{}
	for _, route := range r.Routes {
		if route.Kind == "SERVER" && route.Rate != nil {
			found[route.Service] = *route.Rate
		}
	}
	if r.Control == nil {
		return errors.New("no rates are moved yet")
	}
	if r.Control.Load.Factor != 1 {
		w.wrong = fmt.Errorf("the node counts as loaded: %+v", r.Control)
	}
	if rate, ok := found[theirs]; ok && rate != memoryRate {
		w.wrong = fmt.Errorf("the neighbour's rate is %v", rate)
	}
	if rate, ok := found[ours]; len(found) < 2 || !ok || !right(rate) {
		return fmt.Errorf("the rates are %v", found)
	}
	return w.wrong
}
