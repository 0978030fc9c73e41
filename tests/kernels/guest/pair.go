package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// end is one of two network namespaces that a veth joins.
type end struct {
	name    string // under /run/netns
	handle  netns.NsHandle
	address string
}

// pair is two network namespaces joined by a veth, each with its lo up.
type pair [2]*end

// newPair makes them. Their names and addresses follow from the pair's name, which is at most 12 bytes.
func newPair(name string, subnet int) (p pair, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	for i := range p {
		e := &end{name: fmt.Sprintf("%s-%c", name, 'a'+i), address: fmt.Sprintf("10.99.%d.%d", subnet, i+1)}
		err := anywhere(func() error {
			e.handle, err = netns.NewNamed(e.name)
			return err
		})
		if err != nil {
			return p, fmt.Errorf("make network namespace %s: %w", e.name, err)
		}
		p[i] = e
	}
	link := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: p[0].name, Namespace: netlink.NsFd(p[0].handle)},
		PeerName:  p[1].name, PeerNamespace: netlink.NsFd(p[1].handle),
	}
	if err := netlink.LinkAdd(link); err != nil {
		return p, fmt.Errorf("join %s and %s by a veth: %w", p[0].name, p[1].name, err)
	}
	for _, e := range p {
		if err := e.run(e.configure); err != nil {
			return p, fmt.Errorf("configure network namespace %s: %w", e.name, err)
		}
	}
	return p, nil
}

func (e *end) configure() error {
	for _, name := range []string{"lo", e.name} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if name != "lo" {
			address, err := netlink.ParseAddr(e.address + "/24")
			if err != nil {
				return fmt.Errorf("parse %s: %w", e.address, err)
			}
			if err := netlink.AddrAdd(link, address); err != nil {
				return fmt.Errorf("give %s its address: %w", name, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return nil
}

// at is one of the end's ports.
func (e *end) at(port int) string { return fmt.Sprintf("%s:%d", e.address, port) }

// run calls f in the namespace. Sockets that f makes stay there; goroutines that it starts do not.
func (e *end) run(f func() error) error {
	return anywhere(func() error {
		if err := netns.Set(e.handle); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", e.name, err)
		}
		return f()
	})
}

// anywhere calls f on a thread that nobody else will use, since f may change its namespaces.
func anywhere(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// Close removes both namespaces, and the veth with them.
func (p pair) Close() error {
	var errs []error
	for _, e := range p {
		if e == nil {
			continue
		}
		if err := errors.Join(e.handle.Close(), netns.DeleteNamed(e.name)); err != nil {
			errs = append(errs, fmt.Errorf("remove network namespace %s: %w", e.name, err))
		}
	}
	return errors.Join(errs...)
}

// veth makes an HTTP request from one namespace to the other.
func veth() (map[string]string, error) {
	p, err := newPair("veth", 1)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	body, err := p.get(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Method, " ", r.URL.Path, " from ", r.RemoteAddr[:len(p[0].address)])
	}), "/hello")
	if err != nil {
		return nil, err
	}
	if want := "GET /hello from " + p[0].address; body != want {
		return nil, fmt.Errorf("the server answered %q, want %q", body, want)
	}
	return map[string]string{"answer": body}, nil
}

// serve lets the server answer in the second namespace, at the port, until stop is called.
func (p pair) serve(server *http.Server, port int) (stop func() error, err error) {
	var listener net.Listener
	if err := p[1].run(func() (err error) {
		listener, err = net.Listen("tcp", p[1].at(port))
		return err
	}); err != nil {
		return nil, fmt.Errorf("listen in %s: %w", p[1].name, err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return func() error {
		err := server.Close()
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	}, nil
}

// dial connects from the first namespace.
func (p pair) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = p[0].run(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// get serves in the second namespace and requests path in the first one.
func (p pair) get(handler http.Handler, path string) (body string, err error) {
	stop, err := p.serve(&http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}, 80)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stop()) }()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: p.dial}}
	response, err := client.Get("http://" + p[1].address + path)
	if err != nil {
		return "", fmt.Errorf("request from %s: %w", p[0].name, err)
	}
	defer response.Body.Close()
	contents, err := io.ReadAll(response.Body)
	return string(contents), err
}
