package parser

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"ambit/bpf"
)

// talks are conversations that cuts must not change.
var talks = []struct {
	about string
	conversation
	// unlike net/http: it refuses what ambit reads, so only the cuts are compared.
	unlike bool
}{
	{about: "the least", conversation: conversation{
		ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), reply("HTTP/1.1 204 No Content\r\n\r\n"),
	}},
	{about: "a body each way, by length", conversation: conversation{
		ask("POST /p?q=1 HTTP/1.1\r\nhost: b.c:8080\r\ncontent-length: 11\r\n\r\nhello\r\n\r\nyo"),
		reply("HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\n\r\n\r\n"),
	}},
	{about: "chunks each way, with extensions and trailers", conversation: conversation{
		ask("PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0A\r\n0123456789\r\n0\r\nT: v\r\n\r\n"),
		reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n"),
	}},
	{about: "HEAD, whose response has a length and no body", conversation: conversation{
		ask("HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n"), reply("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
		ask("GET /g HTTP/1.1\r\nHost: h\r\n\r\n"), reply("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
	}},
	{about: "interim responses", conversation: conversation{
		ask("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
		reply("HTTP/1.1 100 Continue\r\n\r\n"), ask("ok"),
		reply("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
	}},
	{about: "HTTP/1.0, a body that the connection's end ends", conversation: conversation{
		ask("GET /old HTTP/1.0\r\n\r\n"), {acceptor, "HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 500 No\r\n\r\n", fin},
	}},
	{about: "tracing headers in any case", conversation: conversation{
		ask("GET / HTTP/1.1\r\nTraceParent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n" +
			"TRACESTATE: v=1,ot=th:8\r\nX-Request-ID: r-1\r\nUser-Agent: t/1\r\nHost: h\r\n\r\n"),
		reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
	}},
	{about: "b3 in several headers", conversation: conversation{
		ask("GET / HTTP/1.1\r\nX-B3-TraceId: 0af7651916cd43dd8448eb211c80319c\r\nX-B3-SpanId: b7ad6b7169203331\r\n" +
			"X-B3-Sampled: 1\r\nHost: h\r\n\r\n"),
		reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
	}},
	{about: "every form of target", conversation: conversation{
		ask("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"), reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
		ask("GET http://u:p@x.y/z HTTP/1.1\r\nHost: h\r\n\r\n"), reply("HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"),
		ask("CONNECT x.y:443 HTTP/1.1\r\nHost: x.y:443\r\n\r\n"), reply("HTTP/1.1 200 OK\r\n\r\n"),
	}},
	{about: "a tunnel", unlike: true, conversation: conversation{
		ask("CONNECT x.y:443 HTTP/1.1\r\nHost: x.y:443\r\n\r\n"), reply("HTTP/1.1 200 OK\r\n\r\n"),
		ask("\x16\x03\x01"), reply("\x16GET / HTTP/1.1"),
	}},
	{about: "an upgrade", conversation: conversation{
		ask("GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
		reply("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"), ask("GET / HTTP/1.1\r\n\r\n")}, unlike: true},
	{about: "bodies that look like messages", conversation: conversation{
		ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 38\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n12\r\n"),
		reply("HTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\n1"),
	}},
	{about: "chunk extensions longer than what is looked at", unlike: true, conversation: conversation{
		ask("POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=" + strings.Repeat("y", 900) + "\r\nhello\r\n0;" +
			strings.Repeat("z", 800) + "\r\n\r\n"),
		reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;" + strings.Repeat("y", 1600) + "\r\nabc\r\n0\r\n\r\n"),
		ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n"), reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
	}},
	{about: "many blanks", conversation: conversation{
		ask("POST /b HTTP/1.1\r\nHost: h\r\nContent-Length:              5 \t  \r\n\r\nhello"),
		reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
	}},
	{about: "line feeds alone", conversation: conversation{
		ask("GET /lf HTTP/1.1\nHost: h\nX-Request-Id: 7\n\n"), reply("HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"),
	}},
	{about: "empty lines before the messages", unlike: true, conversation: conversation{
		ask("\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n"),
		reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
	}},
	{about: "a request without a response", conversation: conversation{
		ask("GET /never HTTP/1.1\r\nHost: h\r\n\r\n"),
	}},
	{about: "a head that the connection's end cuts off", unlike: true, conversation: conversation{
		ask("GET /half HTTP/1.1\r\nHost: h\r\nUser-Agent: gone"),
	}},
	{about: "values with blanks around them, odd methods and no reason", conversation: conversation{
		ask("M-SEARCH /x HTTP/1.1\r\nHost: \t h \t \r\nUser-Agent:   a  b \r\nContent-Length:  0\r\n\r\n"),
		reply("HTTP/1.1 299\r\nContent-Length:\t3\r\n\r\nabc"),
	}},
}

// outcomeOf plays a conversation cut at these offsets.
func outcomeOf(t testing.TB, d *driver, c conversation, cuts ...int) outcome {
	t.Helper()
	return d.run(t, played(c.segments(cuts...)))[0]
}

// same tells how two outcomes of one conversation differ, nil if only in time.
func same(got, uncut *outcome) error {
	if err := got.check(); err != nil {
		return err
	}
	if !maps.Equal(got.counters, uncut.counters) {
		return fmt.Errorf("counters %v, uncut %v", got.counters, uncut.counters)
	}
	if !slices.Equal(timeless(got.records), timeless(uncut.records)) {
		return fmt.Errorf("the records differ")
	}
	return nil
}

// batch bounds how many scripts are played at once, and so the memory for their outcomes.
const batch = 2048

// cutEverywhere plays c with each set of cuts and compares each with the uncut one.
func cutEverywhere(t *testing.T, d *driver, c conversation, sets [][]int) {
	t.Helper()
	uncut := outcomeOf(t, d, c)
	if err := uncut.check(); err != nil {
		t.Fatal(err)
	}
	for part := range slices.Chunk(sets, batch) {
		scripts := make([]*script, len(part))
		for i, cuts := range part {
			scripts[i] = played(c.segments(cuts...))
		}
		for i, got := range d.run(t, scripts...) {
			if err := same(&got, &uncut); err != nil {
				t.Fatalf("cut at %v: %v", part[i], err)
			}
		}
	}
}

// single are all cuts at one byte, and the cut at every byte at once.
func single(size int) [][]int {
	var sets [][]int
	var all []int
	for i := 1; i < size; i++ {
		sets = append(sets, []int{i})
		all = append(all, i)
	}
	return append(sets, all)
}

// pairs are all cuts at two bytes.
func pairs(size int) [][]int {
	var sets [][]int
	for i := 1; i < size; i++ {
		for j := i + 1; j < size; j++ {
			sets = append(sets, []int{i, j})
		}
	}
	return sets
}

func TestTalks(t *testing.T) {
	d := start(t)
	for _, talk := range talks {
		t.Run(talk.about, func(t *testing.T) {
			uncut := outcomeOf(t, d, talk.conversation)
			if err := uncut.check(); err != nil {
				t.Fatal(err)
			}
			for name := range uncut.counters {
				if strings.HasPrefix(name, "drop_") || name == "desync" || name == "not_http" {
					t.Errorf("something was lost: %v", uncut.counters)
				}
			}
			if talk.unlike {
				return
			}
			wants, err := talk.parse()
			if err != nil {
				t.Fatal(err)
			}
			if err := compareAll(wants, uncut.records); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCutAtEveryByte(t *testing.T) {
	d := start(t)
	for _, talk := range talks {
		t.Run(talk.about, func(t *testing.T) {
			cutEverywhere(t, d, talk.conversation, single(talk.size()))
		})
	}
}

// pairSize bounds the conversations that are cut at every pair of bytes.
const pairSize = 180

func TestCutAtEveryPairOfBytes(t *testing.T) {
	d := start(t)
	for _, talk := range talks {
		if talk.size() > pairSize {
			continue
		}
		t.Run(talk.about, func(t *testing.T) {
			cutEverywhere(t, d, talk.conversation, pairs(talk.size()))
		})
	}
}

// pipeline is a conversation of n requests sent before any response.
func pipeline(n int) conversation {
	var requests, responses strings.Builder
	for i := range n {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&requests, "GET /%d HTTP/1.1\r\nHost: h\r\nX-Request-Id: %d\r\n\r\n", i, i)
			fmt.Fprintf(&responses, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", i, strings.Repeat("x", i))
		case 1:
			fmt.Fprintf(&requests, "POST /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", i, i, strings.Repeat("y", i))
			fmt.Fprintf(&responses, "HTTP/1.1 %d Not\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n", 400+i)
		case 2:
			fmt.Fprintf(&requests, "HEAD /%d HTTP/1.1\r\nHost: h\r\n\r\n", i)
			responses.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n")
		case 3:
			fmt.Fprintf(&requests, "PUT /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", i)
			responses.WriteString("HTTP/1.1 204 No Content\r\n\r\n")
		}
	}
	return conversation{ask(requests.String()), reply(responses.String())}
}

func TestPipelines(t *testing.T) {
	d := start(t)
	for _, depth := range []int{2, 8, 32} {
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			c := pipeline(depth)
			wants, err := c.parse()
			if err != nil {
				t.Fatal(err)
			}
			uncut := outcomeOf(t, d, c)
			if err := compareAll(wants, uncut.records); err != nil {
				t.Fatal(err)
			}
			cutEverywhere(t, d, c, single(c.size()))
		})
	}
}

// A pipeline deeper than what is kept loses the exchanges in the middle, counted, and no other.
func TestPipelineTooDeep(t *testing.T) {
	d := start(t)
	c := pipeline(60)
	wants, err := c.parse()
	if err != nil {
		t.Fatal(err)
	}
	o := outcomeOf(t, d, c)
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	if lost := o.counters["drop_pipeline"]; lost == 0 || int(lost/2)+len(o.records) != len(wants) {
		t.Errorf("%d exchanges and %v", len(o.records), o.counters)
	}
	for i := range o.records {
		if err := wants[indexOf(t, &o.records[i], wants)].compare(&o.records[i]); err != nil {
			t.Error(err)
		}
	}
}

// Heads with lines and values longer than what is looked at, cut around each bound.
func TestLongHeads(t *testing.T) {
	d := start(t)
	for _, n := range []int{500, 630, 640, 700, 767, 768, 769, 896, 897, 2000, 8192, 15000} {
		for _, c := range []conversation{
			{ask("GET / HTTP/1.1\r\nCookie: " + strings.Repeat("c", n) + "\r\nHost: h\r\nX-Request-Id: after\r\n\r\n"),
				reply("HTTP/1.1 200 OK\r\nSet-Cookie: " + strings.Repeat("s", n) + "\r\nContent-Length: 2\r\n\r\nok")},
			{ask("GET /" + strings.Repeat("p", n) + " HTTP/1.1\r\nHost: h\r\nUser-Agent: " + strings.Repeat("u", n/2) + "\r\n\r\n"),
				reply("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")},
			{ask("GET / HTTP/1.1\r\nTracestate: " + strings.Repeat("a=b,", n/4) + "\r\nHost: " + strings.Repeat("h", n) + "\r\nX-Request-Id: " + strings.Repeat("i", n) + "\r\n\r\n"),
				reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")},
		} {
			if len(c[0].text) > 16384 {
				continue
			}
			wants, err := c.parse()
			if err != nil {
				t.Fatal(err)
			}
			uncut := outcomeOf(t, d, c)
			if err := compareAll(wants, uncut.records); err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			var sets [][]int
			for at := 1; at < c.size(); at += 1 + c.size()/400 {
				sets = append(sets, []int{at}, []int{at, at + 1, at + 2}, []int{at, at + 700, at + 1400})
			}
			cutEverywhere(t, d, c, sets)
		}
	}
}

// A head of 16 KiB is read, in one line or in many.
func TestHeadOfTheLongest(t *testing.T) {
	d := start(t)
	for _, line := range []string{"X: " + strings.Repeat("y", 95) + "\r\n", "X: " + strings.Repeat("y", 16200) + "\r\n"} {
		head := "GET / HTTP/1.1\r\nHost: h\r\n"
		for len(head)+len(line)+len("X-Request-Id: \r\n\r\n") < 16384-100 {
			head += line
		}
		head += "X-Request-Id: " + strings.Repeat("i", 16384-len(head)-len("X-Request-Id: \r\n\r\n")) + "\r\n\r\n"
		c := conversation{ask(head), reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")}
		wants, err := c.parse()
		if err != nil || len(head) != 16384 {
			t.Fatal(len(head), err)
		}
		uncut := outcomeOf(t, d, c)
		if err := compareAll(wants, uncut.records); err != nil {
			t.Fatal(err, uncut.counters)
		}
		cutEverywhere(t, d, c, [][]int{{1448, 2896, 4344, 5792, 7240}, {7000}, {16383}, {16384 - 3}})
	}
}

// A body that the connection's end would have ended, and a reset did.
func TestResetInABody(t *testing.T) {
	d := start(t)
	c := conversation{ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), reply("HTTP/1.1 200 OK\r\n\r\nhalf")}
	for _, about := range []string{"packet", "socket"} {
		s := new(script)
		s.connect(false)
		segments := c.segments()
		if about == "packet" {
			segments[1].flags = rst
		}
		for _, g := range segments {
			s.segment(g)
		}
		s.end(true)
		o := d.run(t, s)[0]
		if len(o.records) != 1 || o.records[0].Ending != bpf.EndingReset || o.records[0].ResponseBody != 4 {
			t.Errorf("%s: %+v", about, o.counters)
		}
	}
}

// A first line that is longer than what is looked at shows by its end alone whether it is a request's.
func TestLongFirstLine(t *testing.T) {
	d := start(t)
	for _, c := range []struct {
		about, end string
		is         bool
	}{
		{"a request", " HTTP/1.1\r\n", true},
		{"a request of HTTP/1.0 that ends in a bare line feed", " HTTP/1.0\n", true},
		{"another version", " HTTP/1.2\r\n", false},
		{"another protocol", "\r\n", false},
		{"a text that goes on", " HTTP/1.1 and more\r\n", false},
	} {
		t.Run(c.about, func(t *testing.T) {
			for size := 760; size < 1700; size += 1 + size%7 {
				line := "1063 <165>1 user=admin password=hunter2 "
				line += strings.Repeat("x", size-len(line)) + c.end
				talk := conversation{ask(line + "Host: h\r\n\r\n"), reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")}
				whole := len(line)
				for _, cuts := range [][]int{nil, {whole - 1}, {whole - 2}, {whole - 5}, {whole - 9}, {whole - 12}, {700, whole - 3, whole - 2, whole - 1}, {768}, {769, 770, 775}} {
					o := d.run(t, played(talk.segments(cuts...)))[0]
					if err := o.check(); err != nil {
						t.Fatalf("%d bytes, cut at %v: %v", len(line), cuts, err)
					}
					if is := len(o.records) == 1 && o.records[0].Status == 200; is != c.is || (!is && len(o.records) > 0) {
						t.Fatalf("%d bytes, cut at %v: %d records, %v", len(line), cuts, len(o.records), o.counters)
					}
				}
			}
		})
	}
}

// A head of more than 16 KiB is dropped and counted, and the next message is right.
func TestHeadTooLong(t *testing.T) {
	d := start(t)
	long := "GET /long HTTP/1.1\r\n" + strings.Repeat("X: "+strings.Repeat("y", 500)+"\r\n", 32)
	long += "X: " + strings.Repeat("y", 16385-len(long)-len("X: \r\n\r\n")) + "\r\n\r\n"
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	c := conversation{ask(long), reply(ok), ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n"), reply(ok)}
	o := outcomeOf(t, d, c)
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	if o.counters["drop_head_too_long"] != 2 || len(o.records) != 1 {
		t.Fatalf("%d exchanges, %v", len(o.records), o.counters)
	}
	if line, _ := field(&o.records[0], 0); line != "GET /next HTTP/1.1" || o.records[0].Status != 200 {
		t.Errorf("%q, status %d", line, o.records[0].Status)
	}
}
