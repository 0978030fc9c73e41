package e2e

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/e2e/stage"
)

func deadline() time.Time { return time.Now().Add(patience) }

// Text that is not HTTP is no span, however long its first line is; and HTTP with such a line is one.
func TestLongFirstLines(t *testing.T) {
	long := strings.Repeat("x", 2000)
	var scenes []scene
	for _, text := range []string{
		"SET key " + long + "\r\n", "HELO " + long + "\r\n", "PING /" + long + "\r\n", "GET /" + long + "\r\n", "GET /" + long + " FTP/1.1\r\n",
		"INFO /" + long[:740] + "\r\n", "put " + long + " HTTP/3.0\r\n", "POST /" + long + " HTTP/1.\r\n",
	} {
		scenes = append(scenes, scene{
			name: "no HTTP: " + text[:5] + " and " + strings.TrimLeft(text[len(text)-12:len(text)-2], "x"),
			say:  script{send(text), back("+OK\r\n"), send(text), back("+OK\r\n")}, events: map[string]int{"connections_not_http": 0, "values_cut": 0},
		})
	}
	target := "/" + long
	scenes = append(scenes, scene{
		name: "HTTP", say: script{ask(1, "GET "+target+" HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, okay)},
		want:   []exchange{{target: target[:636], version: "-", cut: []string{"request_line"}, host: "shop", status: 200, response: 2}},
		events: map[string]int{"values_cut": 1},
	})
	everywhere(t, scenes)
}

// A connection that begins with data in its SYN is traced from its next request on.
func TestFastOpen(t *testing.T) {
	n := newNetwork(t)
	// Both sides, and without the cookie that a first connection would have to fetch.
	for _, ns := range []interface{ Sysctl(map[string]string) error }{n.clientNS, n.server} {
		stage.Must(t, ns.Sysctl(map[string]string{"net/ipv4/tcp_fastopen": "519"}))
	}
	st := n.stage(t)
	for _, p := range n.places() {
		t.Run(p.name, func(t *testing.T) {
			p.options = func(fd int) error {
				return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 5))
			}
			listener := listenBy(t, net.ListenConfig{Control: p.control(nil)}, p.server, p.listen)
			defer listener.Close()
			// With this option connect makes no packet: the first write does.
			c := new(conversation)
			port := netip.MustParseAddrPort(listener.Addr().String()).Port()
			stage.Must(t, p.clientNS.Do(func() error {
				dialer := net.Dialer{Timeout: patience, Control: p.control(nil)}
				conn, err := dialer.Dial("tcp", netip.AddrPortFrom(p.to, port).String())
				if err == nil {
					c.conns[client] = conn.(*net.TCPConn)
					_, err = conn.Write([]byte(plain))
				}
				return err
			}))
			c.accept(t, listener)
			stage.Must(t, c.play(script{step{from: client, data: ""}}))
			buffer := make([]byte, len(plain))
			if _, err := c.conns[server].Read(buffer); err != nil || string(buffer) != plain {
				t.Fatalf("the server read %q: %v", buffer, err)
			}
			stage.Must(t, c.play(script{back(okay), ask(1, plain), tell(1, okay), ask(1, plain), tell(1, okay)}))
			c.close()
			spans, counts := st.Spans(t, 4)
			want := several(2, plainly)
			for i := range want {
				want[i].joined = len(spans) > 0 && spans[0].Attributes["ambit.connection.joined"] == true // its IDs may be the node's alone
			}
			compare(t, spans, want, c, 2)
			if counts.DroppedTotal() > 0 {
				t.Errorf("%v", counts)
			}
		})
	}
}

// A port that is used again is another connection, whatever became of the one before.
func TestReusedPorts(t *testing.T) {
	n := newNetwork(t)
	st := n.stage(t)
	p := n.cable()
	turn := script{ask(1, plain), tell(1, okay)}
	listener := listen(t, n.server, "0.0.0.0:8201")
	defer listener.Close()
	local := netip.AddrPortFrom(clientIP4, 42000)
	abort := func(c *conversation) {
		stage.Must(t, c.conns[client].SetLinger(0))
		c.close()
	}
	once := scene{say: turn, want: []exchange{plainly}}
	for _, test := range []struct {
		name  string
		leave func(c *conversation) // ends the connection before
	}{
		{"which ended by a reset", abort},
		{"which ended while ambit was paused", func(c *conversation) {
			st.Pause(t)
			abort(c)
			st.Resume(t)
		}},
		{"which ended while ambit was paused, and so did others on that port", func(c *conversation) {
			st.Pause(t)
			abort(c)
			for range 3 {
				c := dial(t, p, listener, local)
				stage.Must(t, c.play(repeat(4, turn)))
				abort(c)
			}
			st.Resume(t)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 3 {
				c := dial(t, p, listener, local)
				stage.Must(t, c.play(turn))
				once.verify(t, st, p, c)
				test.leave(c)
			}
			c := dial(t, p, listener, local)
			stage.Must(t, c.play(turn))
			once.verify(t, st, p, c)
			abort(c)
			if _, counts := st.Settled(t); counts.DroppedTotal() > 0 || counts.InFlight > 0 {
				t.Errorf("%v", counts)
			}
		})
	}
}
