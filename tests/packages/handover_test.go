package packages

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/admin"
	"ambit/meta"
	"ambit/tests/e2e/load"
	"ambit/tests/harness"

	"github.com/cilium/ebpf"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

func TestMain(m *testing.M) {
	roles := harness.Roles{"collect": collect}
	maps.Copy(roles, load.Roles)
	roles.Dispatch()
	os.Exit(m.Run())
}

const otlpPort = 4317

// collected is what a collector got: the spans of calls, and those that are named as nothing is that was asked for.
type collected struct{ Calls, Others, Wrong uint64 }

type collector struct {
	coltracepb.UnimplementedTraceServiceServer
	mu  sync.Mutex
	got collected
}

func (c *collector) Export(_ context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				switch {
				case strings.HasPrefix(s.Name, load.Service+"/Method"):
					c.got.Calls++
				case s.Name == "GET":
					c.got.Others++
				default:
					c.got.Wrong++
				}
			}
		}
	}
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

// collect is the role of an OTLP receiver, which tells what it got when its standard input ends.
func collect([]string) error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", otlpPort))
	if err != nil {
		return err
	}
	c := new(collector)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	coltracepb.RegisterTraceServiceServer(server, c)
	go server.Serve(listener)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return json.NewEncoder(os.Stdout).Encode(c.got)
}

// inside is a command that runs what is appended to it in the machine's network, and in a cgroup of the machine's, but with
// the host's files.
func (m *machine) inside() []string {
	m.t.Helper()
	mount, err := meta.CgroupMount("/")
	must(m.t, err)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.leader))
	must(m.t, err)
	for line := range strings.Lines(string(text)) {
		if at, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			procs := filepath.Join(mount, at, "cgroup.procs")
			return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, procs, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", m.leader), "--"}
		}
	}
	m.t.Fatalf("systemd is in no cgroup of version 2: %s", text)
	return nil
}

const handoverConfig = `
otlp: {endpoint: "http://127.0.0.1:4317"}
export: {batch_wait: 50ms, flush_timeout: 20s, queue_bytes: 64MiB}
sampling:
  budget: 0
  defaults: [off]
  rules:
    - {name: calls, match: {path: {prefix: /ambit.Busy}}, rate: 1}
    - {name: busy, match: {path: {exact: /busy}}, rate: 0.02}
`

// status asks the daemon that runs in the machine.
func (m *machine) status() (s admin.Status, err error) {
	out, err := m.try("ambit", "status", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// traces waits until a daemon of the version traces that has another PID than before.
func (m *machine) traces(version string, before int) admin.Status {
	m.t.Helper()
	var s admin.Status
	m.await("ambit "+version+" traces", time.Minute, func() (err error) {
		if s, err = m.status(); err == nil && (s.State != admin.Tracing || s.PID == before || s.Version != version) {
			err = fmt.Errorf("%s %s, PID %d", s.Version, s.State, s.PID)
		}
		return err
	})
	return s
}

// metric is one of the daemon's.
func (m *machine) metric(name string) string {
	m.t.Helper()
	for line := range strings.Lines(m.do("curl", "-s", "--unix-socket", "/run/ambit/ambit.sock", "http://ambit/metrics")) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	m.t.Fatalf("there is no metric %s", name)
	return ""
}

// heritage is the map by which a daemon tells the next one what its maps are.
func (m *machine) heritage() *ebpf.Map {
	m.t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/proc/%s/fdinfo/*", m.leader, m.property("MainPID")))
	must(m.t, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			var id uint32
			if _, err := fmt.Sscanf(line, "map_id: %d", &id); err != nil {
				continue
			}
			candidate, err := ebpf.NewMapFromID(ebpf.MapID(id))
			must(m.t, err)
			if info, err := candidate.Info(); err == nil && info.Name == "heritage" {
				return candidate
			}
			candidate.Close()
		}
	}
	m.t.Fatal("the daemon has no map heritage")
	return nil
}

// Restarts and an upgrade of a busy node lose nothing: programs, links and maps go on in systemd's hands. What another version
// of the ABI left is not taken over, and the gap counted; a stop leaves nothing.
func TestHandOver(t *testing.T) {
	old, next := build(t, "2.0.0"), build(t, "2.1.0")
	m := boot(t)
	for from, version := range map[string]string{old: "2.0.0", next: "2.1.0"} {
		run(t, "cp", filepath.Join(from, "ambit_"+version+"_amd64.deb"), filepath.Join(m.root, "root"))
	}
	enter := m.inside()
	self, err := os.Executable()
	must(t, err)
	receiver := exec.Command(enter[0], append(enter[1:], self, "lab-role", "collect")...)
	input, err := receiver.StdinPipe()
	must(t, err)
	var out bytes.Buffer
	receiver.Stdout, receiver.Stderr = &out, &out
	receiver.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	must(t, receiver.Start())
	t.Cleanup(func() {
		if receiver.ProcessState == nil {
			_ = receiver.Process.Kill()
			_ = receiver.Wait()
		}
	})
	m.do("dpkg", "-i", "/root/ambit_2.0.0_amd64.deb")
	first := m.traces("2.0.0", 0)
	must(t, os.WriteFile(filepath.Join(m.root, "etc/ambit/ambit.yaml"), []byte(handoverConfig), 0o640))
	m.do("systemctl", "restart", "ambit")
	begin := m.traces("2.0.0", first.PID)

	busy := load.Start(t, enter...)
	time.Sleep(time.Second)
	begun := time.Now()
	m.do("systemctl", "restart", "ambit")
	restarted := m.traces("2.0.0", begin.PID)
	t.Logf("a restart took %s", time.Since(begun).Round(10*time.Millisecond))
	time.Sleep(time.Second)
	m.do("dpkg", "-i", "--force-confold", "/root/ambit_2.1.0_amd64.deb")
	upgraded := m.traces("2.1.0", restarted.PID)
	for name, want := range map[string]string{"ambit_restart_gap_seconds": "0", "ambit_restart_taken_over": "1"} {
		if got := m.metric(name); got != want {
			t.Errorf("behind the upgrade %s is %s, want %s", name, got, want)
		}
	}
	time.Sleep(time.Second)
	done := busy.Stop(t)
	var end admin.Status
	m.await("nothing is under way any more", 20*time.Second, func() (err error) {
		if end, err = m.status(); err == nil && end.Exchanges.InFlight+end.Exchanges.Queued > 0 {
			err = fmt.Errorf("%+v", end.Exchanges)
		}
		return err
	})
	seen := end.Exchanges.Seen - begin.Exchanges.Seen
	if low, high := 2*(done.Requests+done.Calls), 2*(done.Requests+load.Connections+done.Calls); seen < low || seen > high {
		t.Errorf("%d exchange sides were seen of %+v, which are %d to %d", seen, done, low, high)
	}
	for _, event := range []string{"hpack_unknown_fields", "desynchronised", "responses_without_request"} {
		if n := end.Events[event]; n > 0 {
			t.Errorf("%s: %d", event, n)
		}
	}
	if end.Exchanges.DroppedTotal() > 0 {
		t.Errorf("dropped: %v", end.Exchanges.Dropped)
	}
	t.Logf("%+v: %+v", done, end.Exchanges)

	// Of another version of the ABI nothing is taken over.
	h := m.heritage()
	value := make([]byte, h.ValueSize())
	must(t, h.Lookup(uint32(0), &value))
	value[0]++
	must(t, h.Put(uint32(0), value))
	must(t, h.Close())
	m.do("systemctl", "restart", "ambit")
	m.traces("2.1.0", upgraded.PID)
	if taken, gap := m.metric("ambit_restart_taken_over"), m.metric("ambit_restart_gap_seconds"); taken != "0" || gap == "0" {
		t.Errorf("behind another version of the ABI taken over is %s, the gap %s s", taken, gap)
	}
	for _, words := range []string{"what an earlier daemon left is not taken over", "nothing was traced since an earlier daemon"} {
		if journal := m.do("journalctl", "--no-pager", "-o", "cat", "-u", "ambit"); !strings.Contains(journal, words) {
			t.Errorf("the journal does not say %q: %s", words, journal)
		}
	}

	if t.Failed() {
		t.Logf("the journal: %s", m.do("journalctl", "--no-pager", "-o", "short-precise", "-u", "ambit"))
	}

	// A stop leaves nothing, in systemd's hands neither.
	m.do("systemctl", "stop", "ambit")
	if n := m.property("NFileDescriptorStore"); n != "0" {
		t.Errorf("behind the stop systemd holds %s descriptors", n)
	}
	m.await("the programs go", 10*time.Second, func() error {
		if left := m.do("bpftool", "net", "show"); strings.Contains(left, "ambit") {
			return fmt.Errorf("%s", left)
		}
		if left := m.do("bpftool", "cgroup", "tree"); strings.Contains(left, "established") {
			return fmt.Errorf("%s", left)
		}
		return nil
	})

	must(t, input.Close())
	if err := receiver.Wait(); err != nil {
		t.Fatalf("the collector: %v: %s", err, out.String())
	}
	var got collected
	must(t, json.Unmarshal(out.Bytes(), &got))
	if got.Calls != 2*done.Calls || got.Wrong > 0 || got.Others == 0 {
		t.Errorf("the collector got %+v of %+v", got, done)
	}
}
