package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// webServer is a server program that runs, and its log.
type webServer struct {
	name    string // of its service
	port    uint16
	log     string // a file
	read    int    // lines that were taken
	process *harness.Process
	app     *webServer // what it is a proxy to
	files   bool       // it serves files, whatever is wanted
}

// Ports of the servers, in a namespace of their own.
const (
	goPort uint16 = iota + 8001
	nodePort
	pythonPort
	nginxFilesPort
	nginxProxyPort
	upstreamPort
)

// start starts a server in a namespace and waits until it listens.
func (s *webServer) start(t testing.TB, ns *harness.Namespace, program harness.Program) {
	t.Helper()
	var err error
	s.process, err = ns.Start(program)
	stage.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := ns.WaitListen(ctx, s.port); err != nil {
		t.Fatalf("%v: %s", err, s.process.Log())
	}
}

func program(t testing.TB, path string, args ...string) harness.Program {
	t.Helper()
	here, err := os.Getwd()
	stage.Must(t, err)
	return harness.Program{Path: path, Args: args, Dir: filepath.Join(here, "testdata")}
}

// role is this program as another one, under a name of its own.
func role(t testing.TB, name string, args ...string) harness.Program {
	t.Helper()
	p, err := harness.RoleProgram(name, args...)
	stage.Must(t, err)
	p.Env = []string{"OTEL_SERVICE_NAME=go-" + name}
	return p
}

// python is Debian's: others may be found earlier in $PATH.
const python = "/usr/bin/python3"

func newGoServer(t testing.TB, ns *harness.Namespace, port uint16) *webServer {
	s := &webServer{name: "go-serve", port: port, log: filepath.Join(t.TempDir(), "log")}
	s.start(t, ns, role(t, "serve", fmt.Sprint(port), s.log))
	return s
}

func newNodeServer(t testing.TB, ns *harness.Namespace) *webServer {
	s := &webServer{name: "server.js", port: nodePort, log: filepath.Join(t.TempDir(), "log")}
	s.start(t, ns, program(t, "node", "server.js", fmt.Sprint(s.port), s.log))
	return s
}

func newPythonServer(t testing.TB, ns *harness.Namespace) *webServer {
	s := &webServer{name: "server.py", port: pythonPort, log: filepath.Join(t.TempDir(), "log")}
	s.start(t, ns, program(t, python, "server.py", fmt.Sprint(s.port), s.log))
	return s
}

// newNginx is nginx with files, and as a proxy before an application: two servers of one process.
func newNginx(t testing.TB, ns *harness.Namespace, app *webServer) (static, proxy *webServer) {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile("testdata/nginx.conf")
	stage.Must(t, err)
	config := strings.NewReplacer("{{dir}}", dir, "{{upstream}}", fmt.Sprintf("127.0.0.1:%d", app.port),
		"{{static}}", fmt.Sprint(nginxFilesPort), "{{proxy}}", fmt.Sprint(nginxProxyPort)).Replace(string(text))
	stage.Must(t,
		os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600),
		os.MkdirAll(filepath.Join(dir, "root/dir"), 0o755),
		os.WriteFile(filepath.Join(dir, "root/file.txt"), []byte("a file\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "root/large.bin"), make([]byte, 300_000), 0o644),
	)
	static = &webServer{name: "nginx", port: nginxFilesPort, log: filepath.Join(dir, "files.log"), files: true}
	static.start(t, ns, harness.Program{Path: "nginx", Args: []string{"-p", dir, "-c", filepath.Join(dir, "nginx.conf")}})
	proxy = &webServer{name: "nginx", port: nginxProxyPort, log: filepath.Join(dir, "proxy.log"), process: static.process, app: app}
	return static, proxy
}

// all waits until the server has logged n requests more, and returns them.
func (s *webServer) all(t testing.TB, n int) []line {
	t.Helper()
	var all []line
	stage.Wait(t, s.name+" has logged its requests", func() error {
		log, err := os.ReadFile(s.log)
		if err != nil {
			return err
		}
		whole := log[:strings.LastIndexByte(string(log), '\n')+1]
		if all, err = parse(whole); err != nil {
			return err
		}
		if len(all) < s.read+n {
			return fmt.Errorf("it has logged %d, want %d: %s", len(all)-s.read, n, s.process.Log())
		}
		return nil
	})
	if len(all) != s.read+n {
		t.Errorf("%s has logged %d requests, want %d", s.name, len(all)-s.read, n)
	}
	all = all[s.read:]
	s.read += len(all)
	return all
}

// lines are those of all, by the requests' IDs.
func (s *webServer) lines(t testing.TB, n int) map[string]line {
	t.Helper()
	byID := make(map[string]line, n)
	for _, l := range s.all(t, n) {
		switch { // what nginx counts as a body
		case l.Framing == "chunked":
			l.Sent = -1
		case l.Expect != "":
			l.Sent -= int64(len("HTTP/1.1 100 Continue\r\n\r\n"))
		}
		byID[l.ID] = l
	}
	return byID
}

// connections says where a client of the server goes: to both address families.
func (s *webServer) connections(name string, first, second []asked) []connection {
	at := func(address netip.Addr, name string, requests []asked) connection {
		return connection{
			Address: address, Port: s.port, Host: netip.AddrPortFrom(address, s.port).String(), Requests: numbered(name, requests),
		}
	}
	return []connection{at(serverIP4, name+" v4", first), at(serverIP6, name+" v6", second)}
}
