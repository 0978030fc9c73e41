package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	authority = "stock.example:8080"
	agent     = "guest/1"
	// The numbers of requests, one after the other and at once.
	inTurn, atOnce = 14, 8
	// frameLimit is the least that any end may have, so that bodies take several frames.
	frameLimit = 16 << 10
)

// calls are how calls of gRPC end: with a message and trailers, and with nothing but trailers.
var calls = []struct {
	method, code  string
	number, reply int
}{
	{"stock.Stock/Count", "OK", 0, 40_000},
	{"stock.Stock/Reserve", "NOT_FOUND", 5, 9},
	{"stock.Stock/Forget", "UNIMPLEMENTED", 12, 0},
	{"stock.Stock/Watch", "OK", 0, 5},
}

// streams is what Go's client and server of HTTP/2 are tried with: one connection, on which requests follow each
// other, then run at once, then are calls of gRPC.
func streams(p pair, port int) (exchanges []exchange, err error) {
	stop, err := p.serve(&http.Server{
		Handler: newShelf(), ReadHeaderTimeout: 10 * time.Second, Protocols: priorKnowledge(),
		HTTP2: &http.HTTP2Config{MaxReadFrameSize: frameLimit},
	}, port)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	var connections atomic.Int32
	transport := &http.Transport{
		Protocols: priorKnowledge(), DisableCompression: true, HTTP2: &http.HTTP2Config{MaxReadFrameSize: frameLimit},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			connections.Add(1)
			return p.dial(ctx, network, p[1].at(port))
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: 60 * time.Second, Transport: transport}
	for i := range inTurn {
		e := exchange{method: "GET", path: fmt.Sprintf("/turn/%d", i), received: i * 100, status: []int{200, 404, 200, 503}[i%4]}
		if i%3 == 1 {
			e.method, e.sent = "POST", i*5_000
		}
		exchanges = append(exchanges, e)
	}
	for i := range atOnce {
		exchanges = append(exchanges, exchange{method: "PUT", path: fmt.Sprintf("/once/%d", i), sent: 20_000 + i*7_001, received: 90_000 - i*9_001, status: 200})
	}
	for _, c := range calls {
		exchanges = append(exchanges, exchange{method: "POST", path: "/" + c.method, sent: 1_005, received: c.reply, status: 200, code: c.code})
	}
	errs := make([]error, len(exchanges))
	var wait sync.WaitGroup
	for i := range exchanges {
		e := &exchanges[i]
		e.version, e.authority, e.agent, e.requestID = "2", authority, agent, fmt.Sprintf("guest-%04d", i*i)
		if !e.isCall() {
			e.query = "received=REDACTED&status=REDACTED"
		}
		if !strings.HasPrefix(e.path, "/once/") {
			wait.Wait()
			errs[i] = e.ask(client, i)
			continue
		}
		wait.Go(func() { errs[i] = e.ask(client, i) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if n := connections.Load(); n != 1 {
		return nil, fmt.Errorf("the client opened %d connections, want one", n)
	}
	return exchanges, nil
}

func priorKnowledge() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return protocols
}

// slowly gives a body away in pieces, of which each is a frame.
type slowly struct{ io.Reader }

func (s slowly) Read(b []byte) (int, error) { return s.Reader.Read(b[:min(len(b), 9_000)]) }

// ask sends the request and demands the response that goes with it.
func (e *exchange) ask(client *http.Client, i int) error {
	target := "http://" + e.authority + e.path
	if e.query != "" {
		target += fmt.Sprintf("?received=%d&status=%d", e.received, e.status)
	}
	var body io.Reader
	if e.sent > 0 {
		body = slowly{bytes.NewReader(bytes.Repeat([]byte{'s'}, e.sent))}
	}
	request, err := http.NewRequest(e.method, target, body)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"user-agent": e.agent, "x-request-id": e.requestID,
		// It goes into the table, from which it drives out what came before.
		"x-note": strings.Repeat(strconv.Itoa(i), 300),
	} {
		request.Header.Set(name, value)
	}
	if e.isCall() {
		request.Header.Set("content-type", "application/grpc+proto")
		request.Header.Set("te", "trailers")
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	if err != nil {
		return fmt.Errorf("read the response to %s: %w", e.path, err)
	}
	if response.ProtoMajor != 2 || response.StatusCode != e.status || n != int64(e.received) {
		return fmt.Errorf("the response to %s is %s %d with %d bytes", e.path, response.Proto, response.StatusCode, n)
	}
	if code := response.Header.Get("grpc-status") + response.Trailer.Get("grpc-status"); (code != "") != e.isCall() {
		return fmt.Errorf("the response to %s has grpc-status %q", e.path, code)
	}
	return nil
}

// shelf answers as it is asked to. What is asked at once it answers when all of it has come.
type shelf struct{ gathered sync.WaitGroup }

func newShelf() *shelf {
	s := new(shelf)
	s.gathered.Add(atOnce)
	return s
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // the client sees no whole response
	}
	for _, c := range calls {
		if r.URL.Path == "/"+c.method {
			code := strconv.Itoa(c.number)
			w.Header().Set("content-type", "application/grpc+proto")
			if c.reply == 0 {
				w.Header().Set("grpc-status", code)
				return
			}
			write(w, c.reply)
			w.Header().Set(http.TrailerPrefix+"grpc-status", code)
			return
		}
	}
	if strings.HasPrefix(r.URL.Path, "/once/") {
		s.gathered.Done()
		s.gathered.Wait()
	}
	w.Header().Set("x-answer", strings.Repeat(r.URL.Path, 20))
	status, _ := strconv.Atoi(r.FormValue("status")) // of another one the client complains
	received, _ := strconv.Atoi(r.FormValue("received"))
	w.WriteHeader(cmp.Or(status, http.StatusBadRequest))
	write(w, received)
}

func write(w io.Writer, n int) {
	_, _ = w.Write(bytes.Repeat([]byte{'r'}, n)) // the client counts
}
