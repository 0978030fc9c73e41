package http2

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A stream on which nothing comes for the idle limit is over, whatever else its connection carries.
func TestIdleStream(t *testing.T) {
	n := cable(t)
	st := n.stage(t, "--idle-limit", "1s")
	port := n.port(8080)
	var listener net.Listener
	if err := n.server.Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	server := http.Server{Protocols: unencrypted(), Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			<-release
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	_, _, target := n.addresses(port)
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	client := http.Client{Transport: &http.Transport{Protocols: only, DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = n.clientNS.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}}}
	get := func(path string) error {
		response, err := client.Get("http://" + target.String() + path)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	if err := get("/first"); err != nil {
		t.Fatal(err)
	}
	held := make(chan error, 1)
	go func() { held <- get("/held") }()
	busy := 0
	for begun := time.Now(); time.Since(begun) < 3*time.Second; time.Sleep(20 * time.Millisecond) {
		if err := get("/busy"); err != nil {
			t.Fatal(err)
		}
		busy++
	}
	spans, counts := st.Spans(t, 2*(busy+2))
	close(release)
	if err := <-held; err != nil {
		t.Error(err)
	}
	if counts.Events["connections"] != 2 {
		t.Errorf("it is not one connection, seen from both of its ends: %v", counts)
	}
	timedOut := 0
	for i := range spans {
		s := &spans[i]
		if s.Attributes["url.path"] != "/held" {
			if s.Failed {
				t.Errorf("a request beside it failed: %+v", *s)
			}
			continue
		}
		timedOut++
		if took := s.End.Sub(s.Start); s.Attributes["error.type"] != "timeout" || took < time.Second || took > 2500*time.Millisecond {
			t.Errorf("want a time-out after a second, took %v: %+v", took, *s)
		}
	}
	if timedOut != 2 {
		t.Errorf("%d spans of the stream that was held, want 2", timedOut)
	}
}
