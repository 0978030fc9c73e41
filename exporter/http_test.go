package exporter

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// httpCollector is an OTLP receiver over HTTP.
type httpCollector struct {
	*httptest.Server

	mu       sync.Mutex
	answer   func(w http.ResponseWriter, attempt int) // nil takes everything
	attempts int
	received int
	paths    map[string]int
	header   http.Header
}

func newHTTPCollector(t *testing.T, answer func(http.ResponseWriter, int)) *httpCollector {
	c := &httpCollector{answer: answer, paths: make(map[string]int)}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *httpCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	wire, err := io.ReadAll(body)
	var req coltracepb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(wire, &req)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	c.attempts++
	attempt := c.attempts
	c.paths[r.URL.Path]++
	c.header = r.Header
	c.mu.Unlock()
	rec := httptest.NewRecorder()
	if c.answer != nil {
		c.answer(rec, attempt)
	}
	if rec.Code == http.StatusOK {
		c.mu.Lock()
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				c.received += len(ss.Spans)
			}
		}
		c.mu.Unlock()
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

func (c *httpCollector) counts() (attempts, received int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts, c.received
}

// quickHTTP is quick over HTTP.
func quickHTTP(c *httpCollector) OTLPConfig {
	cfg := quick("")
	cfg.Endpoint, cfg.Protocol = c.URL, "http/protobuf"
	return cfg
}

func TestHTTPDelivers(t *testing.T) {
	c := newHTTPCollector(t, nil)
	cfg := quickHTTP(c)
	cfg.QueueBytes = 8 << 20 // all of them, however busy the machine is
	o := startOTLP(t, cfg)
	addSpans(o, 0, 5000)
	if err := closeWithin(t, o, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if s := exact(t, o); s.Exported != 5000 || s.Protocol != "http/protobuf" || s.Endpoint != c.URL {
		t.Errorf("stats are %+v", s)
	}
	if _, received := c.counts(); received != 5000 || c.paths["/v1/traces"] != c.attempts {
		t.Errorf("%d spans arrived at %v", received, c.paths)
	}
}

func TestHTTPFollowsTheEnvironment(t *testing.T) {
	c := newHTTPCollector(t, nil)
	clearEnvironment(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL+"/base")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue%20team")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	cfg := quick("")
	cfg.Endpoint = ""
	o := startOTLPHere(t, cfg)
	addSpans(o, 0, 10)
	if err := o.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.received != 10 || c.paths["/base/v1/traces"] != 1 || c.header.Get("X-Tenant") != "blue team" || c.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%d spans arrived at %v with %v", c.received, c.paths, c.header)
	}
}

func TestHTTPEndpointForTracesIsTakenAsItIs(t *testing.T) {
	c := newHTTPCollector(t, nil)
	clearEnvironment(t)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.URL+"/spans")
	cfg := quick("")
	cfg.Endpoint = ""
	o := startOTLPHere(t, cfg)
	addSpans(o, 0, 1)
	if err := o.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if c.paths["/spans"] != 1 {
		t.Errorf("spans went to %v", c.paths)
	}
}

func TestHTTPAnswers(t *testing.T) {
	partial := func(rejected int64) []byte {
		b, err := proto.Marshal(&coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{
			RejectedSpans: rejected, ErrorMessage: "too old",
		}})
		if err != nil {
			panic(err)
		}
		return b
	}
	code := func(code int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(code); io.WriteString(w, "a reason") }
	}
	cases := []struct {
		what     string
		answer   func(http.ResponseWriter)
		retried  bool
		refused  bool
		rejected uint64
		waits    time.Duration
	}{
		{what: "too many requests", answer: code(429), retried: true},
		{what: "bad gateway", answer: code(502), retried: true},
		{what: "unavailable", answer: code(503), retried: true},
		{what: "gateway time-out", answer: code(504), retried: true},
		{what: "unavailable for a second", answer: func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
		}, retried: true, waits: time.Second},
		{what: "bad request", answer: code(400), refused: true},
		{what: "not authenticated", answer: code(401), refused: true},
		{what: "not found", answer: code(404), refused: true},
		{what: "too large", answer: code(413), refused: true},
		{what: "a failure of its own", answer: code(500), refused: true},
		{what: "partial success", answer: func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			w.Write(partial(3))
		}, rejected: 3},
		{what: "partial success, told in JSON", answer: func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}`)
		}, rejected: 2},
		{what: "an answer that nobody understands", answer: func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>welcome</html>")
		}},
		{what: "an answer without end", answer: func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			w.Write(make([]byte, 1<<20))
		}},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			col := newHTTPCollector(t, func(w http.ResponseWriter, attempt int) {
				if attempt == 1 {
					c.answer(w)
				}
			})
			o := startOTLP(t, quickHTTP(col))
			addSpans(o, 0, 7)
			start := time.Now()
			eventually(t, "the batch is done", func() bool { return o.Stats().Batches == 1 })
			if took := time.Since(start); took < c.waits {
				t.Errorf("it came back after %v, before the %v asked for", took, c.waits)
			}
			s := exact(t, o)
			want := Stats{Exported: 7}
			switch {
			case c.retried:
				want.Retries = 1
			case c.refused:
				want.Exported, want.Dropped[DropRefused] = 0, 7
			case c.rejected > 0:
				want.Exported, want.Dropped[DropRejected] = 7-c.rejected, c.rejected
			}
			if s.Exported != want.Exported || s.Dropped != want.Dropped || s.Retries != want.Retries || s.FailingSince.IsZero() == c.refused {
				t.Errorf("stats are %+v", s)
			}
			if c.rejected > 0 && s.LastError != "too old" {
				t.Errorf("the collector's message is told as %q", s.LastError)
			}
		})
	}
}

func TestHTTPCollectorAwayAndHanging(t *testing.T) {
	block := make(chan struct{})
	c := newHTTPCollector(t, func(w http.ResponseWriter, attempt int) {
		if attempt == 1 {
			<-block
		}
	})
	cfg := quickHTTP(c)
	cfg.Timeout = 100 * time.Millisecond
	o := startOTLP(t, cfg)
	addSpans(o, 0, 10)
	eventually(t, "a batch that hung is sent again", func() bool { return o.Stats().Exported == 10 })
	close(block)
	c.Close()
	addSpans(o, 10, 10)
	eventually(t, "attempts fail", func() bool { return o.Stats().Retries >= 4 })
	if s := exact(t, o); s.Queued != 10 || s.FailingSince.IsZero() {
		t.Errorf("stats are %+v", s)
	}
	if closeWithin(t, o, 200*time.Millisecond) == nil {
		t.Error("Close says that all was sent")
	}
	if s := exact(t, o); s.Dropped[DropShutdown] != 10 {
		t.Errorf("stats are %+v", s)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "1.5": 0, "soon": 0, "99999999999": 0,
		"Tue, 01 Sep 2026 12:00:30 GMT": 30 * time.Second, "Tue, 01 Sep 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(v, now); got != want {
			t.Errorf("%q is %v, not %v", v, got, want)
		}
	}
}
