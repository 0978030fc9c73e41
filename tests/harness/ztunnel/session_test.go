package ztunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// loopback is a proxy whose pods are this process's own namespace on two loopback addresses: what is not
// about redirection can be tested without one.
func loopback(t *testing.T) (here, there *pod) {
	t.Helper()
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		log:  slog.New(slog.DiscardHandler),
		open: make(map[io.Closer]struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(t.Context())
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the proxy: %v", err)
		}
	})
	for i, address := range []string{"127.7.0.1", "127.7.0.2"} {
		pod, err := newPod(p, Pod{
			Name: address, NetNS: "/proc/thread-self/ns/net", Addresses: []netip.Addr{netip.MustParseAddr(address)},
		}, ca)
		if err != nil {
			t.Fatal(err)
		}
		p.pods = append(p.pods, pod)
		if i == 0 {
			here = pod
		} else {
			there = pod
		}
	}
	return here, there
}

// tcpPair is a TCP connection over loopback, both ends.
func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// listen is an application in the pods' namespace.
func listen(t *testing.T, address string, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// joined is a client session of here whose peer is a server session of there.
func joined(t *testing.T, here, there *pod) *session {
	t.Helper()
	c, s := tcpPair(t)
	there.proxy.wg.Go(func() { there.hbone(s) })
	there.proxy.track(s)
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
	return session
}

// tunnelled is an application's connection through the session to destination.
func tunnelled(t *testing.T, session *session, destination netip.AddrPort) *net.TCPConn {
	t.Helper()
	outside, inside := tcpPair(t)
	s, err := session.open(destination.String())
	if err != nil || s == nil {
		t.Fatalf("open a stream: %v, %v", s, err)
	}
	if err := s.accepted(); err != nil {
		t.Fatal(err)
	}
	if err := s.attach(inside); err != nil {
		t.Fatal(err)
	}
	go s.pump()
	return outside
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	c.Close()
}

// Many streams at once on one connection, each in both directions and much larger than a window, come
// through whole.
func TestManyStreams(t *testing.T) {
	here, there := loopback(t)
	app := listen(t, "127.7.0.2", echo)
	session := joined(t, here, there)
	var wg sync.WaitGroup
	for i := range 40 {
		c := tunnelled(t, session, app)
		wg.Go(func() {
			sent, received := sha256.New(), sha256.New()
			var sending sync.WaitGroup
			sending.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), 0))
				for n := 0; n < 3<<20; {
					piece := make([]byte, 1+random.IntN(70000))
					for j := range piece {
						piece[j] = byte(random.Uint32())
					}
					sent.Write(piece)
					if _, err := c.Write(piece); err != nil {
						t.Errorf("stream %d: %v", i, err)
						return
					}
					n += len(piece)
				}
				if err := c.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			if _, err := io.Copy(received, c); err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
			sending.Wait()
			if !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
				t.Errorf("stream %d: what came back is not what was sent", i)
			}
		})
	}
	wg.Wait()
	eventually(t, "all streams are forgotten", func() bool {
		session.mu.Lock()
		defer session.mu.Unlock()
		return len(session.streams) == 0
	})
}

// An application that does not read holds up neither the other streams nor memory.
func TestSlowReader(t *testing.T) {
	here, there := loopback(t)
	release := make(chan struct{})
	lazy := listen(t, "127.7.0.2", func(c *net.TCPConn) { <-release; echo(c) })
	quick := listen(t, "127.7.0.2", echo)
	session := joined(t, here, there)
	slow := tunnelled(t, session, lazy)
	const size = 20 << 20
	go func() {
		_, _ = slow.Write(make([]byte, size))
		_ = slow.CloseWrite()
	}()
	time.Sleep(100 * time.Millisecond)
	c := tunnelled(t, session, quick)
	for range 100 {
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	n, err := io.Copy(io.Discard, slow)
	if err != nil || n != size {
		t.Errorf("the slow one got %d bytes: %v", n, err)
	}
}

// The end of one direction is passed on while the other goes on.
func TestHalfClose(t *testing.T) {
	here, there := loopback(t)
	app := listen(t, "127.7.0.2", func(c *net.TCPConn) {
		defer c.Close()
		all, err := io.ReadAll(c) // until the client has ended its side
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("got " + string(all)))
	})
	c := tunnelled(t, joined(t, here, there), app)
	if _, err := c.Write([]byte("all of it")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil || string(answer) != "got all of it" {
		t.Errorf("the answer is %q: %v", answer, err)
	}
}

// A reset at one end is a reset at the other.
func TestReset(t *testing.T) {
	here, there := loopback(t)
	served := make(chan error, 1)
	app := listen(t, "127.7.0.2", func(c *net.TCPConn) {
		buffer := make([]byte, 16)
		n, err := c.Read(buffer)
		if err == nil && string(buffer[:n]) == "reset me" {
			reset(c)
			return
		}
		_, err = c.Read(buffer)
		served <- err
	})
	session := joined(t, here, there)
	c := tunnelled(t, session, app)
	if _, err := c.Write([]byte("reset me")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client of a server that resets sees %v", err)
	}
	c = tunnelled(t, session, app)
	if _, err := c.Write([]byte("I will")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	reset(c)
	if err := <-served; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the server of a client that resets sees %v", err)
	}
}

// A destination that refuses is an answer to CONNECT, and the connection serves on.
func TestRefused(t *testing.T) {
	here, there := loopback(t)
	session := joined(t, here, there)
	for _, c := range []struct{ authority, status string }{
		{"127.7.0.2:1", "503"},  // nobody listens
		{"10.1.2.3:80", "400"},  // not the pod's address
		{"nonsense", "400"},     // no address
		{"127.7.0.1:80", "503"}, // loopback, which every pod has
	} {
		s, err := session.open(c.authority)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.accepted(); err == nil || !strings.Contains(err.Error(), c.status) {
			t.Errorf("CONNECT to %s: %v, want status %s", c.authority, err, c.status)
		}
		s.abort(err, true)
	}
	c := tunnelled(t, session, listen(t, "127.7.0.2", echo))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

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

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 200 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("it never came about that %s", what)
}
