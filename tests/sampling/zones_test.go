package sampling

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

const (
	portH2       = 8081
	zoneRoutes   = 250 // of each of its servers
	zoneMethods  = 5
	wrkThreads   = 3
	h2loadConns  = 5
	h2loadStream = 10
)

// zone is a namespace with a server of HTTP/1 and one of HTTP/2, each of which has 250 routes; wrk and h2load call them.
type zone struct {
	name  string
	ns    *harness.Namespace
	paths string // file of h2load's targets
}

// serveH2 is the role of a server of HTTP/2 in the clear, on a port of all addresses.
func serveH2(args []string) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Addr: ":" + args[0], Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok")) // the client's count tells
	})}
	return server.ListenAndServe()
}

func newZone(t testing.TB, lab *harness.Lab, name string) *zone {
	t.Helper()
	ns, err := lab.Namespace(name)
	stage.Must(t, err)
	z := &zone{name: name, ns: ns, paths: filepath.Join(t.TempDir(), name)}
	startServer(t, ns, "serve", port)
	startServer(t, ns, "serve-h2", portH2)
	var list strings.Builder
	for i := range zoneRoutes {
		fmt.Fprintf(&list, "http://127.0.0.1:%d/%s/h%d/%d\n", portH2, name, i, i*i)
	}
	stage.Must(t, os.WriteFile(z.paths, []byte(list.String()), 0o600))
	return z
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

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// wrk sends each route of the HTTP/1 server so many requests.
func (z *zone) wrk(ctx context.Context, each int) error {
	said, want := new(output), zoneRoutes*each*wrkThreads
	process, err := z.ns.Start(harness.Program{
		Path: "wrk", Stdout: said,
		Args: []string{
			"-t", fmt.Sprint(wrkThreads), "-c", fmt.Sprint(wrkThreads), "-d", "100s", "-s", "testdata/routes.lua",
			fmt.Sprintf("http://127.0.0.1:%d", port), "--", fmt.Sprint(zoneRoutes * each), z.name,
		},
	})
	if err != nil {
		return err
	}
	for strings.Count(said.String(), "a thread is done\n") < wrkThreads {
		select {
		case <-process.Done():
			return fmt.Errorf("wrk ended: %w: %s", process.Wait(), process.Log())
		case <-ctx.Done():
			return fmt.Errorf("wait for wrk: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := process.Signal(unix.SIGINT); err != nil {
		return err
	}
	if err := process.Wait(); err != nil {
		return fmt.Errorf("wrk: %w: %s", err, process.Log())
	}
	var total, failed int
	_, result, _ := strings.Cut(said.String(), "told ")
	if _, err := fmt.Sscan(result, &total, &failed); err != nil || total != want || failed > 0 {
		return fmt.Errorf("wrk should have sent %d requests: %q: %w", want, said, err)
	}
	return nil
}

// h2load sends each route of the HTTP/2 server so many requests.
func (z *zone) h2load(ctx context.Context, each int) error {
	out, err := z.ns.Run(ctx, "h2load", "--requests", fmt.Sprint(zoneRoutes*each*h2loadConns), "--clients", fmt.Sprint(h2loadConns),
		"--threads", "1", "--max-concurrent-streams", fmt.Sprint(h2loadStream), "--no-tls-proto", "h2c", "--input-file", z.paths)
	if err != nil {
		return err
	}
	want := fmt.Sprintf("%[1]d succeeded, 0 failed, 0 errored, 0 timeout", zoneRoutes*each*h2loadConns)
	if !strings.Contains(out, want) {
		return fmt.Errorf("h2load does not say %q: %s", want, out)
	}
	return nil
}

// routes are those that a zone has, as "METHOD TEMPLATE", with how many requests each gets where every client's connection
// sends it each.
func (z *zone) routes(each int) map[string]int {
	routes := make(map[string]int, 2*zoneRoutes)
	for i := range zoneRoutes {
		method := []string{"GET", "POST", "PUT", "PATCH", "DELETE"}[i%zoneMethods]
		routes[fmt.Sprintf("%s /%s/w%d/{number}", method, z.name, i/zoneMethods)] = each * wrkThreads
		routes[fmt.Sprintf("GET /%s/h%d/{number}", z.name, i)] = each * h2loadConns
	}
	return routes
}
