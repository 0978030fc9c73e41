package http2

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// newEnvoy is Envoy in front of a server, which it asks as http2.example by HTTP/2 and as http1.example by HTTP/1.
func newEnvoy(t testing.TB, n *network, app *webServer) *webServer {
	t.Helper()
	text, err := os.ReadFile("testdata/envoy.yaml")
	stage.Must(t, err)
	s := &webServer{name: "envoy", port: envoyPort, app: app}
	config := filepath.Join(t.TempDir(), "envoy.yaml")
	stage.Must(t, os.WriteFile(config, []byte(strings.NewReplacer(
		"{{port}}", fmt.Sprint(s.port), "{{server}}", fmt.Sprint(app.port),
	).Replace(string(text))), 0o600))
	found, err := filepath.Glob(installed(t, "python/lib") + "/python3*/site-packages/envoy/_bin/envoy")
	stage.Must(t, err)
	if len(found) != 1 {
		t.Fatalf("envoy is in %v", found)
	}
	s.process = start(t, n.server, s.port, harness.Program{Path: found[0], Args: []string{
		"--config-path", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error",
	}})
	return s
}

// A proxy between HTTP/1 and HTTP/2: each hop is an exchange of its own, in its own version.
func TestEnvoy(t *testing.T) {
	n := cable(t)
	st := n.stage(t)
	app := newGoServer(t, n, true)
	proxy := newEnvoy(t, n, app)
	for _, c := range []struct {
		name, flag       string
		authority        string
		version, onwards string
	}{
		{"HTTP/1 to HTTP/2", "--http1.1", "http2.example:81", "1.1", "2"},
		{"HTTP/2 to HTTP/1", "--http2-prior-knowledge", "http1.example:81", "2", "1.1"},
		{"HTTP/2 to HTTP/2", "--http2-prior-knowledge", "http2.example:81", "2", "2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, target := n.addresses(proxy.port)
			plan := connection{Address: target.String(), Authority: c.authority, Streams: 1, Requests: numbered(byCurl, 1), alone: true}
			clientLines := map[string]line{}
			for _, r := range plan.Requests {
				one := plan
				one.Requests = []asked{r}
				lines, _ := curlBy(t, n, one, c.flag)
				clientLines[r.Target] = lines[r.Target]
			}
			behind := app.hops(t, n, plan, clientLines, [2]string{proxy.name, app.name})
			hops := make([]hop, len(behind))
			for i := range behind {
				h := &hops[i]
				*h = behind[i]
				h.services, h.version = [2]string{"curl", proxy.name}, c.version
				h.source, h.local, h.target = n.addresses(proxy.port)
				h.server = line{Agent: behind[i].server.Agent, Received: -1, Sent: behind[i].server.Sent}
				b := &behind[i]
				b.proxied, b.version = true, c.onwards
				b.source, b.local, b.target = own(app.port)
				// Envoy makes an ID where there is none.
				if id := b.server.RequestID; id == "" {
					t.Errorf("%s came without a request ID", b.asked.Target)
				}
			}
			hops = append(hops, behind...)
			spans, counts := st.Spans(t, 2*len(hops))
			if counts.DroppedTotal() > 0 {
				t.Errorf("exchanges were dropped: %v", counts)
			}
			verify(t, spans, hops)
		})
	}
}
