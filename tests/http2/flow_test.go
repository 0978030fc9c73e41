package http2

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// flowService is the service whose methods are calls' serial numbers.
const flowService = "/ambit.Flow/M"

// flowCode is the status that a call's name asks for.
func flowCode(method string) codes.Code {
	serial, _ := strconv.Atoi(strings.TrimPrefix(method, flowService))
	return []codes.Code{codes.OK, codes.OK, codes.NotFound, codes.OK, codes.Internal, codes.OK, codes.ResourceExhausted}[serial%7]
}

// flowing calls ask with serial numbers, about so many a second by so many goroutines, until the standard input ends.
func flowing(workers, perSecond int, ask func(worker, serial int) error) error {
	var over atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		over.Store(true)
	}()
	var serial atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, workers)
	begun := time.Now()
	for worker := range workers {
		wait.Go(func() {
			for !over.Load() && errs[worker] == nil {
				n := serial.Add(1)
				time.Sleep(time.Until(begun.Add(time.Duration(n) * time.Second / time.Duration(perSecond))))
				errs[worker] = ask(worker, int(n))
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// What a request of a flow is like follows from its serial number.
var (
	flowStatuses = []int{200, 404, 503, 200, 201, 200, 418}
	flowMethods  = []string{"GET", "GET", "POST", "GET", "PURGE"}
)

const flowAuthority = "flow.example"

func flowTarget(serial int) string {
	return fmt.Sprintf("/told/%d/%d?%s", flowStatuses[serial%len(flowStatuses)], serial, strings.Repeat("q", serial%90))
}

// flow is Go's client: an address and a number of connections, over each of which it has four requests under way.
func flow(args []string) error {
	connections, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	transports := make([]*http.Transport, connections)
	for i := range transports {
		transports[i] = &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
		transports[i].Protocols.SetUnencryptedHTTP2(true)
		defer transports[i].CloseIdleConnections()
		if err := flowRequest(transports[i], args[0], 0, nil); err != nil { // so that it has one connection
			return err
		}
	}
	lines := &lockedEncoder{to: json.NewEncoder(os.Stdout)}
	return flowing(4*connections, 4000, func(worker, serial int) error {
		return flowRequest(transports[worker%connections], args[0], serial, lines)
	})
}

type lockedEncoder struct {
	mu sync.Mutex
	to *json.Encoder
}

func (e *lockedEncoder) encode(l line) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.to.Encode(l)
}

func flowRequest(transport *http.Transport, address string, serial int, lines *lockedEncoder) error {
	l := line{
		Method: flowMethods[serial%len(flowMethods)], Target: flowTarget(serial), Authority: flowAuthority, Agent: "flow/1",
		Status: flowStatuses[serial%len(flowStatuses)], Begun: millis(),
	}
	var body io.Reader
	if l.Method == "POST" {
		l.Sent = int64(serial % 3000)
		body = bytes.NewReader(make([]byte, l.Sent))
	}
	request, err := http.NewRequest(l.Method, "http://"+address+l.Target, body)
	if err != nil {
		return err
	}
	request.Host = flowAuthority
	request.Header.Set("User-Agent", l.Agent)
	request.Header.Set("X-Serial", strings.Repeat("s", serial%50)+strconv.Itoa(serial/3)) // new ones push old ones out of the table
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if l.Received, err = io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != l.Status {
		return fmt.Errorf("%s was answered with %s", l.Target, response.Status)
	}
	l.Ended = millis()
	if lines == nil {
		return nil
	}
	return lines.encode(l)
}

// flowRPC is grpc-go's client: an address and a number of connections, over each of which it has four calls under way.
func flowRPC(args []string) error {
	connections, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	log := newRPCLog(os.Stdout)
	conns := make([]*grpc.ClientConn, connections)
	for i := range conns {
		conns[i], err = grpc.NewClient("passthrough:///"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithStatsHandler(log), grpc.WithUserAgent("rpc-flow/1"), grpc.WithAuthority(flowAuthority))
		if err != nil {
			return err
		}
		defer conns[i].Close()
	}
	return flowing(4*connections, 4000, func(worker, serial int) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if serial%2 == 0 {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", "call-"+strconv.Itoa(serial))
		}
		var message grpc_testing.Empty
		method := flowService + strconv.Itoa(serial)
		err := conns[worker%connections].Invoke(ctx, method, &message, &message)
		if status.Code(err) != flowCode(method) {
			return err
		}
		return nil
	})
}
