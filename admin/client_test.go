package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestClient(t *testing.T) {
	ctx := context.Background()
	b := &stage{
		state: Tracing, status: fullStatus(),
		rates: Rates{Default: 0.1, Threshold: "e6666666666666", Source: "configuration", Generation: 1, Changed: at("2026-03-01T00:00:00Z")},
		rules: RuleSet{RulesStatus: RulesStatus{Generation: 3, Count: 1, Loaded: at("2026-03-01T00:00:00Z")},
			Rules: []Rule{{Name: "default", Origin: "behind all", Rule: map[string]any{"name": "default", "rate": 0.5}, Text: "rate: 0.5"}}},
		forced: Forcing{ID: "trace-1", Rule: "trace-1", Expires: at("2026-03-01T00:00:00Z"), Limit: 10, Kept: 3},
		traces: []TraceSummary{{TraceID: "ab", Start: at("2026-03-01T00:00:01Z"), DurationNS: 5, Spans: 2, Omitted: 1, Errors: 1, Services: 2, Name: "GET", Service: "shop"}},
		trace: TraceDetail{TraceSummary: TraceSummary{TraceID: "ab"}, Waterfall: "one\ntwo\n", SpanList: []Span{{SpanID: "01", Kind: "CLIENT",
			Name: "GET", Service: "shop", Start: at("2026-03-01T00:00:01Z"), DurationNS: 5, Error: "500", Attributes: map[string]any{"url.path": "/a\x1b\u2028"}}}},
	}
	_, path := serve(t, b)
	c := dial(t, path)

	status, err := c.Status(ctx)
	if want := fullStatus(); err != nil || !reflect.DeepEqual(status, want) {
		t.Errorf("status: %v\ngot  %+v\nwant %+v", err, status, want)
	}
	b.rates.Routes, b.rates.Anomalies = []RouteRate{}, []Anomaly{}
	query := RatesQuery{Limit: 5, Service: "cart", Route: "GET /a b"}
	if rates, err := c.Rates(ctx, query); err != nil || !reflect.DeepEqual(rates, b.rates) || b.query != query {
		t.Errorf("rates: %+v %v", rates, err)
	}
	if rates, err := c.SetRates(ctx, 0.25); err != nil || *rates.Override != 0.25 || rates.Generation != 2 || *b.rates.Override != 0.25 {
		t.Errorf("set rates: %+v %v", rates, err)
	}
	if rates, err := c.ClearRates(ctx); err != nil || rates.Override != nil || b.rates.Override != nil {
		t.Errorf("clear rates: %+v %v", rates, err)
	}
	if rules, err := c.Rules(ctx); err != nil || !reflect.DeepEqual(rules, b.rules) {
		t.Errorf("rules: %+v %v", rules, err)
	}
	if rules, err := c.Reload(ctx); err != nil || rules.Generation != 4 {
		t.Errorf("reload: %+v %v", rules, err)
	}
	request := ForceRequest{Service: "shop", Path: "/a", Methods: []string{"GET"}, Seconds: 1.5}
	if forced, err := c.Force(ctx, request); err != nil || forced != b.forced || !reflect.DeepEqual(b.request, request) {
		t.Errorf("force: %+v %v", forced, err)
	}
	if forced, err := c.Forcing(ctx, "a b/c"); err != nil || forced != b.forced || b.id != "a b/c" {
		t.Errorf("forcing: %+v %v", forced, err)
	}
	if forced, err := c.Unforce(ctx, "trace-1"); err != nil || !forced.Over || b.id != "trace-1" {
		t.Errorf("unforce: %+v %v", forced, err)
	}
	if state, err := c.Pause(ctx); err != nil || state != Paused || b.State() != Paused {
		t.Errorf("pause: %s %v", state, err)
	}
	if state, err := c.Resume(ctx); err != nil || state != Tracing || b.State() != Tracing {
		t.Errorf("resume: %s %v", state, err)
	}
	if traces, err := c.Traces(ctx, 7); err != nil || !reflect.DeepEqual(traces, b.traces) || b.asked != 7 {
		t.Errorf("traces: %+v %v", traces, err)
	}
	const id = "010000000000000000000000000000ff"
	if trace, err := c.Trace(ctx, id, 90); err != nil || !reflect.DeepEqual(trace, b.trace) || b.id != id || b.width != 90 {
		t.Errorf("trace: %+v %v", trace, err)
	}

	b.err = Unavailable("not now")
	_, err = c.Status(ctx)
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable || err.Error() != "not now" {
		t.Errorf("an answer that is no success: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	leaveStale(t, dir+"/stale.sock")
	for name, want := range map[string]string{
		"absent.sock": `the daemon is not running: there is no socket %s: start it with "ambit run", or name its socket with --socket`,
		"stale.sock":  `the daemon is not running: nobody listens on the socket %s: start it with "ambit run", or name its socket with --socket`,
	} {
		path := filepath.Join(dir, name)
		if _, err := Dial(path); err == nil || err.Error() != fmt.Sprintf(want, path) {
			t.Errorf("got  %v\nwant "+want, err, path)
		}
	}
}

// TestDialAsNobody runs this test's program again as another user: the kernel itself has to say no.
func TestDialAsNobody(t *testing.T) {
	const variable = "AMBIT_TEST_DIAL"
	if path := os.Getenv(variable); path != "" {
		_, err := Dial(path)
		fmt.Println("error:", err)
		return
	}
	dir, err := os.MkdirTemp("/tmp", "ambit-nobody") // t.TempDir's parents are closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := dir + "/program"
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, content, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := listenSocket(dir + "/ambit.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cmd := exec.Command(program, "-test.run=^TestDialAsNobody$")
	cmd.Dir = "/"
	cmd.Env = []string{variable + "=" + s.path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	want := "error: permission denied on the socket " + s.path + ": it is for root: run this as root\n"
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v\n%s", err, out)
	}
}

// Whoever may be at the other end, the error is one line that helps.
func TestStrangersAtTheSocket(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   string
	}{
		"closes":     {"", "the daemon at the socket %s broke off: EOF"},
		"no HTTP":    {"220 smtp\r\n", "the daemon at the socket %s broke off: net/http: HTTP/1.x transport connection broken: malformed HTTP status code \"smtp\""},
		"no JSON":    {"HTTP/1.0 200 OK\r\n\r\nhello", "the answer on the socket %s cannot be read, is the daemon of this version? invalid character 'h' looking for beginning of value"},
		"not found":  {"HTTP/1.0 404 Not Found\r\n\r\n404 page not found", "the daemon at the socket %s answered GET /v1/status with 404: is it ambit, and of this version?"},
		"in between": {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "the daemon at the socket %s broke off: unexpected EOF"},
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					if n, _ := conn.Read(make([]byte, 4096)); n > 0 {
						io.WriteString(conn, c.answer)
					}
				}()
			}
		}()
		_, err = dial(t, path).Status(context.Background())
		if want := fmt.Sprintf(c.want, path); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", name, err, want)
		}
		l.Close()
	}
}

func TestDaemonThatIsStuckOrGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Status(ctx)
	if want := "the daemon at the socket " + path + " does not answer: its log may say why"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	l.Close()
	_, err = c.Status(context.Background())
	if err == nil || !strings.HasPrefix(err.Error(), "the daemon is not running: there is no socket "+path) {
		t.Errorf("gone: %v", err)
	}
}
