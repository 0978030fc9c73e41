package http2

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
)

// fetch is Go's client: a plan in JSON. It ends when its standard input does.
func fetch(args []string) error {
	var plan []connection
	if err := json.Unmarshal([]byte(args[0]), &plan); err != nil {
		return err
	}
	lines := json.NewEncoder(os.Stdout)
	for _, c := range plan {
		transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
		transport.Protocols.SetUnencryptedHTTP2(true)
		all := make([]line, len(c.Requests))
		errs := make([]error, len(c.Requests))
		var wait sync.WaitGroup
		room := make(chan struct{}, c.Streams)
		for i, r := range c.Requests {
			if i == 1 {
				wait.Wait() // the others share the first one's connection
			}
			room <- struct{}{}
			wait.Go(func() {
				all[i], errs[i] = ask(transport, c, r)
				<-room
			})
		}
		wait.Wait()
		for i := range all {
			if errs[i] != nil {
				return errs[i]
			}
			if err := lines.Encode(all[i]); err != nil {
				return err
			}
		}
		transport.CloseIdleConnections()
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func ask(transport *http.Transport, c connection, r asked) (line, error) {
	var body io.Reader
	if r.Body > 0 {
		body = bytes.NewReader(bytes.Repeat([]byte{'g'}, r.Body))
	}
	request, err := http.NewRequest(r.Method, "http://"+c.Address+r.Target, body)
	if err != nil {
		return line{}, err
	}
	request.Host = c.Authority
	request.Header.Set("User-Agent", "fetch/1 (Go)")
	for key, value := range r.Headers {
		request.Header.Set(key, value)
	}
	l := line{
		Method: r.Method, Target: r.Target, Authority: c.Authority, Agent: "fetch/1 (Go)", RequestID: r.Headers["x-request-id"],
		Sent: int64(r.Body), Begun: millis(),
	}
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		l.Local, l.Peer = info.Conn.LocalAddr().String(), info.Conn.RemoteAddr().String()
	}}))
	response, err := transport.RoundTrip(request)
	if err != nil {
		return l, fmt.Errorf("%s %s: %w", r.Method, r.Target, err)
	}
	defer response.Body.Close()
	l.Received, err = io.Copy(io.Discard, response.Body)
	l.Status, l.Version, l.Ended = response.StatusCode, response.Proto, millis()
	if strings.HasSuffix(r.Headers["x-want"], "trailers") && response.Trailer.Get("X-Sum") == "" {
		return l, fmt.Errorf("%s: the trailers are missing", r.Target)
	}
	return l, err
}
