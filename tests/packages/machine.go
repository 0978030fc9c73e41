// Package packages installs the packages that were built on a machine with a real systemd: a container of the host's own.
package packages

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machine is a container with systemd as its first process: the host's programs with a layer of its own above them, a network
// of its own, and no state of the host's.
type machine struct {
	t      *testing.T
	root   string
	nspawn *exec.Cmd
	log    *os.File
	leader int // systemd's PID, as the host has it
}

// haltSignal is SIGRTMIN+3, at which systemd powers off.
const haltSignal = unix.Signal(34 + 3)

// boot starts a machine, which ends with the test.
func boot(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: filepath.Join(t.TempDir(), "root")}
	layer := filepath.Join(t.TempDir(), "layer")
	for _, dir := range []string{"usr", "proc", "sys", "dev", "run", "tmp", "etc", "var/lib", "var/log", "root"} {
		must(t, os.MkdirAll(filepath.Join(m.root, dir), 0o755))
	}
	must(t, os.MkdirAll(layer, 0o755))
	// On a file system of its own, as one overlay can't be a layer of another.
	must(t, unix.Mount("tmpfs", layer, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(layer, unix.MNT_DETACH)) })
	upper, work := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	must(t, os.Mkdir(upper, 0o755))
	must(t, os.Mkdir(work, 0o755))
	usr := filepath.Join(m.root, "usr")
	must(t, unix.Mount("overlay", usr, "overlay", 0, fmt.Sprintf("lowerdir=/usr,upperdir=%s,workdir=%s", upper, work)))
	t.Cleanup(func() { must(t, unix.Unmount(usr, unix.MNT_DETACH)) })
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if _, err := os.Stat("/usr/" + dir); err == nil {
			must(t, os.Symlink("usr/"+dir, filepath.Join(m.root, dir)))
		}
	}
	// What dpkg knows of, and users; not the services that the host has enabled.
	for _, name := range []string{"passwd", "group", "shadow", "os-release", "ld.so.cache", "alternatives", "pam.d", "nsswitch.conf", "dpkg", "login.defs", "security"} {
		if _, err := os.Stat("/etc/" + name); err == nil {
			run(t, "cp", "-a", "/etc/"+name, filepath.Join(m.root, "etc"))
		}
	}
	run(t, "cp", "-a", "/var/lib/dpkg", filepath.Join(m.root, "var/lib"))
	must(t, os.RemoveAll(filepath.Join(m.root, "var/lib/dpkg/lock")))
	must(t, os.WriteFile(filepath.Join(m.root, "etc/machine-id"), nil, 0o444))
	must(t, os.WriteFile(filepath.Join(m.root, "etc/hostname"), []byte("ambit-test\n"), 0o644))

	var err error
	m.log, err = os.Create(filepath.Join(t.TempDir(), "console"))
	must(t, err)
	m.nspawn = exec.Command("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--directory="+m.root, "--private-network",
		"--capability=all", "--system-call-filter=bpf perf_event_open @privileged", "--boot", "systemd.unit=multi-user.target")
	m.nspawn.Stdout, m.nspawn.Stderr = m.log, m.log
	m.nspawn.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	must(t, m.nspawn.Start())
	ended := make(chan error, 1)
	go func() { ended <- m.nspawn.Wait() }()
	t.Cleanup(func() {
		if m.leader != 0 {
			_ = unix.Kill(m.leader, haltSignal)
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = m.nspawn.Process.Kill()
			<-ended
		}
		if t.Failed() {
			console, _ := os.ReadFile(m.log.Name())
			t.Logf("the machine's console:\n%s", console[max(0, len(console)-4096):])
		}
		m.log.Close()
	})
	m.await("systemd runs", time.Minute, func() error {
		if m.leader == 0 {
			children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", m.nspawn.Process.Pid, m.nspawn.Process.Pid))
			if err != nil {
				return err
			}
			for _, word := range strings.Fields(string(children)) {
				var pid int
				if _, err := fmt.Sscan(word, &pid); err != nil {
					return err
				}
				if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.TrimSpace(string(comm)) == "systemd" {
					m.leader = pid
				}
			}
			if m.leader == 0 {
				return errors.New("the container has no systemd yet")
			}
		}
		state, _ := m.try("systemctl", "is-system-running")
		if state = strings.TrimSpace(state); state != "running" && state != "degraded" {
			return fmt.Errorf("it is %s", state)
		}
		return nil
	})
	return m
}

// try runs a program in the machine.
func (m *machine) try(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "nsenter", append([]string{"--target", fmt.Sprint(m.leader), "--all", "--", "/usr/bin/env", "-i",
		"PATH=/usr/sbin:/usr/bin", "DEBIAN_FRONTEND=noninteractive", program}, args...)...)
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// do runs a program that must succeed.
func (m *machine) do(program string, args ...string) string {
	m.t.Helper()
	out, err := m.try(program, args...)
	if err != nil {
		journal, _ := m.try("journalctl", "--no-pager", "-n", "40", "-u", "ambit")
		m.t.Fatalf("%v\nits journal:\n%s", err, journal)
	}
	return out
}

// property is one of the service's.
func (m *machine) property(name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.do("systemctl", "show", "--value", "--property="+name, "ambit.service"))
}

// await calls f until it succeeds.
func (m *machine) await(what string, limit time.Duration, f func() error) {
	m.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			journal := ""
			if m.leader != 0 {
				journal, _ = m.try("journalctl", "--no-pager", "-n", "40", "-u", "ambit")
			}
			m.t.Fatalf("%s: not within %s: %v\n%s", what, limit, err, journal)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}
