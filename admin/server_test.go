package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// over makes a client that reaches one listener, whatever the address says.
func over(network, address string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
		DisableKeepAlives: true,
	}}
}

func ask(t *testing.T, c *http.Client, method, path, body string) (status int, header http.Header, text string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://ambit"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(content)
}

// What each listener has, and by which methods. 404 on TCP is the point: nothing there may show what a
// request carried, or change anything.
func TestRoutes(t *testing.T) {
	s, path := serve(t, &stage{state: Tracing, trace: TraceDetail{TraceSummary: TraceSummary{TraceID: "x"}}})
	tcp, socket := over("tcp", s.Addr().String()), over("unix", path)
	const id = "/v1/traces/000102030405060708090a0b0c0d0e0f"
	for _, c := range []struct {
		method, path string
		tcp, socket  int
	}{
		{"GET", "/metrics", 200, 200}, {"HEAD", "/metrics", 200, 200}, {"POST", "/metrics", 405, 405},
		{"GET", "/healthz", 200, 200}, {"PUT", "/healthz", 405, 405},
		{"GET", "/readyz", 200, 200}, {"DELETE", "/readyz", 405, 405},
		{"GET", "/", 404, 404}, {"GET", "/favicon.ico", 404, 404}, {"GET", "/metrics/", 404, 404}, {"GET", "/v1", 404, 404},
		{"GET", "/v1/status", 404, 200}, {"POST", "/v1/status", 404, 405},
		{"GET", "/v1/rates", 404, 200}, {"POST", "/v1/rates", 404, 405}, {"DELETE", "/v1/rates", 404, 200},
		{"GET", "/v1/rules", 404, 200}, {"PUT", "/v1/rules", 404, 405},
		{"POST", "/v1/reload", 404, 200}, {"GET", "/v1/reload", 404, 405},
		{"POST", "/v1/forced", 404, 400}, {"GET", "/v1/forced", 404, 405},
		{"GET", "/v1/forced/trace-1", 404, 200}, {"DELETE", "/v1/forced/trace-1", 404, 200}, {"PUT", "/v1/forced/trace-1", 404, 405},
		{"POST", "/v1/pause", 404, 200}, {"GET", "/v1/pause", 404, 405},
		{"POST", "/v1/resume", 404, 200}, {"GET", "/v1/resume", 404, 405},
		{"GET", "/v1/traces", 404, 200}, {"DELETE", "/v1/traces", 404, 405},
		{"GET", id, 404, 200}, {"POST", id, 404, 405},
		{"GET", "/debug/pprof/", 404, 200}, {"GET", "/debug/pprof/heap", 404, 200}, {"GET", "/debug/pprof/cmdline", 404, 200},
		{"POST", "/debug/pprof/symbol", 404, 200}, {"POST", "/debug/pprof/heap", 404, 405},
		{"GET", "/debug/vars", 404, 404},
		{"CONNECT", "/v1/pause", 404, 405}, {"OPTIONS", "/healthz", 405, 405},
	} {
		for name, client := range map[string]*http.Client{"tcp": tcp, "socket": socket} {
			want := c.tcp
			if name == "socket" {
				want = c.socket
			}
			status, header, text := ask(t, client, c.method, c.path, "")
			if status != want {
				t.Errorf("%s %s on %s: %d, want %d", c.method, c.path, name, status, want)
			}
			if status == 404 || status == 405 {
				var e map[string]string
				if err := json.Unmarshal([]byte(text), &e); c.method != "HEAD" && (err != nil || e["error"] == "" || len(e) != 1) {
					t.Errorf("%s %s on %s: the error is no JSON: %q", c.method, c.path, name, text)
				}
				if header.Get("Content-Type") != "application/json" {
					t.Errorf("%s %s on %s: content type %q", c.method, c.path, name, header.Get("Content-Type"))
				}
			}
			if (status == 405) != (header.Get("Allow") != "") {
				t.Errorf("%s %s on %s: Allow is %q", c.method, c.path, name, header.Get("Allow"))
			}
		}
	}
	if _, header, text := ask(t, socket, "POST", "/v1/rates", ""); header.Get("Allow") != "DELETE, GET, PUT" || text != `{"error":"/v1/rates takes DELETE, GET, PUT"}`+"\n" {
		t.Errorf("Allow %q, %s", header.Get("Allow"), text)
	}
}

func TestReadiness(t *testing.T) {
	b := &stage{}
	s, path := serve(t, b)
	for state, want := range map[State]int{Starting: 503, Tracing: 200, Paused: 200} {
		b.become(state)
		for _, c := range []*http.Client{over("tcp", s.Addr().String()), over("unix", path)} {
			if status, _, text := ask(t, c, "GET", "/readyz", ""); status != want || text != string(state)+"\n" {
				t.Errorf("%s: %d %q", state, status, text)
			}
			if status, _, text := ask(t, c, "GET", "/healthz", ""); status != 200 || text != "ok\n" {
				t.Errorf("healthz while %s: %d %q", state, status, text)
			}
		}
	}
}

func TestSetRatesRefusals(t *testing.T) {
	b := &stage{rates: Rates{}}
	_, path := serve(t, b)
	c := over("unix", path)
	for body, want := range map[string]string{
		``:                             `400 {"error":"the body is not what is wanted: EOF"}`,
		`{`:                            `400 {"error":"the body is not what is wanted: unexpected EOF"}`,
		`{}`:                           `400 {"error":"\"override\" must be a number from 0 to 1"}`,
		`{"override":null}`:            `400 {"error":"\"override\" must be a number from 0 to 1"}`,
		`{"override":1.01}`:            `400 {"error":"\"override\" must be a number from 0 to 1"}`,
		`{"override":-1}`:              `400 {"error":"\"override\" must be a number from 0 to 1"}`,
		`{"override":"1"}`:             `400 {"error":"the body is not what is wanted: json: cannot unmarshal string into Go struct field rateChange.override of type float64"}`,
		`{"override":1,"slow":1}`:      `400 {"error":"the body is not what is wanted: json: unknown field \"slow\""}`,
		`{"override":1}{}`:             `400 {"error":"the body is not what is wanted: { behind the value"}`,
		strings.Repeat(" ", maxBody+1): `413 {"error":"the body has more than 4096 bytes"}`,
		`{"override":1}` + strings.Repeat(" ", maxBody): `413 {"error":"the body has more than 4096 bytes"}`,
	} {
		status, _, text := ask(t, c, "PUT", "/v1/rates", body)
		if got := fmt.Sprint(status, " ", strings.TrimSpace(text)); got != want {
			t.Errorf("%.30q:\ngot  %s\nwant %s", body, got, want)
		}
	}
	if b.rates.Override != nil {
		t.Errorf("a refused change was made: %+v", b.rates)
	}
	if status, _, _ := ask(t, c, "PUT", "/v1/rates", `{"override":0}`); status != 200 || *b.rates.Override != 0 {
		t.Errorf("0 was not taken: %d %+v", status, b.rates)
	}
}

func TestForceRefusals(t *testing.T) {
	_, path := serve(t, &stage{})
	c := over("unix", path)
	for body, want := range map[string]string{
		`{}`:                                 `400 {"error":"neither a service nor a path is given: everything would be forced"}`,
		`{"path":"/a"}`:                      `400 {"error":"0 seconds are out of range; allowed: above 0 and up to 3600"}`,
		`{"path":"/a","seconds":-1}`:         `400 {"error":"-1 seconds are out of range; allowed: above 0 and up to 3600"}`,
		`{"path":"/a","seconds":3601}`:       `400 {"error":"3601 seconds are out of range; allowed: above 0 and up to 3600"}`,
		`{"path":"/a","seconds":1,"rate":1}`: `400 {"error":"the body is not what is wanted: json: unknown field \"rate\""}`,
		`{"service":"a","seconds":1,"methods":"GET"}`: `400 {"error":"the body is not what is wanted: json: cannot unmarshal string into Go struct field ForceRequest.methods of type []string"}`,
	} {
		status, _, text := ask(t, c, "POST", "/v1/forced", body)
		if got := fmt.Sprint(status, " ", strings.TrimSpace(text)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", body, got, want)
		}
	}
}

func TestTraceParameters(t *testing.T) {
	b := &stage{}
	_, path := serve(t, b)
	c := over("unix", path)
	for query, want := range map[string]string{
		"/v1/traces":          "200 []",
		"/v1/traces?n=1000":   "200 []",
		"/v1/traces?n=0":      `400 {"error":"n must be a whole number from 1 to 1000"}`,
		"/v1/traces?n=1001":   `400 {"error":"n must be a whole number from 1 to 1000"}`,
		"/v1/traces?n=x":      `400 {"error":"n must be a whole number from 1 to 1000"}`,
		"/v1/traces/zz":       `400 {"error":"\"zz\" is no trace ID: want 32 hex digits, or the first 8 or more"}`,
		"/v1/traces/%1b%5b0m": `400 {"error":"\"\\x1b[0m\" is no trace ID: want 32 hex digits, or the first 8 or more"}`,
		"/v1/traces/0g0102030405060708090a0b0c0d0e0f":          `400 {"error":"\"0g0102030405060708090a0b0c0d0e0f\" is no trace ID: want 32 hex digits, or the first 8 or more"}`,
		"/v1/traces/000102030405060708090a0b0c0d0e0f":          `404 {"error":"there is no such trace"}`,
		"/v1/traces/0001020":                                   `400 {"error":"\"0001020\" is no trace ID: want 32 hex digits, or the first 8 or more"}`,
		"/v1/traces/00010203":                                  `404 {"error":"there is no such trace"}`,
		"/v1/traces/000102030405060708090A0B0C0D0E0F":          `404 {"error":"there is no such trace"}`,
		"/v1/traces/000102030405060708090a0b0c0d0e0f?width=-1": `400 {"error":"width must be a whole number from 0 to 1000"}`,
	} {
		status, _, text := ask(t, c, "GET", query, "")
		if got := fmt.Sprint(status, " ", strings.TrimSpace(text)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", query, got, want)
		}
	}
}

func TestBackendErrors(t *testing.T) {
	_, path := serve(t, &stage{err: errStage, state: Tracing})
	_, other := serve(t, &stage{err: Unavailable("traces are with the collector"), state: Tracing})
	for _, call := range [][2]string{{"GET", "/v1/status"}, {"GET", "/v1/rates"}, {"POST", "/v1/pause"}, {"POST", "/v1/resume"}, {"GET", "/v1/traces"},
		{"DELETE", "/v1/rates"}, {"GET", "/v1/rules"}, {"POST", "/v1/reload"}, {"GET", "/v1/forced/a"}, {"DELETE", "/v1/forced/a"},
		{"GET", "/v1/traces/000102030405060708090a0b0c0d0e0f"}} {
		if status, _, text := ask(t, over("unix", path), call[0], call[1], ""); status != 500 || text != `{"error":"the map is gone"}`+"\n" {
			t.Errorf("%s: %d %s", call, status, text)
		}
		if status, _, text := ask(t, over("unix", other), call[0], call[1], ""); status != 503 || text != `{"error":"traces are with the collector"}`+"\n" {
			t.Errorf("%s: %d %s", call, status, text)
		}
	}
	if status, _, _ := ask(t, over("unix", path), "PUT", "/v1/rates", `{"override":1}`); status != 500 {
		t.Errorf("set rates: %d", status)
	}
	if status, _, text := ask(t, over("unix", path), "GET", "/metrics", ""); status != 500 || !strings.Contains(text, "the map is gone") {
		t.Errorf("metrics: %d %s", status, text)
	}
}

// A change goes on when the caller has gone.
func TestChangeOutlivesCaller(t *testing.T) {
	b := &stage{state: Tracing, pausing: make(chan struct{})}
	_, path := serve(t, b)
	ctx, cancel := context.WithCancel(context.Background())
	c := dial(t, path)
	done := make(chan error)
	go func() {
		_, err := c.Pause(ctx)
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	cancel()
	if err := <-done; err == nil {
		t.Error("the caller was not told that it left")
	}
	time.Sleep(50 * time.Millisecond) // for the server to see the connection's end
	close(b.pausing)
	for range 100 {
		if b.State() == Paused {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != Paused || b.ended != nil {
		t.Errorf("state %s, context %v", b.state, b.ended)
	}
}

func TestSlowAndLargeRequests(t *testing.T) {
	s, _ := serve(t, &stage{state: Tracing})
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 64<<10))
	text, err := io.ReadAll(conn)
	if !strings.HasPrefix(string(text), "HTTP/1.1 431") {
		t.Errorf("a head of 64 KiB: %.40q %v", text, err)
	}
	for _, server := range s.http {
		if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.WriteTimeout == 0 || server.IdleTimeout == 0 {
			t.Errorf("a server without all its timeouts: %+v", server)
		}
	}
}

// More callers than there may be connections wait for their turn; none is turned away.
func TestManyCallers(t *testing.T) {
	s, _ := serve(t, &stage{state: Tracing})
	var held []net.Conn
	for range maxConnections {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	done := make(chan int)
	go func() {
		r, err := http.Get("http://" + s.Addr().String() + "/healthz")
		if err != nil {
			done <- 0
			return
		}
		r.Body.Close()
		done <- r.StatusCode
	}()
	select {
	case <-done:
		t.Error("answered beyond the bound")
	case <-time.After(100 * time.Millisecond):
	}
	for _, conn := range held {
		conn.Close()
	}
	if status := <-done; status != 200 {
		t.Errorf("status %d", status)
	}
}
