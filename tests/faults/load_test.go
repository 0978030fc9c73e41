package faults

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ambit/tests/harness"
)

const (
	serveRole = "serve"
	loadRole  = "load"

	port        = 8080
	connections = 8
	ask         = "GET /faults HTTP/1.1\r\nHost: backend\r\nUser-Agent: load/1\r\n\r\n"
	reply       = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)

// serve is the role of a server that answers every request alike, as cheaply as can be.
func serve([]string) error {
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			in := make([]byte, len(ask))
			for {
				if _, err := io.ReadFull(conn, in); err != nil {
					return
				}
				if _, err := io.WriteString(conn, reply); err != nil {
					return
				}
			}
		}()
	}
}

// load is the role of a client: so many requests a second (0 is as fast as it goes) and so many in all (0 is until
// its standard input ends). It writes the number of requests that were answered.
func load(args []string) error {
	rate, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	total, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	var taken, answered atomic.Int64
	var stop atomic.Bool
	if total == 0 {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop.Store(true)
		}()
	}
	began := time.Now()
	// next waits until another request is due. Whoever is late catches up, so the rate holds in the mean.
	next := func() bool {
		n := taken.Add(1)
		if total > 0 && n > total {
			return false
		}
		if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(rate))))
		}
		return !stop.Load()
	}
	failures := make([]error, connections)
	var running sync.WaitGroup
	for i := range connections {
		running.Go(func() {
			conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				failures[i] = err
				return
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			for next() {
				if _, failures[i] = io.WriteString(conn, ask); failures[i] != nil {
					return
				}
				if _, failures[i] = in.Discard(len(reply)); failures[i] != nil {
					return
				}
				answered.Add(1)
			}
		})
	}
	running.Wait()
	fmt.Println(answered.Load())
	return errors.Join(failures...)
}

// startServer starts a server in the namespace.
func startServer(t testing.TB, ns *harness.Namespace) {
	t.Helper()
	program, err := harness.RoleProgram(serveRole)
	must(t, err)
	_, err = ns.Start(program)
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	must(t, ns.WaitListen(ctx, port))
}

// requests makes so many requests, as fast as it goes.
func requests(t testing.TB, ns *harness.Namespace, n int) {
	t.Helper()
	program, err := harness.RoleProgram(loadRole, "0", strconv.Itoa(n))
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := ns.RunProgram(ctx, program)
	must(t, err)
	if strings.TrimSpace(out) != strconv.Itoa(n) {
		t.Fatalf("%s requests were answered, want %d", out, n)
	}
}

// traffic is a client that goes on until it is stopped.
type traffic struct {
	process *harness.Process
	stdin   *os.File
	out     bytes.Buffer
}

func startTraffic(t testing.TB, ns *harness.Namespace, perSecond int) *traffic {
	t.Helper()
	program, err := harness.RoleProgram(loadRole, strconv.Itoa(perSecond), "0")
	must(t, err)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	c := &traffic{stdin: w}
	program.Stdin, program.Stdout = r, &c.out
	c.process, err = ns.Start(program)
	must(t, err)
	t.Cleanup(func() { c.stdin.Close() })
	return c
}

// stop ends it and returns the number of requests that were answered.
func (c *traffic) stop(t testing.TB) uint64 {
	t.Helper()
	must(t, c.stdin.Close())
	must(t, c.process.Wait())
	n, err := strconv.ParseUint(strings.TrimSpace(c.out.String()), 10, 64)
	must(t, err)
	return n
}
