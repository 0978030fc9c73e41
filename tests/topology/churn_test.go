package topology

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/admin"
	"ambit/tests/harness/labtest"
)

// passing is a namespace that ends before its lab does, with a server on port 8080.
type passing struct {
	name   string
	server *exec.Cmd
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// newPassing makes one. It is removed at the end of the test if it is still there.
func newPassing(t *testing.T, name string) *passing {
	t.Helper()
	ip(t, "netns", "add", name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() }) // mostly gone by then
	ip(t, "-n", name, "link", "set", "lo", "up")
	p := &passing{name: name}
	p.server = p.role(t, nil, serveRole, "8080")
	wait(t, "the server listens", func() error {
		out, err := exec.Command("ip", "netns", "exec", name, "cat", "/proc/net/tcp6").CombinedOutput()
		if err != nil || !strings.Contains(string(out), ":1F90 ") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return p
}

// role starts this program for a role in the namespace. It dies with the test's process.
func (p *passing) role(t *testing.T, order any, role string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	encoded, err := json.Marshal(order)
	must(t, err)
	command := exec.Command("ip", append([]string{"netns", "exec", p.name, self, "lab-role", role}, args...)...)
	command.Stdin = strings.NewReader(string(encoded))
	command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	must(t, command.Start())
	t.Cleanup(func() { end(command) })
	return command
}

// end kills a program, if it still runs.
func end(command *exec.Cmd) {
	_ = command.Process.Kill()
	_ = command.Wait()
}

// remove ends the server and takes the namespace's name away.
func (p *passing) remove(t *testing.T) {
	t.Helper()
	end(p.server)
	ip(t, "netns", "del", p.name)
}

// tapped counts the attachments in a namespace.
func (d *instance) tapped(t *testing.T, name string) int {
	n := 0
	for _, a := range d.status(t).Attachments {
		if a.Namespace == name {
			n++
		}
	}
	return n
}

// Namespaces come and go under traffic, in good order and not; what stays is traced exactly.
func TestNamespacesComeAndGo(t *testing.T) {
	const rounds, requests, steady = 6, 400, 30_000
	target := netip.MustParseAddrPort("127.0.0.1:8080")
	lab := labtest.New(t)
	stays := namespace(t, lab, "stays")
	startServer(t, stays, 8080)
	prefix := fmt.Sprintf("ambit-t-%d-", os.Getpid())
	names := []string{stays.Name()}
	for i := range 3 * rounds {
		names = append(names, prefix+fmt.Sprint(i))
	}
	d := traceNamed(t, lab, names)

	background := make(chan error, 1)
	go func() {
		background <- try(stays, work{Target: target, Requests: steady, Connections: 2, PerConnection: 50})
	}()
	for i := range rounds {
		// One that ends in good order, behind its requests.
		calm := newPassing(t, names[1+3*i])
		made := time.Now()
		wait(t, "the namespace is tapped", func() error {
			if d.tapped(t, calm.name) == 0 {
				return fmt.Errorf("%s is not", calm.name)
			}
			return nil
		})
		if took := time.Since(made); took > time.Second {
			t.Errorf("tapped after %v", took)
		}
		must(t, calm.role(t, work{Target: target, Requests: requests, Connections: 2, PerConnection: 20, Headers: []string{headersNone}}, loadRole).Wait())
		// One that ends in the middle of its requests.
		rough := newPassing(t, names[2+3*i])
		load := rough.role(t, work{Target: target, Requests: 1_000_000, Connections: 4, PerConnection: 20, Headers: []string{headersNone}}, loadRole)
		time.Sleep(300 * time.Millisecond)
		end(load)
		rough.remove(t)
		// One that is gone before it can be tapped.
		brief := names[3+3*i]
		ip(t, "netns", "add", brief)
		ip(t, "netns", "del", brief)
		calm.remove(t)
		wait(t, "the namespaces are released", func() error {
			if n := d.tapped(t, calm.name) + d.tapped(t, rough.name) + d.tapped(t, brief); n > 0 {
				return fmt.Errorf("%d programs are still attached", n)
			}
			return nil
		})
	}
	must(t, <-background)

	e := d.settled(t, admin.Exchanges{})
	if e.Seen != e.Exported || e.InFlight+e.Queued > 0 {
		t.Errorf("the sum does not hold: %+v", e)
	}
	counts := make(map[string]int)
	for _, s := range d.take() {
		counts[s.namespace]++
	}
	if counts[stays.Name()] != 2*steady {
		t.Errorf("%d spans of what stays, want %d", counts[stays.Name()], 2*steady)
	}
	for i := range rounds {
		if got := counts[names[1+3*i]]; got != 2*requests {
			t.Errorf("%d spans of a namespace with %d requests", got, requests)
		}
		if counts[names[2+3*i]] == 0 {
			t.Errorf("no span of a namespace that ended under traffic")
		}
	}
	log := d.Log()
	for line := range strings.Lines(log) {
		// It may say that the namespaces to come are not there yet.
		expected := strings.Contains(line, "CAP_SYS_PTRACE") || strings.Contains(line, "waiting for them")
		if strings.Contains(line, "level=WARN") && !expected || strings.Contains(line, "level=ERROR") {
			t.Errorf("ambit complained: %s", line)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := d.api.Status(ctx); err != nil {
		t.Error(err)
	}
}
