// Package jaeger has a real Jaeger tell ambit its sampling strategies, and a real OpenTelemetry SDK ask ambit for them.
// Compiling Jaeger takes some minutes the first time.
package jaeger

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit/admin"
	"ambit/tests/e2e/stage"
	"ambit/tests/harness"

	"go.opentelemetry.io/contrib/samplers/jaegerremote"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func TestMain(m *testing.M) {
	harness.Roles{"front": serve, "ask": ask}.Dispatch()
	os.Exit(stage.Main(m))
}

const port = 8080

// serve is the role of a server.
func serve([]string) error {
	return http.ListenAndServe(fmt.Sprintf(":%d", port), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "ok")
	}))
}

// ask is the role of a client: some requests a second, of three kinds.
func ask([]string) error {
	for range time.Tick(5 * time.Millisecond) {
		for _, path := range []string{"work", "other", "always"} {
			answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", port, path))
			if err != nil {
				return err
			}
			answer.Body.Close()
		}
	}
	return nil
}

const strategies = `{
  "service_strategies": [{
    "service": "front", "type": "probabilistic", "param": 0.125,
    "operation_strategies": [{"operation": "GET /work", "type": "probabilistic", "param": 0.5}]
  }],
  "default_strategy": {"type": "probabilistic", "param": 0.03125}
}`

// freePort is a TCP port of loopback that is free now.
func freePort(t *testing.T) string {
	t.Helper()
	free, err := harness.FreePort()
	stage.Must(t, err)
	return free.String()
}

// startJaeger builds Jaeger and starts it with these strategies. It answers where they are told over HTTP and over gRPC.
func startJaeger(t *testing.T, host *harness.Namespace) (overHTTP, overGRPC string) {
	t.Helper()
	dir := t.TempDir()
	binary, file := filepath.Join(dir, "jaeger"), filepath.Join(dir, "strategies.json")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/jaegertracing/jaeger/cmd/all-in-one")
	build.Dir = "server" // a module of its own
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build Jaeger: %v\n%s", err, out)
	}
	stage.Must(t, os.WriteFile(file, []byte(strategies), 0o600))
	overHTTP, overGRPC = freePort(t), freePort(t)
	process, err := host.Start(harness.Program{Path: binary, Env: []string{"SPAN_STORAGE_TYPE=memory"}, Args: []string{
		"--sampling.strategies-file=" + file, "--collector.http-server.host-port=" + overHTTP, "--collector.grpc-server.host-port=" + overGRPC,
		"--collector.otlp.enabled=false", "--admin.http.host-port=" + freePort(t), "--query.http-server.host-port=" + freePort(t),
		"--query.grpc-server.host-port=" + freePort(t),
	}})
	stage.Must(t, err)
	stage.Wait(t, "Jaeger listens", func() error {
		conn, err := net.Dial("tcp", overGRPC)
		if err != nil {
			return fmt.Errorf("%w: %s", err, process.Log())
		}
		return conn.Close()
	})
	return overHTTP, overGRPC
}

// sampled is the share of root spans of this name that an SDK keeps, as it is told by ambit.
func sampled(t *testing.T, url, name string) float64 {
	t.Helper()
	sampler := jaegerremote.New("front", jaegerremote.WithSamplingServerURL(url), jaegerremote.WithSamplingRefreshInterval(50*time.Millisecond),
		jaegerremote.WithInitialSampler(sdktrace.NeverSample()), jaegerremote.WithLogger(logger(t)))
	defer sampler.Close()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler))
	defer func() { stage.Must(t, provider.Shutdown(context.Background())) }()
	tracer := provider.Tracer("test")
	time.Sleep(time.Second) // it asks by itself
	const spans = 20000
	kept := 0
	for range spans {
		_, span := tracer.Start(t.Context(), name, trace.WithSpanKind(trace.SpanKindServer))
		if span.SpanContext().IsSampled() {
			kept++
		}
		span.End()
	}
	return float64(kept) / spans
}

// Jaeger says the rates, ambit's kernel programs keep so much, and an SDK that asks ambit does too; a rule stands above
// what Jaeger says.
func TestOneDecision(t *testing.T) {
	lab := stage.NewLab(t)
	host, err := lab.Host()
	stage.Must(t, err)
	overHTTP, overGRPC := startJaeger(t, host)
	for name, endpoint := range map[string]string{"HTTP": "http://" + overHTTP + "/api/sampling", "gRPC": "grpc://" + overGRPC} {
		t.Run(name, func(t *testing.T) {
			lab := stage.NewLab(t)
			ns, err := lab.Namespace("jaeger")
			stage.Must(t, err)
			stage.StartRole(t, ns, nil, port, "front")
			config := filepath.Join(t.TempDir(), "ambit.yaml")
			stage.Must(t, os.WriteFile(config, []byte(`sampling: {load: off, rules: [{name: always, match: {path: {exact: [/always]}}, rate: 0.75}]}`), 0o600))
			listen := freePort(t)
			st := stage.Start(t, stage.Config{Lab: lab, Namespaces: []*harness.Namespace{ns}, Flags: []string{
				"--config", config, "--remote-endpoint", endpoint, "--remote-interval", "1s", "--remote-listen", listen,
			}})
			stage.StartRole(t, ns, nil, 0, "ask")
			want := map[string]float64{"/work": 0.5, "/other": 0.125}
			stage.Wait(t, "the rates are Jaeger's", func() error {
				seen := make(map[string]bool)
				for _, r := range st.Rates(t, admin.RatesQuery{Limit: 100, Service: "front"}).Routes {
					seen[r.Route] = true
					if rate, ok := want[r.Route]; ok && r.Kind == "SERVER" && (r.Reason != "remote" || r.Rate == nil || *r.Rate != rate) {
						return fmt.Errorf("of %s it is %v, for %s", r.Route, r.Rate, r.Reason)
					} else if r.Route == "/always" && r.Reason != "rule" {
						return fmt.Errorf("of the rule's route it is for %s", r.Reason)
					}
				}
				for _, route := range []string{"/work", "/other", "/always"} {
					if !seen[route] {
						return fmt.Errorf("%s has no rate yet", route)
					}
				}
				return nil
			})
			before := st.Metrics(t)
			time.Sleep(5 * time.Second)
			now := st.Metrics(t)
			want["/always"] = 0.75
			for route, rate := range want {
				labels := fmt.Sprintf(`kind="SERVER",method="GET",route="%s",service="front"`, route)
				of := func(name string) (sum float64) {
					for series, n := range now {
						if strings.HasPrefix(series, name+"{") && strings.Contains(series, labels) {
							sum += n - before[series]
						}
					}
					return sum
				}
				all, kept := of("ambit_request_duration_seconds_count"), of("ambit_request_kept_total")
				if off := math.Abs(kept/all - rate); all < 300 || off > 4*math.Sqrt(rate*(1-rate)/all) {
					t.Errorf("of %s the kernel kept %.0f of %.0f, want the share %v: %+v", route, kept, all, rate, st.Rates(t, admin.RatesQuery{Limit: 100, Service: "front", Route: route}).Routes)
				}
				if got := sampled(t, "http://"+listen+"/sampling", "GET "+route); math.Abs(got-rate) > 0.02 {
					t.Errorf("of %s the SDK keeps %v, want %v", route, got, rate)
				}
			}
		})
	}
}
