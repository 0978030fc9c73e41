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

// untilTerminated returns when the process is asked to end.
func untilTerminated() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	<-ctx.Done()
}

// server is the role of the answering side: TALK PORT. It ends by being killed, or with its lab.
func server(args []string) error {
	say := talks[args[0]]
	listener, err := net.Listen("tcp4", ":"+args[1])
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
				ask, answer := newVoice(&say.ask), newVoice(&say.answer)
				if ask.hearOpening(conn) != nil || answer.open(conn) != nil {
					return
				}
				for ask.hear(conn) == nil && answer.say(conn) == nil {
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
// is answered; to hold is to ask once and to stay. The last line is the number of turns that were answered.
func client(args []string) error {
	say, address := talks[args[0]], args[1]
	connections, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var turns atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	conns := make([]net.Conn, connections)
	for i := range conns {
		if conns[i], err = net.Dial("tcp4", address); err != nil {
			return err
		}
		defer conns[i].Close()
	}
	errs := make([]error, connections)
	for i, conn := range conns {
		ask, answer := newVoice(&say.ask), newVoice(&say.answer)
		if errs[i] = errors.Join(ask.open(conn), answer.hearOpening(conn)); errs[i] != nil {
			continue
		}
		turn := func() {
			if errs[i] = ask.say(conn); errs[i] == nil {
				errs[i] = answer.hear(conn)
				turns.Add(1)
			}
		}
		if args[3] == "hold" {
			turn()
			continue
		}
		wg.Go(func() {
			for errs[i] == nil && !stop.Load() {
				turn()
			}
		})
	}
	fmt.Println("ready")
	untilTerminated()
	stop.Store(true)
	wg.Wait()
	fmt.Println(turns.Load())
	return errors.Join(errs...)
}

// web is the role of a trivial HTTP server, as Go's library makes one. It speaks HTTP/2 with who knows that beforehand.
func web([]string) error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", trafficPort))
	if err != nil {
		return err
	}
	s := http.Server{
		Protocols: new(http.Protocols),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello, world\n")
		}),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() {
		err := s.Serve(listener)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}()
	fmt.Println("ready")
	untilTerminated()
	fmt.Println(0)
	return nil
}
