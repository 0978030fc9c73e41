package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"ambit/tests/e2e/stage"
)

// whole is what is exported of a text: valid UTF-8.
func whole(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Every byte in each field that is captured comes through the kernel into a span, or ends the field as HTTP has it; a
// byte that is no UTF-8 becomes U+FFFD, and is counted. One that stayed would make the collector refuse the batch.
func TestEveryByte(t *testing.T) {
	n := newNetwork(t)
	p := n.cable()
	header := func(name string, set func(x *exchange, value string)) func(b byte) (string, exchange) {
		return func(b byte) (string, exchange) {
			x := plainly
			value := "a" + string([]byte{b}) + "z"
			if b == '\n' {
				value = "a" // and a line that is no header
			}
			set(&x, whole(value))
			host := "Host: shop\r\n"
			if name == "Host" {
				host = ""
			}
			return "GET / HTTP/1.1\r\n" + host + name + ": a" + string([]byte{b}) + "z\r\n\r\n", x
		}
	}
	target := func(before, after string) func(b byte) (string, exchange) {
		return func(b byte) (string, exchange) {
			x := plainly
			x.target = whole(before + string([]byte{b}) + after)
			if b == '#' { // a fragment, which nobody may send, is no part of a path or a query
				x.target = before
			}
			return "GET " + before + string([]byte{b}) + after + " HTTP/1.1\r\nHost: shop\r\n\r\n", x
		}
	}
	for _, field := range []struct {
		name string
		make func(b byte) (request string, want exchange)
		// not are bytes that mean something there, which other tests show.
		not string
	}{
		{"User-Agent", header("User-Agent", func(x *exchange, v string) { x.userAgent = v }), ""},
		{"x-request-id", header("x-request-id", func(x *exchange, v string) { x.requestID = v }), ""},
		{"Host", header("Host", func(x *exchange, v string) {
			x.host = v
			if strings.ContainsAny(v, ` "#/<>?\`) { // no host: the address is shown
				x.host = ""
			}
		}), ":[]@"},
		{"tracestate", func(b byte) (string, exchange) {
			value := "a=" + string([]byte{b}) + "z"
			x := traced(trace32, whole(value))
			if b == '\n' {
				x.state = "a="
			}
			return lines("GET / HTTP/1.1", "Host: shop", sampled, "tracestate: "+value), x
		}, " \t,"},
		{"path", target("/a", "z"), " \n?"},
		{"query", target("/?a", "z=1"), " \n"},
	} {
		t.Run(field.name, func(t *testing.T) {
			st := n.stage(t) // of its own: together there are more routes than a service may have
			c := connect(t, p, netip.AddrPort{})
			var want []exchange
			repaired := uint64(0)
			for b := range 256 {
				if strings.IndexByte(field.not, byte(b)) >= 0 {
					continue
				}
				request, x := field.make(byte(b))
				stage.Must(t, c.play(script{ask(1, request), tell(1, okay)}))
				want = append(want, x)
				if !utf8.ValidString(request) {
					repaired += 2
				}
			}
			c.close()
			spans, counts := st.Spans(t, 2*len(want))
			compare(t, spans, want, c, 2)
			if counts.Events["values_repaired"] != repaired || counts.DroppedTotal() > 0 {
				t.Errorf("%d values were repaired: %v", repaired, counts)
			}
		})
	}
}

// Every byte in a method: a token's are shown as they are, and with any other it is no HTTP.
func TestEveryByteInMethods(t *testing.T) {
	n := newNetwork(t)
	st := n.stage(t)
	p := n.loopback()
	const marks = "!#$%&'*+-.^_`|~"
	var all [256]*conversation
	var want [256][]exchange
	spans := 0
	for b := range all {
		method := "X" + string([]byte{byte(b)})
		if b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z' || strings.IndexByte(marks, byte(b)) >= 0 {
			want[b] = []exchange{{method: method, host: "shop", status: 200, response: 2}}
			spans += 2
		} else if b == ' ' { // RFC 9112, section 3: a reader may take several blanks for one
			want[b] = []exchange{{method: "X", host: "shop", status: 200, response: 2}}
			spans += 2
		}
		all[b] = connect(t, p, netip.AddrPort{})
		stage.Must(t, all[b].play(script{ask(1, method+" / HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, okay)}))
		all[b].close()
	}
	came, counts := st.Spans(t, spans)
	for b, c := range all {
		t.Run(fmt.Sprintf("%#02x", b), func(t *testing.T) { compare(t, of(came, c), want[b], c, 2) })
	}
	if counts.DroppedTotal() > 0 {
		t.Errorf("%v", counts)
	}
}
