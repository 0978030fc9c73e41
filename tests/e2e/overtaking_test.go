package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ambit/tests/e2e/stage"
)

// The end of a connection overtakes the last data on the wire: it ends nothing before that data is there.
func TestEndOvertakesData(t *testing.T) {
	n, w := newWire(t)
	st := n.stage(t)
	large := strings.Repeat(bodyByte, 5000)
	whole := exchange{host: "shop", status: 200, response: 5000, anytime: true}
	for _, test := range []struct {
		name     string
		response string
		flag     byte
		end      func(c *conversation) error
	}{
		{"FIN and a body of known length", response(200, large), flagFIN, func(c *conversation) error { return c.conns[server].CloseWrite() }},
		{"FIN and a body that it ends", "HTTP/1.1 200 OK\r\n\r\n" + large, flagFIN, func(c *conversation) error { return c.conns[server].CloseWrite() }},
		{"RST and a body of known length", response(200, large), flagRST, func(c *conversation) error {
			return errors.Join(c.conns[server].SetLinger(0), c.conns[server].Close())
		}},
	} {
		for _, p := range n.places()[1:3] {
			t.Run(test.name+", "+p.name, func(t *testing.T) {
				c := connect(t, p, netip.AddrPort{})
				stage.Must(t, c.play(script{ask(1, plain)}))
				var held [][]byte
				over := make(chan struct{})
				w.set(func(f frame) [][]byte {
					if f.from != server || held == nil && f.payload == nil {
						return [][]byte{f.bytes}
					}
					if f.flags&test.flag != 0 && over != nil {
						close(over)
						over = nil
						return append([][]byte{f.bytes}, held...)
					}
					if over == nil {
						return [][]byte{f.bytes}
					}
					held = append(held, f.bytes)
					return nil
				})
				done := over
				_, err := io.WriteString(c.conns[server], test.response)
				stage.Must(t, err, test.end(c))
				<-done
				w.set(nil)
				if test.flag == flagFIN {
					stage.Must(t, c.conns[client].SetReadDeadline(deadline()))
					got, err := io.ReadAll(c.conns[client])
					stage.Must(t, err)
					if string(got) != test.response {
						t.Errorf("the client read %d bytes, want %d", len(got), len(test.response))
					}
				}
				c.close()
				spans, counts := st.Spans(t, 2)
				compare(t, spans, []exchange{whole}, c, 2)
				if counts.DroppedTotal() > 0 {
					t.Errorf("%v", counts)
				}
			})
		}
	}
}

// The last data of a response is lost for good: its sender resets the connection. Each side tells what it saw.
func TestLostEnd(t *testing.T) {
	n, w := newWire(t)
	st := n.stage(t)
	whole := exchange{host: "shop", status: 200, response: 5000, anytime: true}
	for _, p := range n.places()[1:3] {
		t.Run(p.name, func(t *testing.T) {
			c := connect(t, p, netip.AddrPort{})
			stage.Must(t, c.play(script{ask(1, plain)}))
			var lost int
			w.set(func(f frame) [][]byte {
				if f.from == server && bytes.HasSuffix(f.payload, []byte("END")) {
					lost = len(f.payload)
					return nil
				}
				return [][]byte{f.bytes}
			})
			text := response(200, strings.Repeat(bodyByte, 4997)+"END")
			_, err := io.WriteString(c.conns[server], text)
			stage.Must(t, err)
			stage.Wait(t, "the last segment is lost", func() error {
				if w.mu.Lock(); lost == 0 {
					err = errors.New("it is not")
				} else {
					err = nil
				}
				w.mu.Unlock()
				return err
			})
			stage.Must(t, c.conns[client].SetReadDeadline(deadline()))
			_, err = io.ReadFull(c.conns[client], make([]byte, len(text)-lost))
			stage.Must(t, err, c.conns[server].SetLinger(0), c.conns[server].Close(), c.readEnd(client, unix.ECONNRESET))
			w.set(nil)
			c.close()
			spans, counts := st.Spans(t, 2)
			clients, servers := sorted(spans)
			partly := whole
			partly.response, partly.failure = int64(5000-lost), "connection_reset"
			compare(t, clients, []exchange{partly}, c, 1)
			compare(t, servers, []exchange{whole}, c, 1)
			if counts.DroppedTotal() > 0 {
				t.Errorf("%v", counts)
			}
		})
	}
}

// Packets without an Ethernet header, also of addresses that read like a type of Ethernet where that would be.
func TestTUN(t *testing.T) {
	var addresses [2][]netip.Prefix
	for _, subnet := range []string{
		"10.77.0.", "8.0.0.", "129.0.0.", "134.221.0.", "136.168.0.", "fd77::",
		// the bytes 12 and 13 of an IPv6 packet are in its source address
		"fd77:0:800::", "fd77:0:86dd::", "fd77:0:8100::",
	} {
		for e := range addresses {
			address := netip.MustParseAddr(fmt.Sprint(subnet, e+1))
			addresses[e] = append(addresses[e], netip.PrefixFrom(address, address.BitLen()*3/4)) // of 24 and of 96 bits
		}
	}
	n, _ := newWireOf(t, unix.IFF_TUN, addresses)
	st := n.stage(t)
	for _, prefix := range addresses[server] {
		to := prefix.Addr()
		t.Run(to.String(), func(t *testing.T) {
			p := place{clientNS: n.clientNS, server: n.server, to: to, listen: netip.AddrPortFrom(to, 0).String(), spans: 2}
			scene{say: script{ask(1, plain), tell(1, okay), ask(1, plain), tell(1, okay)}, want: several(2, plainly)}.check(t, st, p)
		})
	}
}
