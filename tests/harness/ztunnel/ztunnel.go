// Package ztunnel is a stand-in for Istio's ztunnel in in-pod mode, for tests: TC and sockops programs see of
// it what they see of the real one (tests/harness/testdata/ambient was recorded from that).
//
//	 pod a's namespace                                     pod b's namespace
//
//	app --redirected--> 15001 --TLS, HTTP/2 CONNECT--> 15008 --from a's address--> app
//	                       \                          15006 --from the client's address--> app
//	                        \--in the clear--> whatever is outside the mesh
//
// All of its sockets live in the pods' namespaces and carry SO_MARK 0x539. It copies bytes and knows nothing
// of what they say.
package ztunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
)

// The ports on which ztunnel listens in every pod.
const (
	OutboundPort = 15001 // what the pod's own connections are redirected to
	InboundPort  = 15006 // what plain connections to the pod are redirected to
	HBONEPort    = 15008
)

// Mark is the SO_MARK of every socket that ztunnel makes.
const Mark = 0x539

// Pod is one pod of the proxy's node.
type Pod struct {
	Name      string
	NetNS     string // path of its network namespace
	Addresses []netip.Addr
}

// Service is a virtual address and the addresses of the pods behind it, taken in turn.
type Service struct {
	Address  netip.AddrPort
	Backends []netip.AddrPort
}

// Config describes a proxy. It can be written as JSON.
type Config struct {
	Pods     []Pod
	Mesh     []netip.Addr // every pod address of the mesh, on all nodes: these are reached by HBONE
	Services []Service
	CA       CA // the same on all nodes
}

// Proxy is the ztunnel of one node.
type Proxy struct {
	log      *slog.Logger
	services map[netip.AddrPort]*service
	mesh     map[netip.Addr]struct{}
	pods     []*pod

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	open map[io.Closer]struct{} // nil once the proxy is closed
}

// Start listens in every pod of the node. Close the proxy.
func Start(cfg Config, log *slog.Logger) (*Proxy, error) {
	p := &Proxy{
		log:      log,
		services: make(map[netip.AddrPort]*service, len(cfg.Services)),
		mesh:     make(map[netip.Addr]struct{}, len(cfg.Mesh)),
		open:     make(map[io.Closer]struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, s := range cfg.Services {
		if len(s.Backends) == 0 {
			return nil, fmt.Errorf("service %v: it has no backend", s.Address)
		}
		p.services[s.Address] = &service{backends: s.Backends}
	}
	for _, address := range cfg.Mesh {
		p.mesh[address] = struct{}{}
	}
	for _, described := range cfg.Pods {
		pod, err := newPod(p, described, cfg.CA)
		if err == nil {
			p.pods = append(p.pods, pod)
			err = pod.listen()
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("serve pod %s: %w", described.Name, err), p.Close())
		}
	}
	return p, nil
}

// Close closes every socket and waits for what used them.
func (p *Proxy) Close() error {
	p.cancel()
	p.mu.Lock()
	open := p.open
	p.open = nil
	p.mu.Unlock()
	for c := range open {
		_ = c.Close() // a connection that its peer has closed already is no error
	}
	p.wg.Wait()
	var errs []error
	for _, pod := range p.pods {
		errs = append(errs, pod.close())
	}
	return errors.Join(errs...)
}

// track keeps c to be closed with the proxy. It is false, and c is closed, if that has happened already.
func (p *Proxy) track(c io.Closer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		_ = c.Close()
		return false
	}
	p.open[c] = struct{}{}
	return true
}

func (p *Proxy) untrack(c io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

// serve hands every connection that l accepts to handle, in a goroutine of its own.
func (p *Proxy) serve(l net.Listener, handle func(*net.TCPConn)) {
	p.track(l)
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if p.ctx.Err() == nil {
					p.log.Error("a listener ended", "address", l.Addr(), "error", err)
				}
				return
			}
			if !p.track(c) {
				return
			}
			p.wg.Go(func() {
				defer p.untrack(c)
				handle(c.(*net.TCPConn))
			})
		}
	})
}
