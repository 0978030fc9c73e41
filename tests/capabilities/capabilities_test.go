// Package capabilities shows, of each capability that the service keeps, the call of ambit's that fails without it, and that
// the daemon traces with those alone.
package capabilities

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// roleVariable names the call that this program is to try, with an argument.
const roleVariable = "AMBIT_TEST_CALL"

func TestMain(m *testing.M) {
	if name, argument, found := strings.Cut(os.Getenv(roleVariable), " "); found {
		if err := calls[name](argument); err != nil {
			fmt.Fprintln(os.Stderr, err)
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
				os.Exit(denied)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(stage.Main(m))
}

// denied is the exit code of a call for which a right was missing.
const denied = 77

// calls are what ambit does, each as it does it. The argument is a namespace's path, or a process.
var calls = map[string]func(string) error{
	// clsact qdiscs, on kernels without tcx, and filters.
	"qdisc": func(path string) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		q := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
		if err := netlink.QdiscAdd(q); err != nil {
			return err
		}
		return netlink.QdiscDel(q)
	},
	"setns": func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	},
	"map": func(string) error {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err == nil {
			err = m.Close()
		}
		return err
	},
	"iterator": func(string) error {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task_file", License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		})
		if err == nil {
			err = p.Close()
		}
		return err
	},
	"process": func(pid string) error {
		_, err := os.Readlink("/proc/" + pid + "/ns/net")
		return err
	},
	"all_nsid": func(string) error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
	},
	"handle": func(string) error {
		root, err := harness.CgroupRoot()
		if err != nil {
			return err
		}
		mount, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(mount)
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, root, 0)
		if err != nil {
			return err
		}
		fd, err := unix.OpenByHandleAt(mount, handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	},
}

// kept are the capabilities of the service, in setpriv's words.
func kept(t *testing.T) []string {
	t.Helper()
	unit, err := os.ReadFile("../../packaging/systemd/ambit.service")
	stage.Must(t, err)
	_, line, found := strings.Cut(string(unit), "\nCapabilityBoundingSet=")
	if !found {
		t.Fatal("the unit has no bounding set")
	}
	line, _, _ = strings.Cut(line, "\n")
	var list []string
	for _, name := range strings.Fields(line) {
		list = append(list, strings.ToLower(strings.TrimPrefix(name, "CAP_")))
	}
	return list
}

// bounded are setpriv's arguments for a process that has these capabilities and can get no others.
func bounded(list []string) []string {
	set := "-all"
	for _, name := range list {
		set += ",+" + name
	}
	return []string{"--bounding-set=" + set, "--inh-caps=-all", "--no-new-privs", "--"}
}

func without(list []string, names ...string) (rest []string) {
	for _, one := range list {
		gone := false
		for _, name := range names {
			gone = gone || one == name
		}
		if !gone {
			rest = append(rest, one)
		}
	}
	return rest
}

// Each capability has a call that succeeds with those that the service keeps and is denied without it. CAP_SYS_ADMIN stands in
// for CAP_BPF and CAP_PERFMON, which are looked at without it.
func TestEachCapabilityIsNeeded(t *testing.T) {
	lab := stage.NewLab(t)
	ns, err := lab.Namespace("rights")
	stage.Must(t, err)
	// A process of another user.
	other, err := ns.Start(harness.Program{Path: "sleep", Args: []string{"300"}, UID: 65534})
	stage.Must(t, err)
	own, err := os.Executable()
	stage.Must(t, err)
	seen := make(map[string]bool)
	for _, c := range []struct {
		capability, call, argument string
		standIn                    []string // those that would do in its place
	}{
		{"net_admin", "qdisc", "-", nil},
		{"sys_admin", "setns", ns.Path(), nil},
		{"bpf", "map", "-", []string{"sys_admin"}},
		{"perfmon", "iterator", "-", []string{"sys_admin"}},
		{"sys_ptrace", "process", fmt.Sprint(other.PID()), nil},
		{"net_broadcast", "all_nsid", "-", nil},
		{"dac_read_search", "handle", "-", nil},
	} {
		seen[c.capability] = true
		try := func(list []string) (int, string) {
			var said bytes.Buffer
			code := 0
			if err := ns.Do(func() error {
				p := exec.Command("setpriv", append(bounded(list), own)...)
				p.Env = append(os.Environ(), roleVariable+"="+c.call+" "+c.argument)
				p.Stderr = &said
				err := p.Run()
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					code = exit.ExitCode()
					return nil
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return code, said.String()
		}
		list := without(kept(t), c.standIn...)
		if code, said := try(list); code != 0 {
			t.Errorf("%s with %v: code %d, %s", c.call, list, code, said)
		}
		if code, said := try(without(list, c.capability)); code != denied {
			t.Errorf("%s without %s: code %d, want it denied: %s", c.call, c.capability, code, said)
		}
	}
	for _, name := range kept(t) {
		if !seen[name] {
			t.Errorf("no call shows what %s is for", name)
		}
	}
}

// The daemon traces with the service's capabilities and no others, and without the two that it can't do without it says so.
func TestTheServicesRightsAreEnough(t *testing.T) {
	lab := stage.NewLab(t)
	client, server := stage.Cable(t, lab, [2]netip.Prefix{netip.MustParsePrefix("10.7.0.1/24"), netip.MustParsePrefix("10.7.0.2/24")})
	host, err := lab.Host()
	stage.Must(t, err)
	run := func(list []string) (*harness.Process, string) {
		socket := filepath.Join(t.TempDir(), "s")
		p, err := host.Start(harness.Program{Path: "setpriv", Args: append(bounded(list), stage.Binary(), "run", "--socket", socket, "--admin", "off",
			"--live", "off", "--namespaces", client.Name()+","+server.Name())})
		stage.Must(t, err)
		return p, socket
	}
	p, socket := run(kept(t))
	stage.Wait(t, "ambit traces", func() error {
		out, err := host.Run(t.Context(), stage.Binary(), "status", "--socket", socket)
		if err == nil && !strings.Contains(out, "tracing") {
			err = fmt.Errorf("it is %s: %s", out, p.Log())
		}
		return err
	})
	stage.Must(t, p.Stop(10*time.Second))
	if log := p.Log(); strings.Contains(log, "level=ERROR") {
		t.Errorf("it says %s", log)
	}
	for _, name := range []string{"net_admin", "sys_admin"} {
		p, _ := run(without(kept(t), name))
		if err := p.Wait(); err == nil || !strings.Contains(p.Log(), "CAP_"+strings.ToUpper(name)) {
			t.Errorf("without %s: %v: %s", name, err, p.Log())
		}
	}
}
