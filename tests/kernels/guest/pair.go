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

// get serves in the second namespace and requests path in the first one.
func (p pair) get(handler http.Handler, path string) (body string, err error) {
	var listener net.Listener
	if err := p[1].run(func() (err error) {
		listener, err = net.Listen("tcp", p[1].address+":80")
		return err
	}); err != nil {
		return "", fmt.Errorf("listen in %s: %w", p[1].name, err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		if e := errors.Join(server.Close(), <-served); err == nil && !errors.Is(e, http.ErrServerClosed) {
			err = e
		}
	}()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (c net.Conn, err error) {
		err = p[0].run(func() error {
			c, err = net.Dial(network, address)
			return err
		})
		return c, err
	}}}
	response, err := client.Get("http://" + p[1].address + path)
	if err != nil {
		return "", fmt.Errorf("request from %s: %w", p[0].name, err)
	}
	defer response.Body.Close()
	contents, err := io.ReadAll(response.Body)
	return string(contents), err
}
