package ztunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/http2"
)

// pool keeps the HBONE connections of one pod by the peer's address.
type pool struct {
	mu    sync.Mutex
	peers map[netip.Addr]*peerPool
}

// peerPool holds the connections to one peer. Its lock is held while one is made, so that those who come
// meanwhile share it.
type peerPool struct {
	mu       sync.Mutex
	sessions []*session
}

func (p *pool) init() { p.peers = make(map[netip.Addr]*peerPool) }

func (p *pool) peer(address netip.Addr) *peerPool {
	p.mu.Lock()
	defer p.mu.Unlock()
	peer, ok := p.peers[address]
	if !ok {
		peer = &peerPool{}
		p.peers[address] = peer
	}
	return peer
}

// tunnel carries an application's connection to a pod of the mesh.
func (p *pod) tunnel(app *net.TCPConn, destination netip.AddrPort) {
	stream, err := p.stream(destination)
	if err == nil {
		if err = stream.accepted(); err == nil {
			err = stream.attach(app)
		}
		if err != nil {
			stream.abort(err, true)
		}
	}
	if err != nil {
		p.proxy.log.Debug("a connection could not be tunnelled", "pod", p.Name, "destination", destination, "error", err)
		app.Close()
		return
	}
	stream.pump()
}

// stream begins a CONNECT to destination on a connection that has room, or on a new one.
func (p *pod) stream(destination netip.AddrPort) (*stream, error) {
	peer := p.pool.peer(destination.Addr())
	peer.mu.Lock()
	defer peer.mu.Unlock()
	kept := peer.sessions[:0]
	var found *stream
	for _, session := range peer.sessions {
		if session.ended() {
			continue
		}
		kept = append(kept, session)
		if found == nil {
			var err error
			if found, err = session.open(destination.String()); err != nil {
				found = nil // it has just ended: take another
			}
		}
	}
	clear(peer.sessions[len(kept):])
	peer.sessions = kept
	if found != nil {
		return found, nil
	}
	session, err := p.connect(destination.Addr())
	if err != nil {
		return nil, err
	}
	peer.sessions = append(peer.sessions, session)
	opened, err := session.open(destination.String())
	if err == nil && opened == nil {
		err = errSessionEnded
	}
	return opened, err
}

// connect makes an HBONE connection to the ztunnel in the peer's namespace.
func (p *pod) connect(address netip.Addr) (*session, error) {
	raw, err := p.dial(netip.Addr{}, netip.AddrPortFrom(address, HBONEPort))
	if err != nil {
		return nil, err
	}
	if !p.proxy.track(raw) {
		return nil, errors.New("the proxy is closed")
	}
	conn := tls.Client(raw, p.tls)
	ctx, cancel := context.WithTimeout(p.proxy.ctx, dialTimeout)
	defer cancel()
	session := newSession(conn, 1, nil)
	if err = conn.HandshakeContext(ctx); err == nil {
		err = session.greet(http2.ClientPreface)
	}
	if err != nil {
		p.proxy.untrack(raw)
		conn.Close()
		return nil, err
	}
	p.proxy.wg.Go(func() {
		defer p.proxy.untrack(raw)
		err := session.run()
		p.proxy.log.Debug("an HBONE connection ended", "pod", p.Name, "peer", address, "reason", err)
	})
	return session, nil
}

// hbone serves an HBONE connection to this pod.
func (p *pod) hbone(raw *net.TCPConn) {
	conn := tls.Server(raw, p.tls)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(p.proxy.ctx, dialTimeout)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if err == nil {
		err = readPreface(conn)
	}
	if err != nil {
		p.proxy.log.Warn("an HBONE connection was refused", "pod", p.Name, "peer", raw.RemoteAddr(), "error", err)
		return
	}
	source := peer(raw)
	session := newSession(conn, 2, func(s *stream, authority string) { p.connected(s, source, authority) })
	if err := session.greet(""); err != nil {
		return
	}
	err = session.run()
	p.proxy.log.Debug("an HBONE connection ended", "pod", p.Name, "peer", source, "reason", err)
}

// connected serves one CONNECT: to the application, from the address of the pod that asks.
func (p *pod) connected(s *stream, source netip.Addr, authority string) {
	destination, err := netip.ParseAddrPort(authority)
	if err != nil || !p.isOwn(destination.Addr()) {
		p.refuse(s, "400")
		return
	}
	app, err := p.dial(source, destination)
	if err != nil {
		p.refuse(s, "503")
		return
	}
	if !p.proxy.track(app) {
		return
	}
	defer p.proxy.untrack(app)
	if err = s.session.respond(s.id, "200", false); err == nil {
		err = s.attach(app)
	}
	if err != nil {
		s.abort(err, true)
		app.Close()
		return
	}
	s.pump()
}

func (p *pod) refuse(s *stream, status string) {
	_ = s.session.respond(s.id, status, true) // a session that has ended says so to its streams
	s.abort(errors.New("refused"), true)
}

// ended tells whether the session takes no stream any more.
func (s *session) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil || s.draining
}
