package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	serverRole = "server"
	clientRole = "client"
	webRole    = "web"
)

const trafficPort = 8080

// headBytes is the size of every head of a talk's HTTP.
const headBytes = 200

// talk is what client and server say, over and over: fixed bytes, so that what they do themselves is little.
type talk struct{ ask, answer []byte }

var talks = map[string]talk{
	"http": {
		ask:    head("GET /api/v1/users/12345?fields=name HTTP/1.1", "Host: backend.shop.svc.cluster.local:8080", "User-Agent: bench/1.0", "Accept: */*"),
		answer: append(head("HTTP/1.1 200 OK", "Content-Type: application/json", "Content-Length: 13", "Date: Mon, 23 Nov 2026 10:00:00 GMT"), "hello, world\n"...),
	},
	"traceparent": {
		ask: head("GET /api/v1/users/12345 HTTP/1.1", "Host: backend:8080", "User-Agent: bench/1.0",
			"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
		answer: append(head("HTTP/1.1 200 OK", "Content-Type: application/json", "Content-Length: 13", "Date: Mon, 23 Nov 2026 10:00:00 GMT"), "hello, world\n"...),
	},
	// Records of TLS application data, as far as anybody can see from outside.
	"binary": {ask: record(headBytes), answer: record(headBytes + 13)},
}

// head is a message's head of headBytes, filled up by a header that means nothing.
func head(lines ...string) []byte {
	const filler = "Accept-Language: "
	text := strings.Join(lines, "\r\n") + "\r\n" + filler
	missing := headBytes - len(text) - len("\r\n\r\n")
	if missing < 1 {
		panic(fmt.Sprintf("a head of %d bytes is too long by %d", headBytes, 1-missing))
	}
	return []byte(text + strings.Repeat("e", missing) + "\r\n\r\n")
}

func record(size int) []byte {
	b := []byte{23, 3, 3, byte(size >> 8), byte(size)}
	for len(b) < size {
		b = append(b, byte(len(b)*167))
	}
	return b
}

// untilTerminated returns when the process is asked to end.
func untilTerminated() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	<-ctx.Done()
}

// server is the role of the answering side: TALK. It ends by being killed, or with its lab.
func server(args []string) error {
	say := talks[args[0]]
	listener, err := net.Listen("tcp4", fmt.Sprintf(":%d", trafficPort))
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, len(say.ask))
				for {
					if _, err := io.ReadFull(conn, buffer); err != nil {
						return
					}
					if _, err := conn.Write(say.answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	fmt.Println("ready")
	untilTerminated()
	fmt.Println(0)
	return nil
}

// client is the role of the asking side: TALK ADDRESS CONNECTIONS loop|hold. Each connection asks again as soon as it
// is answered; to hold is to ask once and to stay. The last line is the number of answers.
func client(args []string) error {
	say, address := talks[args[0]], args[1]
	connections, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var answers atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	conns := make([]net.Conn, connections)
	for i := range conns {
		if conns[i], err = net.Dial("tcp4", address); err != nil {
			return err
		}
		defer conns[i].Close()
	}
	exchange := func(conn net.Conn, buffer []byte) error {
		if _, err := conn.Write(say.ask); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, buffer)
		answers.Add(1)
		return err
	}
	errs := make([]error, connections)
	if args[3] == "hold" {
		buffer := make([]byte, len(say.answer))
		for i, conn := range conns {
			errs[i] = exchange(conn, buffer)
		}
	} else {
		for i, conn := range conns {
			wg.Go(func() {
				for buffer := make([]byte, len(say.answer)); errs[i] == nil && !stop.Load(); {
					errs[i] = exchange(conn, buffer)
				}
			})
		}
	}
	fmt.Println("ready")
	untilTerminated()
	stop.Store(true)
	wg.Wait()
	fmt.Println(answers.Load())
	return errors.Join(errs...)
}

// web is the role of a trivial HTTP server, as Go's library makes one.
func web([]string) error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", trafficPort))
	if err != nil {
		return err
	}
	go func() {
		err := http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello, world\n")
		}))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}()
	fmt.Println("ready")
	untilTerminated()
	fmt.Println(0)
	return nil
}
