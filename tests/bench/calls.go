package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"ambit/tests/harness"
)

const (
	callServerRole = "call-server"
	callClientRole = "call-client"
)

// How many connections the client of gRPC has, and how many goroutines call on each.
const (
	callConnections = 2
	callGoroutines  = 8
)

// callBytes is the payload of a request and of a response.
const callBytes = 16

// callServer is the role of a server of gRPC's own test service, of which it knows one method.
func callServer([]string) error {
	listener, err := net.Listen("tcp4", fmt.Sprintf(":%d", trafficPort))
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(s, answering{})
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

type answering struct {
	testgrpc.UnimplementedTestServiceServer
}

func (answering) UnaryCall(_ context.Context, r *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return &testgrpc.SimpleResponse{Payload: r.GetPayload()}, nil
}

// callClient is the role of a client of it: ADDRESS DURATION. It ends by itself; its one line is the number of calls,
// the seconds that they took together, and the percentiles of one in nanoseconds.
func callClient(args []string) error {
	duration, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	var clients []testgrpc.TestServiceClient
	for range callConnections {
		conn, err := grpc.NewClient("passthrough:///"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			return err
		}
		defer conn.Close()
		clients = append(clients, testgrpc.NewTestServiceClient(conn))
	}
	request := &testgrpc.SimpleRequest{Payload: &testgrpc.Payload{Body: make([]byte, callBytes)}}
	took := make([][]time.Duration, callConnections*callGoroutines)
	errs := make([]error, len(took))
	began := time.Now()
	var wg sync.WaitGroup
	for i := range took {
		wg.Go(func() {
			for from := time.Now(); errs[i] == nil && from.Sub(began) < duration; {
				_, errs[i] = clients[i%callConnections].UnaryCall(context.Background(), request)
				now := time.Now()
				took[i] = append(took[i], now.Sub(from))
				from = now
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	seconds := time.Since(began).Seconds()
	p50, p99 := percentiles(all)
	fmt.Println(len(all), seconds, int64(p50), int64(p99))
	return errors.Join(errs...)
}

// calls has the client call the server at address, from the namespace.
func calls(ctx context.Context, ns *harness.Namespace, address string, duration time.Duration) (load, error) {
	program, err := harness.RoleProgram(callClientRole, address, duration.String())
	if err != nil {
		return load{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, duration+20*time.Second)
	defer cancel()
	text, err := ns.Run(ctx, program.Path, program.Args...)
	if err != nil {
		return load{}, err
	}
	var l load
	var seconds float64
	if _, err := fmt.Sscan(text, &l.requests, &seconds, &l.p50, &l.p99); err != nil {
		return l, fmt.Errorf("read the line of the calling client, %q: %w", text, err)
	}
	l.perSec = l.requests / seconds
	return l, nil
}
