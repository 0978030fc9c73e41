package parser

import (
	"fmt"
	"strings"
	"testing"

	"ambit/bpf"
)

const noBody = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// Wherever a line of a head ends, in the window or just behind it, the head is read.
func TestLineEndsEverywhere(t *testing.T) {
	d := start(t)
	for size := range 1700 {
		filler := "Cookie: " + strings.Repeat("c", size) + "\r\n"
		c := conversation{
			ask("GET /one HTTP/1.1\r\nHost: h\r\n" + filler + "X-Request-Id: i\r\n\r\n"),
			reply("HTTP/1.1 200 OK\r\n" + filler + "Content-Length: 2\r\n\r\nok"),
			ask("GET /two HTTP/1.1\r\n" + filler + "Accept: */*\r\n\r\n"),
			reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + filler + "\r\n"),
		}
		wants, err := c.parse()
		if err != nil {
			t.Fatal(err)
		}
		o := outcomeOf(t, d, c)
		if err := compareAll(wants, o.records); err != nil {
			t.Fatalf("a line of %d bytes: %v, %v", len(filler), err, o.counters)
		}
	}
}

// A client that expected a word before its body sends the next request in its place where the word was another one, or
// the body all the same.
func TestBodyThatIsSpared(t *testing.T) {
	d := start(t)
	refused := reply("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
	next := ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
	for _, framing := range []struct{ head, body string }{
		{"Content-Length: 5\r\n\r\n", "hello"}, {"Transfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"},
	} {
		head := ask("POST /first HTTP/1.1\r\nExpect: 100-continue\r\n" + framing.head)
		for about, c := range map[string]conversation{
			"spared": {head, refused, next, reply(noBody)},
			"sent":   {head, refused, ask(framing.body), next, reply(noBody)},
		} {
			o := outcomeOf(t, d, c)
			if err := o.check(); err != nil {
				t.Fatal(about, err)
			}
			var got []string
			for i := range o.records {
				line, _ := field(&o.records[i], bpf.FieldRequestLine)
				got = append(got, fmt.Sprint(line, o.records[i].Status))
			}
			if fmt.Sprint(got) != "[POST /first HTTP/1.1417 GET /next HTTP/1.1200]" {
				t.Errorf("%s, %q: %q, %v", about, framing.head, got, o.counters)
			}
		}
	}
}

// However many requests wait, each is counted once when the connection ends.
func TestManyOutstanding(t *testing.T) {
	d := start(t)
	for _, n := range []int{31, 250, 256, 257, 300, 700} {
		o := outcomeOf(t, d, conversation{ask(strings.Repeat("GET / HTTP/1.1\r\n\r\n", n))})
		if err := o.check(); err != nil {
			t.Errorf("%d requests: %v", n, err)
		}
		if o.counters["seen"] != uint64(2*n) {
			t.Errorf("%d requests: %v", n, o.counters)
		}
	}
}

// The client's FIN has a number that the server confirms, though it came before the last of the data.
func TestFINBeforeData(t *testing.T) {
	d := start(t)
	c := conversation{ask("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"), reply(noBody)}
	g := c.segments(40)
	early := segment{side: opener, seq: g[1].seq + uint32(len(g[1].bytes)), ack: g[1].ack, flags: fin}
	answer := g[2]
	answer.ack++
	s := new(script)
	s.connect(false)
	for _, g := range []segment{g[0], early, g[1], answer} {
		s.segment(g)
	}
	s.end(false)
	o := d.run(t, s)[0]
	if err := o.check(); err != nil || len(o.records) != 1 || o.counters["seen"] != 2 || o.records[0].RequestBody != 4 {
		t.Errorf("%v, %d records, %v", err, len(o.records), o.counters)
	}
}

// Of several traceparent headers none holds.
func TestSeveralTraceparents(t *testing.T) {
	d := start(t)
	one, two := "traceparent: 00-"+trace32+"-"+span16+"-01\r\n", "traceparent: 00-"+trace32+"-"+span16+"-00\r\n"
	for n, headers := range []string{one + two, two + one, one + two + one, one + one} {
		o := outcomeOf(t, d, conversation{ask("GET / HTTP/1.1\r\n" + headers + "\r\n"), reply(noBody)})
		if len(o.records) != 1 || o.records[0].Flags&(bpf.FlagTraceparent|bpf.FlagParentHeader|bpf.FlagTraceHeader) != 0 {
			t.Errorf("%d: %d records, %v", n, len(o.records), o.counters)
		}
	}
}
