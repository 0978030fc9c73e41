package parser

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"ambit/bpf"
)

// turn is what one side says before the other one speaks.
type turn struct {
	side  int
	text  string
	flags byte // with its last byte
}

// conversation is a whole connection.
type conversation []turn

// ask and reply are turns of the two sides.
func ask(text string) turn   { return turn{side: opener, text: text} }
func reply(text string) turn { return turn{side: acceptor, text: text} }

// size is the number of bytes of both sides.
func (c conversation) size() int {
	n := 0
	for _, t := range c {
		n += len(t.text)
	}
	return n
}

// stream is all that one side says.
func (c conversation) stream(side int) []byte {
	var b []byte
	for _, t := range c {
		if t.side == side {
			b = append(b, t.text...)
		}
	}
	return b
}

// segments cuts the conversation into packets: at the end of each turn, and at the given offsets, which count
// the bytes of both sides in the order in which they are said.
func (c conversation) segments(cuts ...int) []segment {
	next := [2]uint32{openerISN + 1, acceptorISN + 1}
	cuts = slices.Sorted(slices.Values(cuts))
	var out []segment
	at := 0
	for _, t := range c {
		from := 0
		for from < len(t.text) || t.text == "" {
			to := len(t.text)
			if i, _ := slices.BinarySearch(cuts, at+from+1); i < len(cuts) && cuts[i] < at+to {
				to = cuts[i] - at
			}
			g := segment{side: t.side, seq: next[t.side], ack: next[1-t.side], bytes: []byte(t.text[from:to])}
			if to == len(t.text) {
				g.flags = t.flags
			}
			out = append(out, g)
			next[t.side] += uint32(to - from)
			from = to
			if t.text == "" {
				break
			}
		}
		at += len(t.text)
	}
	return out
}

// played is a script of one connection with these segments, closed in good order behind them.
func played(segments []segment) *script {
	s := new(script)
	s.connect(false)
	for _, g := range segments {
		s.segment(g)
	}
	s.end(false)
	return s
}

// want is one exchange by net/http's word.
type want struct {
	line, host, agent, id, state string
	hostKnown                    bool // net/http tells the Host header
	status                       int  // 0: no response
	requestBody, responseBody    int64
}

// errForeign says that a stream is not one that net/http and ambit are held to agree on.
var errForeign = errors.New("not compared")

// parse reads both streams by net/http. The error says why they are no valid conversation.
func (c conversation) parse() ([]want, error) {
	requests := bufio.NewReader(bytes.NewReader(c.stream(opener)))
	var wants []want
	var asked []*http.Request
	for {
		if _, err := requests.Peek(1); err != nil {
			break
		}
		r, err := http.ReadRequest(requests)
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", len(asked), err)
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return nil, fmt.Errorf("body of request %d: %w", len(asked), err)
		}
		if r.ProtoMajor != 1 || r.ProtoMinor > 1 {
			return nil, fmt.Errorf("version %s: %w", r.Proto, errForeign)
		}
		asked = append(asked, r)
		wants = append(wants, want{
			line: r.Method + " " + r.RequestURI + " " + r.Proto, host: r.Host, agent: r.UserAgent(),
			hostKnown: r.URL.Host == "", id: r.Header.Get("X-Request-Id"), state: r.Header.Get("Tracestate"),
			requestBody: n,
		})
	}
	responses := bufio.NewReader(bytes.NewReader(c.stream(acceptor)))
	for i := 0; ; {
		if _, err := responses.Peek(1); err != nil {
			return wants, nil
		}
		if i == len(asked) {
			return nil, fmt.Errorf("a response too many: %w", errForeign)
		}
		r, err := http.ReadResponse(responses, asked[i])
		if err != nil {
			return nil, fmt.Errorf("response %d: %w", i, err)
		}
		if r.StatusCode < 100 || r.ProtoMajor != 1 || r.ProtoMinor > 1 {
			return nil, fmt.Errorf("%s %s: %w", r.Proto, r.Status, errForeign)
		}
		switched := r.StatusCode == 101 || asked[i].Method == "CONNECT" && r.StatusCode/100 == 2
		if switched {
			wants[i].status = r.StatusCode
			if i+1 < len(asked) {
				return nil, fmt.Errorf("a request behind an upgrade: %w", errForeign)
			}
			return wants, nil
		}
		if r.StatusCode < 200 {
			continue
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return nil, fmt.Errorf("body of response %d: %w", i, err)
		}
		wants[i].status, wants[i].responseBody = r.StatusCode, n
		i++
	}
}

// field is one text of a record, and whether it was cut.
func field(r *bpf.Record, i int) (string, bool) {
	f := r.Fields[i]
	return string(r.Text[f.Off : f.Off+f.Len]), r.Cut&(1<<i) != 0
}

// compare holds a record against what net/http read.
func (w *want) compare(r *bpf.Record) error {
	for _, f := range []struct {
		name  string
		index int
		want  string
		skip  bool
	}{
		{"request line", bpf.FieldRequestLine, w.line, false},
		{"host", bpf.FieldHost, w.host, !w.hostKnown},
		{"user agent", bpf.FieldUserAgent, w.agent, false},
		{"request ID", bpf.FieldRequestID, w.id, false},
		{"tracestate", bpf.FieldTraceState, w.state, false},
	} {
		got, cut := field(r, f.index)
		if f.skip || got == f.want || cut && strings.HasPrefix(f.want, got) {
			continue
		}
		return fmt.Errorf("%s is %q, want %q", f.name, got, f.want)
	}
	if int(r.Status) != w.status || int64(r.RequestBody) != w.requestBody || int64(r.ResponseBody) != w.responseBody {
		return fmt.Errorf("status %d and bodies of %d and %d bytes, want %d, %d, %d",
			r.Status, r.RequestBody, r.ResponseBody, w.status, w.requestBody, w.responseBody)
	}
	if wantEnding := bpf.EndingResponse; w.status != 0 && r.Ending != wantEnding {
		return fmt.Errorf("ending %d with a whole response", r.Ending)
	}
	if r.StartNs > r.EndNs || r.FirstNs != 0 && (r.FirstNs < r.StartNs || r.FirstNs > r.EndNs) || r.FirstNs == 0 && w.status != 0 {
		return fmt.Errorf("times %d, %d, %d", r.StartNs, r.FirstNs, r.EndNs)
	}
	return nil
}

// compareAll holds all records of a conversation, in their order, against net/http's.
func compareAll(wants []want, records []bpf.Record) error {
	if len(wants) != len(records) {
		return fmt.Errorf("%d exchanges, want %d", len(records), len(wants))
	}
	for i := range wants {
		if err := wants[i].compare(&records[i]); err != nil {
			return fmt.Errorf("exchange %d: %w", i, err)
		}
	}
	return nil
}

// timeless are the records without what depends on when their packets came.
func timeless(records []bpf.Record) []bpf.Record {
	out := slices.Clone(records)
	for i := range out {
		out[i].StartNs, out[i].FirstNs, out[i].EndNs = 0, 0, 0
	}
	return out
}
