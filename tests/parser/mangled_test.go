package parser

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ambit/bpf"
)

// indexOf finds whose exchange a record is by its request line, which no other one has.
func indexOf(t testing.TB, r *bpf.Record, wants []want) int {
	t.Helper()
	line, _ := field(r, bpf.FieldRequestLine)
	for i := range wants {
		if wants[i].line == line {
			return i
		}
	}
	t.Fatalf("nobody sent %q", line)
	return 0
}

// randomTalk makes a conversation whose exchanges can be told apart by every field.
func randomTalk(rng *rand.Rand, exchanges int) conversation {
	var c conversation
	for i := range exchanges {
		var request, response strings.Builder
		fmt.Fprintf(&request, "%s /exchange/%d HTTP/1.1\r\nHost: host-%d\r\nUser-Agent: agent-%d\r\nX-Request-Id: id-%d\r\nTracestate: m=%d\r\n",
			[]string{"POST", "PUT", "GET"}[rng.IntN(3)], i, i, i, i, i)
		writeBody(rng, &request)
		fmt.Fprintf(&response, "HTTP/1.1 %d Status\r\nServer: x\r\n", 200+10*rng.IntN(30)+i%4)
		writeBody(rng, &response)
		c = append(c, ask(request.String()), reply(response.String()))
	}
	return c
}

// writeBody ends a head and adds a body, framed one way or the other. Bodies hold text that no parser may take
// for a head, unless it lost its place without noticing.
func writeBody(rng *rand.Rand, b *strings.Builder) {
	body := strings.Repeat("HTTP/1.1 599 Evil\r\nContent-Length: 1\r\n\r\nxGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n", rng.IntN(12))
	body = body[:rng.IntN(len(body)+1)]
	if rng.IntN(2) == 0 {
		fmt.Fprintf(b, "Content-Length: %d\r\n\r\n%s", len(body), body)
		return
	}
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	for body != "" {
		n := 1 + rng.IntN(len(body))
		fmt.Fprintf(b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\n\r\n")
}

// network is what may happen to packets before the tap sees them: chances of 1 in n, 0 is never.
type network struct {
	about     string
	repeat    int  // a segment comes again, at once or up to a few turns later
	overlap   int  // a segment begins with bytes of the ones before it
	rewind    int  // any range of what was sent before comes again, cut otherwise
	swap      int  // a segment changes places with the next one of its turn
	lose      int  // a segment is never seen
	keepalive int  // a probe: one byte before the next one, which need not be what was sent there
	closing   bool // the server's FIN comes behind its last byte, or before some of them, and then the sockets end
}

// carry takes a conversation through the network. A side speaks when it has all that the other one said, so no
// segment overtakes one of an earlier turn; repetitions come late.
func (n *network) carry(rng *rand.Rand, c conversation) []segment {
	once := func(in int) bool { return in > 0 && rng.IntN(in) == 0 }
	var out, late []segment
	var said [2][]byte
	isn := [2]uint32{openerISN, acceptorISN}
	at := 0
	for _, t := range c {
		var cuts []int
		for cut := at; cut < at+len(t.text); cut += 1 + rng.IntN(1+rng.IntN(600)) {
			cuts = append(cuts, cut)
		}
		at += len(t.text)
		before := len(said[t.side])
		said[t.side] = append(said[t.side], t.text...)
		turn := conversation{t}.segments(shift(cuts, at-len(t.text))...)
		for i := range turn {
			g := &turn[i]
			from := before + len(t.text)
			for _, later := range turn[i:] {
				from -= len(later.bytes)
			}
			to := from + len(g.bytes)
			if once(n.overlap) {
				from = max(0, from-rng.IntN(300))
			}
			g.seq = isn[t.side] + 1 + uint32(from)
			g.ack = isn[1-t.side] + 1 + uint32(len(said[1-t.side]))
			g.bytes = said[t.side][from:to]
		}
		if n.closing && at == c.size() {
			turn = append(turn, segment{side: t.side, flags: fin, seq: isn[t.side] + 1 + uint32(len(said[t.side])), ack: isn[1-t.side] + 1 + uint32(len(said[1-t.side]))})
		}
		for i := 0; i+1 < len(turn); i++ {
			if once(n.swap) {
				turn[i], turn[i+1] = turn[i+1], turn[i]
			}
		}
		for _, g := range turn {
			for len(late) > 0 && rng.IntN(3) == 0 {
				out = append(out, late[0])
				late = late[1:]
			}
			if once(n.keepalive) {
				out = append(out, segment{side: g.side, seq: isn[g.side] + uint32(before), ack: g.ack, bytes: []byte{0}})
			}
			// Where even the FIN is lost, in the kernel the socket's own numbers tell what was.
			if g.flags != 0 || !once(n.lose) {
				out = append(out, g)
			}
			if once(n.repeat) {
				late = append(late, g)
			}
			if once(n.rewind) {
				side := rng.IntN(2)
				limit := len(said[side])
				if side == g.side {
					limit = before
				}
				if limit > 0 {
					from := rng.IntN(limit)
					to := from + 1 + rng.IntN(limit-from)
					late = append(late, segment{side: side, seq: isn[side] + 1 + uint32(from), ack: g.ack, bytes: said[side][from:to]})
				}
			}
		}
	}
	return append(out, late...)
}

func shift(cuts []int, by int) []int {
	out := slices.Clone(cuts)
	for i := range out {
		out[i] -= by
	}
	return out
}

var networks = []network{
	{about: "repeated", repeat: 4},
	{about: "overlapping", overlap: 3},
	{about: "repeated in other cuts, with probes", repeat: 6, overlap: 6, rewind: 4, keepalive: 6},
	{about: "out of order", swap: 12},
	{about: "lost", lose: 20},
	{about: "lost and out of order", lose: 30, swap: 20, keepalive: 10},
	{about: "out of order, with a FIN", swap: 5, closing: true},
	{about: "lost, with a FIN", lose: 8, closing: true},
	{about: "everything, with a FIN", repeat: 8, overlap: 8, rewind: 8, lose: 20, swap: 6, keepalive: 10, closing: true},
	{about: "everything but losses", repeat: 8, overlap: 8, rewind: 8, swap: 20, keepalive: 10},
}

// seeds is how many conversations go through each network.
const seeds uint64 = 1000

// Whatever the network does, each exchange that is reported is one that was sent, field by field. Where nothing
// is missing or out of order all of them are reported; else the others are counted as lost.
func TestMangledNetworks(t *testing.T) {
	d := start(t)
	for _, n := range networks {
		t.Run(n.about, func(t *testing.T) {
			whole := n.swap == 0 && n.lose == 0
			reported, sent := 0, 0
			for seed := range seeds {
				rng := rand.New(rand.NewPCG(seed, 1))
				c := randomTalk(rng, 1+rng.IntN(12))
				wants, err := c.parse()
				if err != nil {
					t.Fatal(err)
				}
				segments := n.carry(rng, c)
				s := played(segments)
				if n.closing {
					s.end(false)
				}
				o := d.run(t, s)[0]
				if err := judge(t, &o, wants, whole, n.closing); err != nil {
					t.Fatalf("seed %d: %v\ncounters %v\n%s", seed, err, o.counters, trace(segments))
				}
				reported += len(o.records)
				sent += len(wants)
			}
			t.Logf("%d of %d exchanges reported", reported, sent)
			if reported < sent/4 {
				t.Errorf("%d of %d exchanges reported: the parser gives up too easily", reported, sent)
			}
		})
	}
}

func judge(t *testing.T, o *outcome, wants []want, whole, closing bool) error {
	t.Helper()
	if err := o.check(); err != nil {
		return err
	}
	if whole {
		if o.counters["desync"] != 0 {
			return fmt.Errorf("a repetition cost the place")
		}
		return compareAll(wants, o.records)
	}
	last := -1
	for i := range o.records {
		r := &o.records[i]
		at := indexOf(t, r, wants)
		if at <= last {
			return fmt.Errorf("exchange %d came behind %d", at, last)
		}
		last = at
		w := wants[at]
		// Every response was sent whole, so no connection's end is why one is missing.
		if closing && r.Ending != bpf.EndingResponse {
			return fmt.Errorf("exchange %d ended as %d", at, r.Ending)
		}
		if err := w.compareAsFarAsSeen(r); err != nil {
			return fmt.Errorf("exchange %d: %w", at, err)
		}
	}
	// Where even every packet of a request is lost, its response is what tells; nothing does of a last exchange
	// of which no packet was seen.
	if len(o.records) < len(wants)-1 && o.counters["desync"]+o.counters["orphan_response"] == 0 {
		return fmt.Errorf("%d of %d exchanges, and nothing was counted", len(o.records), len(wants))
	}
	return nil
}

// compareAsFarAsSeen is compare for an exchange whose end may have been lost: what was seen has to be true.
func (w want) compareAsFarAsSeen(r *bpf.Record) error {
	// A body is unknown, or all of it was counted; but one that nothing ended is as long as it was seen.
	over := r.Ending == bpf.EndingResponse
	if !sized(r.ResponseBody, w.responseBody, over) || !sized(r.RequestBody, w.requestBody, over) {
		return fmt.Errorf("bodies of %d and %d bytes, sent were %d and %d", int64(r.RequestBody), int64(r.ResponseBody), w.requestBody, w.responseBody)
	}
	if r.Ending != bpf.EndingResponse && r.Status == 0 {
		// Neither was the rest of its head.
		for i, text := range map[int]*string{
			bpf.FieldHost: &w.host, bpf.FieldUserAgent: &w.agent, bpf.FieldRequestID: &w.id, bpf.FieldTraceState: &w.state,
		} {
			if got, _ := field(r, i); got == "" {
				*text = ""
			}
		}
	}
	w.responseBody, w.requestBody = int64(r.ResponseBody), int64(r.RequestBody)
	if r.Ending != bpf.EndingResponse {
		if r.Status == 0 {
			w.status = 0
		}
		whole := *r
		whole.Ending = bpf.EndingResponse
		r = &whole
	}
	return w.compare(r)
}

func sized(got uint64, sent int64, over bool) bool {
	return int64(got) == sent || int64(got) == -1 || (!over && int64(got) < sent)
}

// trace shows what the tap saw.
func trace(segments []segment) string {
	var b strings.Builder
	isn := [2]uint32{openerISN, acceptorISN}
	for _, g := range segments {
		from := g.seq - isn[g.side] - 1
		text := g.bytes
		if len(text) > 60 {
			text = text[:60]
		}
		fmt.Fprintf(&b, "%s %d-%d %q\n", []string{"<", ">"}[1-g.side], int32(from), int(int32(from))+len(g.bytes), text)
	}
	return b.String()
}
