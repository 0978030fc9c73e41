package topology

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/harness"
)

const (
	serveRole = "serve"
	loadRole  = "load"
)

const body = "an answer to everything"

// serve is the role of an HTTP server on a port of all addresses. With a second argument it accepts connections
// only once their first bytes are there, as nginx and Apache can.
func serve(args []string) error {
	var config net.ListenConfig
	if len(args) > 1 {
		config.SetMultipathTCP(false)
		config.Control = func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 5)
			})
			return errors.Join(err, failed)
		}
	}
	listener, err := config.Listen(context.Background(), "tcp", ":"+args[0])
	if err != nil {
		return err
	}
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, body)
	}))
}

// work is what a client is to do. Request number n asks for "/HEADERS/n".
type work struct {
	Target        netip.AddrPort
	Requests      int
	Connections   int      // at once
	PerConnection int      // requests before it makes a new one, 0 is all
	ServerCloses  bool     // by "Connection: close" with the last one
	Headers       []string // the kinds of tracing headers, in turn
	UID           uint32   // who does it, 0 is root
}

// Kinds of tracing headers.
const (
	headersNone      = "none"
	headersRequestID = "x-request-id"
	headersB3        = "b3"          // it leaves the decision to the next
	headersParent    = "traceparent" // every other eight requests are sampled
)

// kindOf tells the kind of tracing headers from a request's path.
func kindOf(path string) string {
	return strings.SplitN(path, "/", 3)[1]
}

// header is the tracing header of request n, with its line end.
func header(kind string, n int) string {
	a, b := rand.Uint64()|1, rand.Uint64()|1
	switch kind {
	case headersRequestID:
		return fmt.Sprintf("x-request-id: %016x-%016x\r\n", a, b)
	case headersB3:
		return fmt.Sprintf("b3: %016x%016x-%016x\r\n", a, b, rand.Uint64()|1)
	case headersParent:
		return fmt.Sprintf("traceparent: 00-%016x%016x-%016x-%02x\r\n", a, b, rand.Uint64()|1, sampledFlag(n))
	}
	return ""
}

// sampledFlag is the caller's decision for request n.
func sampledFlag(n int) int { return n >> 3 & 1 }

// load is the role of a client: it reads its work as JSON from the standard input and does it.
func load([]string) error {
	var w work
	if err := json.NewDecoder(os.Stdin).Decode(&w); err != nil {
		return fmt.Errorf("read the work: %w", err)
	}
	var wg sync.WaitGroup
	failures := make([]error, w.Connections)
	for c := range w.Connections {
		wg.Go(func() {
			// Each connection has its own share of the numbers.
			failures[c] = w.requests(c*w.Requests/w.Connections, (c+1)*w.Requests/w.Connections)
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}

// requests makes the requests from number n on, until end.
func (w work) requests(n, end int) error {
	for n < end {
		last := end
		if w.PerConnection > 0 {
			last = min(end, n+w.PerConnection)
		}
		if err := w.connection(n, last); err != nil {
			return fmt.Errorf("requests %d to %d: %w", n, last, err)
		}
		n = last
	}
	return nil
}

// connection makes the requests from number n to end on a connection of their own.
func (w work) connection(n, end int) error {
	conn, err := net.DialTimeout("tcp", w.Target.String(), 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for ; n < end; n++ {
		kind, closing := w.Headers[n%len(w.Headers)], ""
		if w.ServerCloses && n == end-1 {
			closing = "Connection: close\r\n"
		}
		if _, err := fmt.Fprintf(conn, "GET /%s/%d HTTP/1.1\r\nHost: example.test\r\n%s%s\r\n", kind, n, header(kind, n), closing); err != nil {
			return err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(response.Body)
		if err != nil || string(got) != body {
			return fmt.Errorf("the answer was %q: %w", got, err)
		}
	}
	return nil
}

// startServer starts a server in the namespace and waits until it listens.
func startServer(t testing.TB, ns *harness.Namespace, port uint16, deferred ...string) *harness.Process {
	t.Helper()
	program, err := harness.RoleProgram(serveRole, append([]string{fmt.Sprint(port)}, deferred...)...)
	if err != nil {
		t.Fatal(err)
	}
	process, err := ns.Start(program)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := ns.WaitListen(ctx, port); err != nil {
		t.Fatalf("%v: %s", err, process.Log())
	}
	return process
}

// do makes a client in the namespace do the work.
func do(t testing.TB, ns *harness.Namespace, w work) {
	t.Helper()
	if err := try(ns, w); err != nil {
		t.Fatal(err)
	}
}

// try is do for goroutines that are not the test's own.
func try(ns *harness.Namespace, w work) error {
	w.Connections = max(w.Connections, 1)
	if len(w.Headers) == 0 {
		w.Headers = []string{headersNone}
	}
	order, err := json.Marshal(w)
	if err != nil {
		return err
	}
	program, err := harness.RoleProgram(loadRole)
	if err != nil {
		return err
	}
	program.Stdin, program.UID = strings.NewReader(string(order)), w.UID
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	_, err = ns.RunProgram(ctx, program)
	return err
}
