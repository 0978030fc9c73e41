// Package http2 holds ambit to real programs that speak HTTP/2 and gRPC in the clear: what they log, and nothing else,
// has to be on the spans.
package http2

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// patience bounds what a program may take to start or to end.
const patience = 10 * time.Second

func TestMain(m *testing.M) {
	harness.Roles{
		harness.ZtunnelRole: harness.Ztunnel,
		"serve":             serve,
		"fetch":             fetch,
		"flow":              flow,
		"rpc-serve":         serveRPC,
		"rpc-call":          callRPC,
		"rpc-flow":          flowRPC,
	}.Dispatch()
	os.Exit(stage.Main(m))
}

// role is this program as another one, under a name of its own.
func role(t testing.TB, name string, args ...string) harness.Program {
	t.Helper()
	p, err := harness.RoleProgram(name, args...)
	stage.Must(t, err)
	p.Env = []string{"OTEL_SERVICE_NAME=go-" + name}
	return p
}

// program is one that is run in testdata.
func program(t testing.TB, path string, args ...string) harness.Program {
	t.Helper()
	here, err := os.Getwd()
	stage.Must(t, err)
	return harness.Program{Path: path, Args: args, Dir: filepath.Join(here, "testdata")}
}

// installed is where .ci/registry keeps what came from a language's registry.
func installed(t testing.TB, path string) string {
	t.Helper()
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		base = "/var/cache"
		if home, err := os.UserHomeDir(); err == nil {
			base = filepath.Join(home, ".cache")
		}
	}
	full := filepath.Join(base, "ambit-http2", path)
	if _, err := os.Stat(full); err != nil {
		t.Fatalf("%v: run .ci/registry", err)
	}
	return full
}

// output is what a program writes, to be read while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// whole is what was written up to the end of a line.
func (o *output) whole() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.text.Bytes()
	return bytes.Clone(text[:bytes.LastIndexByte(text, '\n')+1])
}
