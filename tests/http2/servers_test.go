package http2

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// webServer is a server program that runs, and its log.
type webServer struct {
	name    string // of its service
	port    uint16
	process *harness.Process
	log     *log[line]
	app     *webServer // what it is a proxy to
	files   bool       // it serves files, whatever is wanted
}

// Ports of the servers where there are several.
const (
	goPort uint16 = iota + 8001
	nodePort
	nginxPort
	nghttpdPort
	nghttpxPort
	upstreamPort
	rpcPort
	envoyPort
)

// start starts a server and waits until it listens.
func start(t testing.TB, ns *harness.Namespace, port uint16, program harness.Program) *harness.Process {
	t.Helper()
	process, err := ns.Start(program)
	stage.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := ns.WaitListen(ctx, port); err != nil {
		t.Fatalf("%v: %s", err, process.Log())
	}
	t.Cleanup(func() { stop(t, process) })
	return process
}

// stop ends a program, so that another one may have its port.
func stop(t testing.TB, process *harness.Process) {
	t.Helper()
	process.Kill()
	select {
	case <-process.Done():
	case <-time.After(patience):
		t.Errorf("process %d does not end", process.PID())
	}
}

func newGoServer(t testing.TB, n *network, logs bool) *webServer {
	s := &webServer{name: "go-serve", port: n.port(goPort)}
	args := []string{fmt.Sprint(s.port)}
	if logs {
		s.log = &log[line]{path: filepath.Join(t.TempDir(), "log")}
		args = append(args, s.log.path)
	}
	s.process = start(t, n.server, s.port, role(t, "serve", args...))
	return s
}

func newNodeServer(t testing.TB, n *network) *webServer {
	s := &webServer{name: "server.js", port: n.port(nodePort), log: &log[line]{path: filepath.Join(t.TempDir(), "log")}}
	s.process = start(t, n.server, s.port, program(t, "node", "server.js", fmt.Sprint(s.port), s.log.path))
	return s
}

// fileTree is what servers of files have.
func fileTree(t testing.TB, dir string) string {
	t.Helper()
	root := filepath.Join(dir, "root")
	stage.Must(t,
		os.Mkdir(root, 0o755),
		os.WriteFile(filepath.Join(root, "file.txt"), []byte("a file\n"), 0o644),
		os.WriteFile(filepath.Join(root, "large.bin"), make([]byte, large), 0o644),
	)
	return root
}

func newNginx(t testing.TB, n *network) *webServer {
	t.Helper()
	return newNginxFor(t, n, 1_000_000)
}

// newNginxFor is nginx that gives a connection up after so many requests.
func newNginxFor(t testing.TB, n *network, requests int) *webServer {
	t.Helper()
	dir := t.TempDir()
	fileTree(t, dir)
	s := &webServer{name: "nginx", port: n.port(nginxPort), files: true, log: &log[line]{path: filepath.Join(dir, "log")}}
	text, err := os.ReadFile("testdata/nginx.conf")
	stage.Must(t, err)
	config := strings.NewReplacer("{{dir}}", dir, "{{port}}", fmt.Sprint(s.port), "{{requests}}", fmt.Sprint(requests)).Replace(string(text))
	stage.Must(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600))
	s.process = start(t, n.server, s.port, harness.Program{Path: "nginx", Args: []string{"-p", dir, "-c", filepath.Join(dir, "nginx.conf")}})
	return s
}

// newNghttpd is nghttp2's server, which keeps no log.
func newNghttpd(t testing.TB, n *network) *webServer {
	t.Helper()
	s := &webServer{name: "nghttpd", port: n.port(nghttpdPort), files: true}
	s.process = start(t, n.server, s.port, harness.Program{
		Path: "nghttpd", Args: []string{"--no-tls", "--htdocs", fileTree(t, t.TempDir()), fmt.Sprint(s.port)},
	})
	return s
}

// newNghttpx is nghttp2's proxy, from and to HTTP/2. It lets a connection of HTTP/1 become one of HTTP/2.
func newNghttpx(t testing.TB, n *network, app *webServer) *webServer {
	t.Helper()
	s := &webServer{name: "nghttpx", port: n.port(nghttpxPort), app: app}
	s.process = start(t, n.server, s.port, harness.Program{Path: "nghttpx", Args: []string{
		"--conf", "/dev/null", "--workers", "1", "--single-process", "--no-ocsp", "--errorlog-file", "/dev/null",
		"--frontend", fmt.Sprintf("0.0.0.0,%d;no-tls", s.port), "--backend", fmt.Sprintf("127.0.0.1,%d;;proto=h2", app.port),
	}})
	return s
}
