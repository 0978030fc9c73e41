package e2e

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ambit/tests/e2e/stage"
)

// body is what no head has: segments of nothing else may be told by it.
const bodyByte = "B"

func isBody(f frame) bool {
	return len(f.payload) > 100 && len(bytes.Trim(f.payload, bodyByte)) == 0
}

// What networks do to packets that are all there in the end changes nothing.
func TestHarmlessPackets(t *testing.T) {
	n, w := newWire(t)
	st := n.stage(t)
	large := strings.Repeat(bodyByte, 100_000)
	head := lines("GET /small HTTP/1.1", "Host: shop", "Cookie: "+strings.Repeat("c", 4000))
	small := exchange{target: "/small", host: "shop", status: 200, response: 2}
	say := func() script {
		return script{
			ask(1, plain), tell(1, okay), ask(1, request("POST", "/up", large)), tell(1, response(200, large)), ask(1, head), tell(1, okay),
		}
	}
	want := []exchange{plainly, post("/up", 100_000, 200, 100_000), small}
	places := n.places()[1:4]
	for _, test := range []struct {
		name string
		// change makes what happens to frames, anew for each conversation
		change func() func(f frame) [][]byte
	}{
		{"nothing happens", func() func(frame) [][]byte { return nil }},
		{"every frame comes twice", func() func(frame) [][]byte {
			return func(f frame) [][]byte { return [][]byte{f.bytes, f.bytes} }
		}},
		{"every frame with data comes again after the next one", func() func(frame) [][]byte {
			var before [2][]byte
			return func(f frame) [][]byte {
				out := [][]byte{f.bytes}
				if before[f.from] != nil {
					out = append(out, before[f.from])
				}
				before[f.from] = nil
				if f.payload != nil {
					before[f.from] = f.bytes
				}
				return out
			}
		}},
		{"segments of bodies swap their places", func() func(frame) [][]byte {
			var held [2][]byte
			return func(f frame) [][]byte {
				if held[f.from] != nil {
					out := [][]byte{f.bytes, held[f.from]}
					held[f.from] = nil
					return out
				}
				if isBody(f) && len(f.payload) > 1000 { // the last one may be short, and then nothing follows
					held[f.from] = f.bytes
					return nil
				}
				return [][]byte{f.bytes}
			}
		}},
		{"the first frame with data of each direction is lost, and sent again", func() func(frame) [][]byte {
			var lost [2]bool
			return func(f frame) [][]byte {
				if f.payload != nil && !lost[f.from] {
					lost[f.from] = true
					return nil
				}
				return [][]byte{f.bytes}
			}
		}},
		{"segments of bodies are lost, and sent again", func() func(frame) [][]byte {
			var count [2]int
			return func(f frame) [][]byte {
				if isBody(f) {
					if count[f.from]++; count[f.from] == 5 || count[f.from] == 20 {
						return nil
					}
				}
				return [][]byte{f.bytes}
			}
		}},
		{"the ends of connections are lost, and sent again", func() func(frame) [][]byte {
			var lost [2]bool
			return func(f frame) [][]byte {
				if f.flags&flagFIN != 0 && !lost[f.from] {
					lost[f.from] = true
					return nil
				}
				return [][]byte{f.bytes}
			}
		}},
		// A frame with a VLAN's identifier belongs to no interface of a kernel without 8021q, such as the one of these
		// tests, and no socket gets it: only a copy of a frame can have one. The first tag is taken off before TC, a second one is in the frame there.
		{"VLAN tags", func() func(frame) [][]byte {
			return func(f frame) [][]byte { return [][]byte{tagged(f.bytes, unix.ETH_P_8021Q)} }
		}},
		{"VLAN tags in VLAN tags", func() func(frame) [][]byte {
			return func(f frame) [][]byte { return [][]byte{tagged(f.bytes, unix.ETH_P_8021AD, unix.ETH_P_8021Q)} }
		}},
		{"each frame comes before in another VLAN, too", func() func(frame) [][]byte {
			return func(f frame) [][]byte { return [][]byte{taggedFor(5, f.bytes, unix.ETH_P_8021Q), f.bytes} }
		}},
	} {
		for _, p := range places {
			t.Run(test.name+", "+p.name, func(t *testing.T) {
				w.set(test.change())
				scene{say: say(), want: untimed(want)}.check(t, st, p)
				if changed := w.set(nil); (changed == 0) != (test.name == "nothing happens") {
					t.Errorf("%d frames were changed", changed)
				}
			})
		}
	}
}

// Heads that come out of order lose their exchange on the side that sees it so, counted, and the next one is right.
func TestReorderedHeads(t *testing.T) {
	n, w := newWire(t)
	st := n.stage(t)
	long := func(start string) string {
		return start + "\r\nCookie: " + strings.Repeat("c", 4000) + "\r\nContent-Length: 0\r\n\r\n"
	}
	for _, test := range []struct {
		name string
		from end
		say  script
		want [2]exchange // what each side sees, or nothing
	}{
		{"of a request", client, script{ask(1, long("GET /lost HTTP/1.1\r\nHost: shop")), tell(1, okay)}, [2]exchange{{target: "/lost", host: "shop", status: 200, response: 2}}},
		{"of a response", server, script{ask(1, plain), tell(1, long("HTTP/1.1 200 OK"))}, [2]exchange{{}, {host: "shop", status: 200}}},
	} {
		for _, p := range n.places()[1:4] {
			t.Run(test.name+", "+p.name, func(t *testing.T) {
				c := connect(t, p, netip.AddrPort{})
				stage.Must(t, c.play(script{ask(1, plain), tell(1, okay)}))
				var held []byte
				swapped := false
				w.set(func(f frame) [][]byte {
					switch {
					case f.from == test.from && f.payload != nil && !swapped && held == nil:
						held = f.bytes
						return nil
					case f.from == test.from && held != nil:
						out := [][]byte{f.bytes, held}
						held, swapped = nil, true
						return out
					}
					return [][]byte{f.bytes}
				})
				stage.Must(t, c.play(test.say))
				w.set(nil)
				stage.Must(t, c.play(script{ask(1, plain), tell(1, okay)}))
				c.close()
				spans, counts := st.Spans(t, 5)
				if !swapped || counts.Dropped["gap"] != 1 || counts.DroppedTotal() != 1 {
					t.Errorf("swapped: %v; %v", swapped, counts)
				}
				clients, servers := sorted(spans)
				last := at(2, plainly)
				wants := [2][]exchange{{plainly, last}, {plainly, last}}
				for e, x := range test.want {
					if x.host != "" {
						wants[e] = []exchange{plainly, at(1, x), last}
					}
				}
				compare(t, clients, untimed(wants[client]), c, 1)
				compare(t, servers, untimed(wants[server]), c, 1)
			})
		}
	}
}

// Options that real sockets put into their packets.
func TestSocketOptions(t *testing.T) {
	n, _ := newWire(t)
	st := n.stage(t)
	large := strings.Repeat(bodyByte, 20_000)
	say := script{ask(1, plain), tell(1, okay), ask(1, request("POST", "/up", large)), tell(1, response(200, large)), ask(1, plain), tell(1, okay)}
	want := []exchange{plainly, post("/up", 20_000, 200, 20_000), plainly}
	padding := func(n int) string { // an extension header of n bytes with an option of RFC 4727 that nobody knows
		return "\x00" + string([]byte{byte(n/8 - 1)}) + "\x1e" + string([]byte{byte(n - 4)}) + strings.Repeat("\x00", n-4)
	}
	option := func(level, name int, value string) func(int) error {
		return func(fd int) error { return unix.SetsockoptString(fd, level, name, value) }
	}
	six, four := n.places()[2], n.cable()
	for _, test := range []struct {
		name    string
		place   place
		options []func(fd int) error
	}{
		{"IPv6, hop-by-hop options", six, []func(int) error{option(unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, padding(8))}},
		{"IPv6, destination options", six, []func(int) error{option(unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding(24))}},
		{"IPv6, both, and long", six, []func(int) error{
			option(unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, padding(64)), option(unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding(128)),
		}},
		{"IPv4, options", four, []func(int) error{option(unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x01\x01\x01\x01\x00")}},
		{"IPv4, small segments", four, []func(int) error{func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 88) }}},
		{"IPv6, small segments", six, []func(int) error{func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 100) }}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := test.place
			p.options = func(fd int) error {
				for _, set := range test.options {
					if err := set(fd); err != nil {
						return err
					}
				}
				return nil
			}
			scene{say: say, want: untimed(want)}.check(t, st, p)
		})
	}
}
