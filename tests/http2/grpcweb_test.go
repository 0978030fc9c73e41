package http2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// gRPC-Web is gRPC within HTTP/1.1. Its status is in the body most often, which nobody reads; a response without one has it
// in its head.
func TestGRPCWeb(t *testing.T) {
	n := cable(t)
	st := n.stage(t)
	port := n.port(9090)
	var listener net.Listener
	if err := n.server.Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		if code := r.Header.Get("X-Code"); code != "" {
			w.Header().Set("Grpc-Status", code)
			return
		}
		_, _ = w.Write([]byte("\x80\x00\x00\x00\x0fgrpc-status:0\r\n"))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	_, _, target := n.addresses(port)
	var client http.Client
	client.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = n.clientNS.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}}
	for _, c := range []struct {
		about, contentType, code string
		status                   any
		failed                   [2]bool // CLIENT, SERVER
	}{
		{"with its status in the body", "application/grpc-web+proto", "", nil, [2]bool{}},
		{"as text", "application/grpc-web-text", "", nil, [2]bool{}},
		{"with its status in the head", "application/grpc-web", "5", "NOT_FOUND", [2]bool{true, false}},
		{"failed on both sides", "application/grpc-web+proto", "13", "INTERNAL", [2]bool{true, true}},
	} {
		t.Run(c.about, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+target.String()+"/shop.v1.Stock/Get", bytes.NewReader([]byte{0, 0, 0, 0, 0}))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", c.contentType)
			if c.code != "" {
				request.Header.Set("X-Code", c.code)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				t.Error(err)
			}
			response.Body.Close()
			spans, _ := st.Spans(t, 2)
			for i := range spans {
				s := &spans[i]
				side := 1
				if s.Client() {
					side = 0
				}
				if s.Attributes["rpc.system.name"] != "grpc" || s.Attributes["rpc.method"] != "shop.v1.Stock/Get" ||
					s.Attributes["rpc.response.status_code"] != c.status || s.Attributes["network.protocol.version"] != "1.1" ||
					s.Attributes["url.path"] != "/shop.v1.Stock/Get" || s.Failed != c.failed[side] {
					t.Errorf("want gRPC with status %v, failed %v: %+v", c.status, c.failed[side], *s)
				}
			}
		})
	}
}
