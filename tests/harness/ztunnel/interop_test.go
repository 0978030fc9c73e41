package ztunnel

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/net/http2"
)

// Somebody without a certificate of the mesh is not served.
func TestStranger(t *testing.T) {
	_, there := loopback(t)
	other, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.config("stranger")
	if err != nil {
		t.Fatal(err)
	}
	foreign = foreign.Clone()
	foreign.VerifyConnection = nil // it would refuse the pod; here the pod is to refuse
	c, s := tcpPair(t)
	there.proxy.wg.Go(func() { there.hbone(s) })
	client := tls.Client(c, foreign)
	if err := client.Handshake(); err == nil { // in TLS 1.3 the client hears of it on its first read
		_, err = client.Read(make([]byte, 1))
		if err == nil {
			t.Error("a certificate of another mesh was accepted")
		}
	}
}

// Go's HTTP/2 client can talk to the stand-in: it is HTTP/2, not just a stream that only itself understands.
func TestGoClient(t *testing.T) {
	here, there := loopback(t)
	app := listen(t, "127.7.0.2", echo)
	c, s := tcpPair(t)
	there.proxy.track(s)
	there.proxy.wg.Go(func() { there.hbone(s) })
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			client := tls.Client(c, here.tls)
			return client, client.HandshakeContext(ctx)
		},
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	r, w := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "https://"+app.String(), r)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		t.Fatalf("CONNECT: %s %s", response.Proto, response.Status)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB, past every window
	go func() {
		_, _ = w.Write(sent)
		w.Close()
	}()
	received, err := io.ReadAll(response.Body)
	if err != nil || !bytes.Equal(received, sent) {
		t.Errorf("%d bytes came back of %d: %v", len(received), len(sent), err)
	}
}

// Go's HTTP/2 server understands the stand-in's client, with its own smaller windows.
func TestGoServer(t *testing.T) {
	here, there := loopback(t)
	c, s := tcpPair(t)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodConnect || r.Host != "127.7.0.2:80" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			buffer := make([]byte, 32<<10)
			for {
				n, err := r.Body.Read(buffer)
				_, _ = w.Write(buffer[:n])
				_ = http.NewResponseController(w).Flush()
				if err != nil {
					return
				}
			}
		}),
		TLSConfig: there.tls,
	}
	l := &oneListener{conns: make(chan net.Conn, 1)}
	l.conns <- s
	go func() { _ = server.ServeTLS(l, "", "") }()
	defer server.Close()
	client := tls.Client(c, here.tls)
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	session := newSession(client, 1, nil)
	if err := session.greet(http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	here.proxy.track(c)
	here.proxy.wg.Go(func() { _ = session.run() })
	app := tunnelled(t, session, netip.MustParseAddrPort("127.7.0.2:80"))
	sent := bytes.Repeat([]byte("fedcba9876543210"), 1<<18)
	go func() {
		_, _ = app.Write(sent)
		_ = app.CloseWrite()
	}()
	received, err := io.ReadAll(app)
	if err != nil || !bytes.Equal(received, sent) {
		t.Errorf("%d bytes came back of %d: %v", len(received), len(sent), err)
	}
}

// oneListener hands out the connections put into it and then waits.
type oneListener struct{ conns chan net.Conn }

func (l *oneListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, os.ErrClosed
	}
	return c, nil
}

func (l *oneListener) Close() error   { close(l.conns); return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }
