package parser

import (
	"bytes"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

var manyBlanks = regexp.MustCompile(`[ \t]{30}`)

// comparable tells whether net/http and ambit are held to agree on the heads of a stream. What is left out, and
// what ambit does instead:
//
//   - folded header lines (obsolete since RFC 7230): the first line counts
//   - control and non-ASCII bytes in a head: kept as they are, net/http's own rules vary by field
//   - two blanks before the status: dropped as malformed
//   - more than 32 blanks around a value, a Content-Length of 19 digits: the exchange is dropped as malformed
//   - Transfer-Encoding in HTTP/1.0 and beside Content-Length in a response: chunked wins
//   - lines of more than 768 bytes and heads of more than 16 KiB: their own tests hold them
func comparable(stream []byte, wants int) bool {
	if len(stream) > 8192 || wants > 8 {
		return false
	}
	for line := range bytes.Lines(stream) {
		if len(line) > 640 || manyBlanks.Match(line) || line[0] == ' ' || line[0] == '\t' {
			return false
		}
		if bytes.HasPrefix(line, []byte("HTTP/")) && len(line) > 9 && line[9] == ' ' {
			return false
		}
		name, value, _ := bytes.Cut(bytes.ToLower(bytes.TrimRight(line, "\r\n")), []byte(":"))
		switch string(name) {
		case "transfer-encoding":
			if strings.Trim(string(value), " ") != "chunked" || bytes.Contains(stream, []byte("HTTP/1.0")) {
				return false
			}
		case "content-length":
			if len(bytes.TrimSpace(value)) > 16 || bytes.Contains(bytes.ToLower(stream), []byte("transfer-encoding")) {
				return false
			}
		case "host", "user-agent", "x-request-id", "tracestate":
			// The first one that is not empty is kept; net/http takes the first.
			if bytes.Count(bytes.ToLower(stream), append(name, ':')) > bytes.Count(stream, []byte(" HTTP/1.")) {
				return false
			}
		}
		for _, c := range bytes.TrimRight(line, "\r\n") {
			if c < ' ' && c != '\t' || c > '~' {
				return false
			}
		}
	}
	return true
}

// FuzzHTTP1 feeds any bytes of both sides: the parser must neither fail nor work without bound, and every
// exchange side must be accounted for. What net/http reads as a valid conversation has to be read the same, and
// cut anywhere.
func FuzzHTTP1(f *testing.F) {
	for _, talk := range talks {
		f.Add(talk.stream(opener), talk.stream(acceptor), uint64(1))
	}
	f.Add([]byte("GET / HTTP/1.1\r\nContent-Length: 999999999999999999\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n"), uint64(2))
	f.Add([]byte("\n\n\n\n\n\n\n\n\n\n"), bytes.Repeat([]byte{'\n'}, 9000), uint64(3))
	f.Add(bytes.Repeat([]byte("GET / HTTP/1.1\r\n\r\n"), 40), bytes.Repeat([]byte("HTTP/1.1 100 \r\n\r\n"), 500), uint64(4))
	f.Add([]byte("A B HTTP/1.1\nTraceparent: 00--\nB3: -\nTracestate: ot=th:,ot=;;;rv:\n\n"), []byte("HTTP/1.1 999\n\n"), uint64(5))
	var d *driver
	f.Cleanup(func() {
		if d != nil && !d.dead {
			if err := d.stop(); err != nil {
				f.Error(err)
			}
		}
	})
	f.Fuzz(func(t *testing.T, request, response []byte, seed uint64) {
		if len(request)+len(response) > 1<<16 {
			return
		}
		if d == nil || d.dead {
			var err error
			if d, err = launch(); err != nil {
				t.Fatal(err)
			}
		}
		d.fuzz(t, request, response, seed)
	})
}

func (d *driver) fuzz(t *testing.T, request, response []byte, seed uint64) {
	t.Helper()
	c := conversation{ask(string(request)), reply(string(response))}
	rng := rand.New(rand.NewPCG(seed, 2))
	cuts := make([]int, rng.IntN(8))
	for i := range cuts {
		cuts[i] = 1 + rng.IntN(c.size()+1)
	}
	split := c.segments(cuts...)
	mixed := played(interleave(rng, split))
	joined := new(script)
	joined.connect(true)
	for _, g := range split {
		joined.segment(g)
	}
	joined.end(seed&1 == 0)
	full := new(script)
	full.limits(1, 1, true)
	full.Write(mixed.Bytes())
	restored := new(script)
	restored.limits(64, 64, false)

	outcomes := d.run(t, played(c.segments()), played(split), mixed, joined, full, restored)
	uncut, cut := outcomes[0], outcomes[1]
	for i := range outcomes {
		if err := outcomes[i].check(); err != nil {
			t.Fatalf("play %d: %v\n%s", i, err, trace(split))
		}
	}
	wants, err := c.parse()
	if err != nil || !comparable(request, len(wants)) || !comparable(response, len(wants)) {
		return
	}
	if uncut.counters["upgraded"] != 0 || uncut.counters["unsampled"] != 0 {
		return // no record tells of what the parent decided against
	}
	if err := compareAll(wants, uncut.records); err != nil {
		t.Fatalf("%v\n%s\ncounters %v", err, trace(c.segments()), uncut.counters)
	}
	if err := same(&cut, &uncut); err != nil {
		t.Fatalf("%v\n%s", err, trace(split))
	}
}

// interleave lets both sides speak at once: each side's segments stay in their order.
func interleave(rng *rand.Rand, segments []segment) []segment {
	var sides [2][]segment
	for _, g := range segments {
		sides[g.side] = append(sides[g.side], g)
	}
	var out []segment
	for len(sides[0])+len(sides[1]) > 0 {
		side := rng.IntN(2)
		if len(sides[side]) == 0 {
			side = 1 - side
		}
		out = append(out, sides[side][0])
		sides[side] = sides[side][1:]
	}
	return out
}

// What the fuzzer does for hours, for seconds and from fixed seeds: conversations with bytes changed, dropped,
// doubled and exchanged between the sides.
func TestDamagedConversations(t *testing.T) {
	d := start(t)
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var talk conversation
		if seed%2 == 0 {
			talk = talks[rng.IntN(len(talks))].conversation
		} else {
			talk = randomTalk(rng, 1+rng.IntN(4))
		}
		d.fuzz(t, damage(rng, talk.stream(opener)), damage(rng, talk.stream(acceptor)), seed)
	}
}

func damage(rng *rand.Rand, b []byte) []byte {
	for range rng.IntN(4) {
		if len(b) == 0 {
			return b
		}
		from := rng.IntN(len(b))
		to := from + rng.IntN(min(64, len(b)-from)+1)
		switch rng.IntN(4) {
		case 0:
			b[from] = "\r\n :;/0aF\x00\xff"[rng.IntN(11)]
		case 1:
			b = append(b[:from:from], b[to:]...)
		case 2:
			b = append(b[:to:to], b[from:]...)
		case 3:
			b[from] = byte(rng.Uint32())
		}
	}
	return b
}

// Sequence numbers from anywhere, as an attacker may send them, are no harm; the next turn is right again.
func TestSegmentsFromFarAway(t *testing.T) {
	d := start(t)
	c := pipeline(1)
	for _, off := range []uint32{1, 1000, 1 << 30, 1<<31 - 1, 1 << 31, 1<<31 + 1, 3 << 30, 1<<32 - 1} {
		for side := range 2 {
			segments := c.segments(5)
			stray := segments[0]
			if side == acceptor {
				stray = segments[len(segments)-1]
			}
			stray.seq += off
			for at := range segments {
				all := append(append(append([]segment{}, segments[:at]...), stray), segments[at:]...)
				o := d.run(t, played(all))[0]
				if err := o.check(); err != nil {
					t.Errorf("%d away: %v", off, err)
				}
			}
		}
	}
}
