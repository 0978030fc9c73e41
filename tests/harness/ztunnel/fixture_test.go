package ztunnel

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/http2"
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
