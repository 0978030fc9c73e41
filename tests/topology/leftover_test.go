package topology

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/admin"
	"ambit/tests/harness"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// objects are what a process holds of BPF, such as "prog 17". Others may run an ambit beside the tests, so what is
// looked for afterwards are these.
func objects(t *testing.T, pid int) []string {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	must(t, err)
	var found []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // closed since it was listed
		}
		for line := range strings.Lines(string(text)) {
			for _, kind := range []string{"prog", "link", "map"} {
				if id, ok := strings.CutPrefix(line, kind+"_id:"); ok {
					found = append(found, kind+" "+strings.TrimSpace(id))
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// bpftool runs it in a namespace and decodes what it prints.
func bpftool(t *testing.T, ns *harness.Namespace, result any, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := ns.Run(ctx, "bpftool", append([]string{"-j"}, args...)...)
	must(t, err)
	if err := json.Unmarshal([]byte(out), result); err != nil {
		t.Fatalf("bpftool %v: %v: %s", args, err, out)
	}
}

// existing are those of the objects that the kernel still has, but for prog arrays: Linux (6.18 at least) never
// frees one that anybody looks at, as bpftool does, between its owner's end and the work that empties it.
func existing(t *testing.T, host *harness.Namespace, objects []string) []string {
	t.Helper()
	var left []string
	for _, kind := range []string{"prog", "link", "map"} {
		var all []struct {
			ID   int
			Type any // a number where bpftool does not know its name
		}
		bpftool(t, host, &all, kind, "show")
		for _, o := range all {
			if name := fmt.Sprintf("%s %d", kind, o.ID); slices.Contains(objects, name) && o.Type != "prog_array" {
				left = append(left, name)
			}
		}
	}
	return left
}

// attached are the programs on the interfaces of a namespace, such as "lo tcx/egress ambit_lo". The kernel is
// asked itself, since bpftool before 7.3 knows nothing of tcx.
func attached(t *testing.T, ns *harness.Namespace) []string {
	t.Helper()
	var found []string
	must(t, ns.Do(func() error {
		interfaces, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range interfaces {
			for kind, at := range map[string]ebpf.AttachType{"tcx/egress": ebpf.AttachTCXEgress, "tcx/ingress": ebpf.AttachTCXIngress} {
				result, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: at})
				if err != nil {
					return fmt.Errorf("list the programs at %s of %s: %w", kind, i.Name, err)
				}
				for _, p := range result.Programs {
					name, err := nameOf(p.ID)
					if err != nil {
						return err
					}
					found = append(found, i.Name+" "+kind+" "+name)
				}
			}
		}
		return nil
	}))
	slices.Sort(found)
	return found
}

func nameOf(id ebpf.ProgramID) (string, error) {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", fmt.Errorf("open program %d: %w", id, err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return "", fmt.Errorf("ask for the name of program %d: %w", id, err)
	}
	return info.Name, nil
}

// clean checks that nothing is left of a daemon that held these objects.
func clean(t *testing.T, host *harness.Namespace, namespaces []*harness.Namespace, held []string) {
	t.Helper()
	wait(t, "the kernel has let go of everything", func() error {
		time.Sleep(300 * time.Millisecond) // so that this test causes no such array itself
		if left := existing(t, host, held); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
	for _, ns := range namespaces {
		if left := attached(t, ns); len(left) > 0 {
			t.Errorf("left in %s: %q", ns.Name(), left)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, args := range [][]string{{"qdisc", "show"}, {"filter", "show", "dev", "lo", "egress"}} {
			out, err := ns.Run(ctx, "tc", args...)
			if err == nil && (strings.Contains(out, "clsact") || strings.Contains(out, "ambit")) {
				t.Errorf("left in %s: %s", ns.Name(), out)
			}
		}
	}
	err := filepath.WalkDir("/sys/fs/bpf", func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), "ambit") {
			t.Errorf("pin %s is left", path)
		}
		return err
	})
	must(t, err)
}

// oneSet checks that each hook of each interface has one program, and that ambit says the same.
func (d *instance) oneSet(t *testing.T, namespaces []*harness.Namespace) {
	t.Helper()
	told := make(map[string][]string)
	for _, a := range d.status(t).Attachments {
		if a.Interface != "" {
			told[a.Namespace] = append(told[a.Namespace], a.Interface+" tcx/"+a.Hook+" "+a.Program)
		}
	}
	for _, ns := range namespaces {
		want, got := told[ns.Name()], attached(t, ns)
		slices.Sort(want)
		if !slices.Equal(want, got) {
			t.Errorf("in %s are %q, ambit says %q", ns.Name(), got, want)
		}
		hooks := make(map[string]bool)
		for _, line := range got {
			hook := line[:strings.LastIndexByte(line, ' ')]
			if hooks[hook] {
				t.Errorf("in %s are several programs at %s", ns.Name(), hook)
			}
			hooks[hook] = true
		}
		if len(got) == 0 {
			t.Errorf("nothing is attached in %s", ns.Name())
		}
	}
}

// A daemon that is killed under traffic leaves nothing in the kernel, the next one is the only one, and one that
// is stopped leaves nothing either.
func TestNothingIsLeft(t *testing.T) {
	n := bridged(t)
	d := trace(t, n.lab, n.namespaces())
	d.oneSet(t, n.namespaces())
	for round := range 2 {
		held := objects(t, d.PID())
		if len(held) < 20 {
			t.Fatalf("ambit holds no more than %v", held)
		}
		background := make(chan error, 1)
		go func() {
			background <- try(n.client, work{Target: n.v4.target, Requests: 20_000, Connections: 4, PerConnection: 500})
		}()
		time.Sleep(200 * time.Millisecond)
		d.Kill()
		_ = d.Wait() // it was killed
		clean(t, n.between, n.namespaces(), held)
		d.start(t)
		d.oneSet(t, n.namespaces())
		if err := <-background; err != nil {
			t.Fatalf("round %d: the traffic was disturbed: %v", round, err)
		}
		d.settled(t, admin.Exchanges{})
		d.take()
		before := d.status(t)
		w := work{Target: n.v4.target, Requests: 1000, Connections: 4, PerConnection: 10}
		do(t, n.client, w)
		byPath(t, d.exact(t, before, 2*uint64(w.Requests)), w, func(int) bool { return true })
	}
	held := objects(t, d.PID())
	if err := d.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(); err != nil {
		t.Errorf("%v: %s", err, d.Log())
	}
	clean(t, n.between, n.namespaces(), held)
	if _, err := os.Stat(d.socket); err == nil {
		t.Errorf("%s is left", d.socket)
	}
}
