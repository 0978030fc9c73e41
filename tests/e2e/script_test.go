package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/harness"
)

// A script is what the two ends of one connection do, step by step: each write goes out at once and is read
// by the other end before the next step, so where a write ends a segment ends.
type script []step

type step struct {
	from end
	data string
	// each cuts data into writes of so many bytes; 0 is one write.
	each int
	// What the step means for the exchanges, in their order: so many requests begin in it, so many final
	// responses begin, and so many end.
	asks, answers, ends int
	do                  func(*conversation) error // instead of data
}

type end int

const (
	client end = iota
	server
)

// ask begins n requests.
func ask(n int, data string) step { return step{from: client, data: data, asks: n} }

// send is more from the client.
func send(data string) step { return step{from: client, data: data} }

// tell is n whole responses.
func tell(n int, data string) step { return step{from: server, data: data, answers: n, ends: n} }

// head begins one response.
func head(data string) step { return step{from: server, data: data, answers: 1} }

// back is more from the server.
func back(data string) step { return step{from: server, data: data} }

// tail ends one response.
func tail(data string) step { return step{from: server, data: data, ends: 1} }

// in makes each write of a step n bytes long.
func (s step) in(n int) step {
	s.each = n
	return s
}

// pause lets time pass.
func pause(d time.Duration) step {
	return step{do: func(*conversation) error { time.Sleep(d); return nil }}
}

// closes ends one end in good order, and waits until the other has read the end.
func closes(e end) step {
	return step{from: e, do: func(c *conversation) error {
		if err := c.conns[e].Close(); err != nil {
			return err
		}
		return c.readEnd(1-e, io.EOF)
	}}
}

// halfCloses sends the end of one direction only.
func halfCloses(e end) step {
	return step{from: e, do: func(c *conversation) error {
		if err := c.conns[e].CloseWrite(); err != nil {
			return err
		}
		return c.readEnd(1-e, io.EOF)
	}}
}

// resets ends one end by a reset.
func resets(e end) step {
	return step{from: e, do: func(c *conversation) error {
		if err := errors.Join(c.conns[e].SetLinger(0), c.conns[e].Close()); err != nil {
			return err
		}
		return c.readEnd(1-e, unix.ECONNRESET)
	}}
}

// finishes makes a step the end of the last n exchanges that were not over yet.
func (s step) finishes(n int) step {
	s.ends = n
	return s
}

// place is where a script is played: a server's listener and the way to it.
type place struct {
	name             string
	clientNS, server *harness.Namespace
	to               netip.Addr // of the server, as the client dials it
	listen           string     // address that the server listens on
	spans            int        // per exchange: sockets in tapped namespaces
	// options sets options of both sockets before they connect; nil is none.
	options func(fd int) error
}

// control is what a socket is given before it is used: the place's options, and more.
func (p place) control(more func(network, address string, raw syscall.RawConn) error) func(network, address string, raw syscall.RawConn) error {
	if p.options == nil {
		return more
	}
	return func(network, address string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) { set = p.options(int(fd)) })
		if more != nil {
			err = errors.Join(err, more(network, address, raw))
		}
		return errors.Join(set, err)
	}
}

// moment is an interval in which something happened.
type moment struct{ from, to time.Time }

// times is when one exchange's parts happened, as its endpoints know it.
type times struct{ asked, answered, ended moment }

// conversation is one connection and both its ends.
type conversation struct {
	conns          [2]*net.TCPConn
	addresses      [2]netip.AddrPort // of the client's and the server's socket, unmapped
	times          []times
	answered, over int
}

const patience = 5 * time.Second

// connect opens a connection at a place; local may be the zero AddrPort.
func connect(t testing.TB, p place, local netip.AddrPort) *conversation {
	t.Helper()
	listener := listenBy(t, net.ListenConfig{Control: p.control(nil)}, p.server, p.listen)
	defer listener.Close()
	return dial(t, p, listener, local)
}

func listen(t testing.TB, ns *harness.Namespace, address string) net.Listener {
	t.Helper()
	return listenBy(t, net.ListenConfig{}, ns, address)
}

func listenBy(t testing.TB, config net.ListenConfig, ns *harness.Namespace, address string) net.Listener {
	t.Helper()
	var listener net.Listener
	err := ns.Do(func() (err error) {
		listener, err = config.Listen(t.Context(), "tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func dial(t testing.TB, p place, listener net.Listener, local netip.AddrPort) *conversation {
	t.Helper()
	port := netip.MustParseAddrPort(listener.Addr().String()).Port()
	dialer := net.Dialer{Timeout: patience, Control: p.control(reuse)}
	if local.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(local)
	}
	return dialBy(t, &dialer, p.clientNS, netip.AddrPortFrom(p.to, port), listener)
}

// dialTo opens a connection to an address that leads to the listener.
func dialTo(t testing.TB, ns *harness.Namespace, to netip.AddrPort, listener net.Listener) *conversation {
	t.Helper()
	return dialBy(t, &net.Dialer{Timeout: patience}, ns, to, listener)
}

func dialBy(t testing.TB, dialer *net.Dialer, ns *harness.Namespace, to netip.AddrPort, listener net.Listener) *conversation {
	t.Helper()
	c := new(conversation)
	err := ns.Do(func() error {
		conn, err := dialer.Dial("tcp", to.String())
		if err != nil {
			return err
		}
		c.conns[client] = conn.(*net.TCPConn)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c.accept(t, listener)
	return c
}

// accept takes the server's end of a connection that the client has opened.
func (c *conversation) accept(t testing.TB, listener net.Listener) {
	t.Helper()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.conns[server] = conn.(*net.TCPConn)
	for e, conn := range c.conns {
		address := conn.LocalAddr().(*net.TCPAddr).AddrPort()
		c.addresses[e] = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
		t.Cleanup(func() { conn.Close() })
	}
}

// play runs a script; what stands open at its end is closed, by the client first.
func (c *conversation) play(s script) error {
	for i, step := range s {
		if err := c.step(step); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func (c *conversation) close() {
	for _, conn := range c.conns {
		_ = conn.Close() // the script may have closed it
	}
}

func (c *conversation) step(s step) error {
	var now moment
	now.from = time.Now()
	if s.do != nil {
		if err := s.do(c); err != nil {
			return err
		}
	} else if err := c.transfer(s); err != nil {
		return err
	}
	now.to = time.Now()
	for range s.asks {
		c.times = append(c.times, times{asked: now})
	}
	for range s.answers {
		c.times[c.answered].answered = now
		c.answered++
	}
	for range s.ends {
		c.times[c.over].ended = now
		c.over++
	}
	return nil
}

// transfer writes at one end and reads at the other.
func (c *conversation) transfer(s step) error {
	each := s.each
	if each == 0 {
		each = max(len(s.data), 1)
	}
	buffer := make([]byte, min(each, len(s.data)))
	for data := s.data; data != ""; {
		part := data[:min(each, len(data))]
		data = data[len(part):]
		deadline := time.Now().Add(patience)
		if err := errors.Join(c.conns[s.from].SetWriteDeadline(deadline), c.conns[1-s.from].SetReadDeadline(deadline)); err != nil {
			return err
		}
		written := make(chan error, 1)
		if len(part) < 32<<10 {
			_, err := io.WriteString(c.conns[s.from], part)
			written <- err
		} else {
			go func() {
				_, err := io.WriteString(c.conns[s.from], part)
				written <- err
			}()
		}
		_, err := io.ReadFull(c.conns[1-s.from], buffer[:len(part)])
		if err := errors.Join(<-written, err); err != nil {
			return err
		}
		if !bytes.Equal(buffer[:len(part)], []byte(part)) {
			return errors.New("other bytes arrived than were sent")
		}
	}
	return nil
}

// readEnd reads nothing but the expected end of the other direction.
func (c *conversation) readEnd(e end, want error) error {
	if err := c.conns[e].SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var one [1]byte
	if n, err := c.conns[e].Read(one[:]); n != 0 || !errors.Is(err, want) {
		return fmt.Errorf("read %d bytes and %v, want %v", n, err, want)
	}
	return nil
}

// lines joins the lines of a head, the empty one included.
func lines(l ...string) string { return strings.Join(append(l, "", ""), "\r\n") }
