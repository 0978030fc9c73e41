// Package load keeps a network namespace busy while something is done to ambit: wrk over HTTP/1, and gRPC over connections
// that stay open, both checked at their ends.
package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ambit/tests/harness"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
)

const (
	// Connections is how many connections each of the two clients has.
	Connections = 10
	// Service is the one that is called, Methods how many methods it has.
	Service = "ambit.Busy"
	Methods = 40

	httpPort, rpcPort = 8080, 9090
	// between is the time between two calls of a connection.
	between = 10 * time.Millisecond
)

// Roles are what the test's program has to dispatch.
var Roles = harness.Roles{"busy-http": serveHTTP, "busy-rpc": serveRPC, "busy-calls": call}

func serveHTTP([]string) error {
	return http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", httpPort), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "ok")
	}))
}

func serveRPC([]string) error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", rpcPort))
	if err != nil {
		return err
	}
	return grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var message grpc_testing.Empty
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		return stream.SendMsg(&message)
	})).Serve(listener)
}

// Called is what the caller says at its end.
type Called struct {
	Calls  int64
	Errors int64
	First  string // error
}

// call has Connections connections call until its standard input ends.
func call([]string) error {
	var done Called
	var calls, failed atomic.Int64
	var first atomic.Pointer[string]
	var over atomic.Bool
	var running sync.WaitGroup
	for c := range Connections {
		conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", rpcPort), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		running.Go(func() {
			for turn := c; !over.Load(); turn++ {
				// Values that come back and some that don't, so that both ends' tables are filled and emptied.
				headers := metadata.Pairs("x-kind", strconv.Itoa(turn%7), "x-turn", fmt.Sprintf("%d-%d", c, turn))
				limit, cancel := context.WithTimeout(metadata.NewOutgoingContext(context.Background(), headers), 20*time.Second)
				err := conn.Invoke(limit, fmt.Sprintf("/%s/Method%d", Service, turn%Methods), &grpc_testing.Empty{}, &grpc_testing.Empty{})
				cancel()
				calls.Add(1)
				if err != nil {
					text := err.Error()
					failed.Add(1)
					first.CompareAndSwap(nil, &text)
				}
				time.Sleep(between)
			}
		})
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	over.Store(true)
	running.Wait()
	done.Calls, done.Errors = calls.Load(), failed.Load()
	if text := first.Load(); text != nil {
		done.First = *text
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(done)
}

// Load is a namespace that is busy.
type Load struct {
	enter []string
	wrk   *running
	calls *running
	input io.WriteCloser
}

type running struct {
	*exec.Cmd
	out bytes.Buffer
}

// Start starts servers and clients in the network namespace that the command enter, which runs what is appended to it, is
// in. They end with the test at the latest.
func Start(t testing.TB, enter ...string) *Load {
	t.Helper()
	l := &Load{enter: enter}
	self, err := os.Executable()
	must(t, err)
	for port, name := range map[int]string{httpPort: "busy-http", rpcPort: "busy-rpc"} {
		l.start(t, nil, self, "lab-role", name)
		l.listens(t, port)
	}
	l.wrk = l.start(t, nil, "wrk", "-t1", "-c", fmt.Sprint(Connections), "-d", "600s", fmt.Sprintf("http://127.0.0.1:%d/busy", httpPort))
	reader, writer := io.Pipe()
	l.input = writer
	l.calls = l.start(t, reader, self, "lab-role", "busy-calls")
	return l
}

func (l *Load) start(t testing.TB, input io.Reader, program string, args ...string) *running {
	t.Helper()
	words := append(append([]string{}, l.enter...), append([]string{program}, args...)...)
	r := &running{Cmd: exec.Command(words[0], words[1:]...)}
	r.Stdin, r.Stdout, r.Stderr = input, &r.out, &r.out
	r.WaitDelay = time.Second
	r.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	must(t, r.Start())
	t.Cleanup(func() {
		if r.ProcessState == nil {
			_ = unix.Kill(-r.Process.Pid, unix.SIGKILL)
			_ = r.Wait()
		}
	})
	return r
}

// listens waits for a listener without a connection, which would be traced.
func (l *Load) listens(t testing.TB, port int) {
	t.Helper()
	words := append(append([]string{}, l.enter...), "cat", "/proc/net/tcp")
	listener := regexp.MustCompile(fmt.Sprintf(`:%04X [0-9A-F]{8}:[0-9A-F]{4} 0A `, port))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).Output()
		if err == nil && listener.Match(out) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens on port %d: %v", port, err)
		}
	}
}

// Done is what the clients counted.
type Done struct {
	Requests uint64 // whole ones of wrk; up to Connections more were cut off
	Calls    uint64
}

var wrkCounted = regexp.MustCompile(`(\d+) requests in`)

// Stop ends the clients, and fails the test if one of them met an error.
func (l *Load) Stop(t testing.TB) Done {
	t.Helper()
	must(t, unix.Kill(-l.wrk.Process.Pid, unix.SIGINT), l.input.Close())
	if err := l.calls.Wait(); err != nil {
		t.Fatalf("the caller: %v: %s", err, l.calls.out.String())
	}
	var called Called
	must(t, json.Unmarshal(l.calls.out.Bytes(), &called))
	if called.Errors > 0 {
		t.Errorf("%d of %d calls failed: %s", called.Errors, called.Calls, called.First)
	}
	_ = l.wrk.Wait() // by the signal
	text := l.wrk.out.String()
	found := wrkCounted.FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("wrk says no number of requests: %s", text)
	}
	if regexp.MustCompile(`Socket errors|Non-2xx`).MatchString(text) {
		t.Errorf("wrk met errors: %s", text)
	}
	requests, err := strconv.ParseUint(found[1], 10, 64)
	must(t, err)
	return Done{Requests: requests, Calls: uint64(called.Calls)}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
