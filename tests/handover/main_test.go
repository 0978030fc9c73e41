// Package handover has daemons follow each other while a namespace is busy: by a hand-over between two that live, behind one
// that was killed, and by one of another version. tests/packages does it by systemd.
package handover

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit/tests/e2e/load"
	"ambit/tests/e2e/stage"
	"ambit/tests/harness"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	load.Roles.Dispatch()
	os.Exit(stage.Main(m))
}

// scene is a daemon that pins what it has, on a busy namespace.
type scene struct {
	*stage.Stage
	pins string // directory
	load *load.Load
}

// restarts are what a daemon says of the one before it.
type restarts struct {
	gap   float64 // seconds
	taken bool
}

const config = `
sampling:
  budget: 0
  defaults: [off]
  rules:
    - {name: calls, match: {path: {prefix: /ambit.Busy}}, rate: 1}
    - {name: busy, match: {path: {exact: /busy}}, rate: 0.02}
`

func begin(t *testing.T) *scene {
	t.Helper()
	lab := stage.NewLab(t)
	ns, err := lab.Namespace("busy")
	stage.Must(t, err)
	dir := t.TempDir()
	stage.Must(t, unix.Mount("bpf", dir, "bpf", 0, ""))
	t.Cleanup(func() { stage.Must(t, unix.Unmount(dir, 0)) })
	file := filepath.Join(t.TempDir(), "ambit.yaml")
	stage.Must(t, os.WriteFile(file, []byte(config), 0o600))
	s := &scene{pins: filepath.Join(dir, "ambit")}
	s.Stage = stage.Start(t, stage.Config{Lab: lab, Namespaces: []*harness.Namespace{ns}, Flags: []string{
		"--config", file, "--handover-pins", s.pins, "--export-flush-timeout", "20s", "--state", filepath.Join(t.TempDir(), "rates.json"),
	}})
	s.load = load.Start(t, "nsenter", "--net="+ns.Path(), "--")
	time.Sleep(time.Second)
	return s
}

// restart is what the daemon says of its start.
func (s *scene) restart(t *testing.T) restarts {
	t.Helper()
	m := s.Metrics(t)
	return restarts{m["ambit_restart_gap_seconds"], m["ambit_restart_taken_over"] == 1}
}

// verify holds what was seen to what the clients did: nothing is missing, nothing lost, and everything has its name.
func verify(t *testing.T, spans []stage.Span, counts stage.Counts, done load.Done) {
	t.Helper()
	if counts.DroppedTotal() > 0 || counts.InFlight > 0 || counts.Events["hpack_unknown_fields"] > 0 || counts.Events["desynchronised"] > 0 {
		t.Errorf("of %+v something was lost: %v", done, counts)
	}
	// wrk's last requests may have been cut off, each on two sides.
	if low, high := 2*(done.Requests+done.Calls), 2*(done.Requests+load.Connections+done.Calls); counts.Seen < low || counts.Seen > high {
		t.Errorf("%d exchange sides were seen of %+v, which are %d to %d", counts.Seen, done, low, high)
	}
	calls := named(t, spans)
	if calls != 2*done.Calls {
		t.Errorf("%d spans are of %d calls, each of which has two", calls, done.Calls)
	}
	t.Logf("%+v: %v", done, counts)
}

// named counts the spans of calls, and holds each span to what it must be called.
func named(t *testing.T, spans []stage.Span) (calls uint64) {
	t.Helper()
	wrong := 0
	for i := range spans {
		s := &spans[i]
		method, _ := s.Attributes["rpc.method"].(string)
		path, _ := s.Attributes["url.path"].(string)
		rule, _ := s.Attributes["ambit.sampling.rule"].(string)
		switch {
		case strings.HasPrefix(method, load.Service+"/Method") && rule == "calls" && !s.Failed:
			calls++
		case path == "/busy" && rule == "busy":
		default:
			if wrong++; wrong <= 5 {
				t.Errorf("a span is %s, %v", s.Name, s.Attributes)
			}
		}
	}
	if wrong > 5 {
		t.Errorf("and %d more", wrong-5)
	}
	return calls
}

// nothing is left of an ambit whose pins were there.
func (s *scene) nothing(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(s.pins); err == nil {
		entries, _ := os.ReadDir(s.pins)
		t.Errorf("%s is left, with %v", s.pins, entries)
	}
}

// build makes an ambit of another version.
func build(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ambit-"+version)
	c := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-X ambit/daemon.Version="+version, "-o", path, "ambit/cmd/ambit")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build ambit: %v: %s", err, out)
	}
	return path
}

// programs are the names of the programs that the pinned links run.
func (s *scene) programs(t *testing.T) map[string]ebpf.ProgramID {
	t.Helper()
	found := make(map[string]ebpf.ProgramID)
	paths, err := filepath.Glob(filepath.Join(s.pins, "l_*"))
	stage.Must(t, err)
	for _, path := range paths {
		l, err := link.LoadPinnedLink(path, nil)
		stage.Must(t, err)
		info, err := l.Info()
		stage.Must(t, err, l.Close())
		found[filepath.Base(path)] = info.Program
	}
	if len(found) == 0 {
		t.Fatal(fmt.Errorf("no link is pinned in %s", s.pins))
	}
	return found
}
