package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func kernel() (map[string]string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("read the kernel's version: %w", err)
	}
	return map[string]string{"release": unix.ByteSliceToString(name.Release[:])}, nil
}

func mounts() (map[string]string, error) {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"tmpfs", "/run"},
		{"tmpfs", "/tmp"},
		{"cgroup2", "/sys/fs/cgroup"},
		{"bpf", "/sys/fs/bpf"},
		{"debugfs", "/sys/kernel/debug"},
		{"tracefs", "/sys/kernel/tracing"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.kind, err)
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s at %s: %w", m.kind, m.dir, err)
		}
	}
	return nil, nil
}

// modules loads /modules/*.ko in the order of their names.
func modules() (map[string]string, error) {
	files, err := os.ReadDir("/modules")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a guest may need none
		return nil, fmt.Errorf("list the modules: %w", err)
	}
	var loaded []string
	for _, file := range files {
		module, err := os.Open("/modules/" + file.Name())
		if err != nil {
			return nil, fmt.Errorf("load module %s: %w", file.Name(), err)
		}
		err = unix.FinitModule(int(module.Fd()), "", 0)
		module.Close()
		if err != nil {
			return nil, fmt.Errorf("load module %s: %w", file.Name(), err)
		}
		loaded = append(loaded, file.Name())
	}
	return map[string]string{"loaded": strings.Join(loaded, " ")}, nil
}

func loopback() (map[string]string, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("set lo up: %w", err)
	}
	return nil, nil
}
