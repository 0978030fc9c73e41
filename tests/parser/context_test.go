package parser

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"ambit/bpf"
)

// Bits of a record's flags that only the kernel side reads; enum exchange_flags in abi.h.
const (
	flagTraceHeader     = 1
	flagParentSampled   = 32
	flagParentDecided   = 64
	flagParentThreshold = 2048
	flagHeadDone        = 4096
)

const (
	trace32 = "0af7651916cd43dd8448eb211c80319c"
	other32 = "ffffffffffffffffffffffffffffffff"
	trace16 = "8448eb211c80319c"
	span16  = "b7ad6b7169203331"
	keepAll = uint64(0)
	dropAll = uint64(1) << 56
)

// request is a whole exchange whose request has these header lines.
func request(headers ...string) conversation {
	return conversation{
		ask("GET / HTTP/1.1\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"),
		reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
	}
}

func withRate(threshold uint64, c conversation) *script {
	s := new(script)
	s.rate(threshold)
	s.Write(played(c.segments()).Bytes())
	return s
}

// context is what a request says of its trace.
type context struct {
	trace   string // 32 digits; "" is none
	parent  string // 16 digits; "" is none
	flags   uint8
	decided bool
	sampled bool
}

func TestTraceContext(t *testing.T) {
	d := start(t)
	valid := "00-" + trace32 + "-" + span16 + "-01"
	sampled := context{trace32, span16, 1, true, true}
	for _, c := range []struct {
		about   string
		headers []string
		want    context
	}{
		{"none", nil, context{}},
		{"traceparent", []string{"traceparent: " + valid}, sampled},
		{"upper case in the name", []string{"TRACEPARENT:" + valid}, sampled},
		{"not sampled", []string{"traceparent: 00-" + trace32 + "-" + span16 + "-00"}, context{trace32, span16, 0, true, false}},
		{"random flag", []string{"traceparent: 00-" + trace32 + "-" + span16 + "-03"}, context{trace32, span16, 3, true, true}},
		{"every flag", []string{"traceparent: 00-" + trace32 + "-" + span16 + "-ff"}, context{trace32, span16, 0xff, true, true}},
		{"a later version with more behind", []string{"traceparent: cc-" + trace32 + "-" + span16 + "-01-what-else"}, sampled},
		{"a later version", []string{"traceparent: 01-" + trace32 + "-" + span16 + "-01"}, sampled},
		{"version ff", []string{"traceparent: ff-" + trace32 + "-" + span16 + "-01"}, context{}},
		{"version 00 with more behind", []string{"traceparent: " + valid + "-x"}, context{}},
		{"a later version with rubbish behind", []string{"traceparent: 01-" + trace32 + "-" + span16 + "-01x"}, context{}},
		{"too short", []string{"traceparent: " + valid[:54]}, context{}},
		{"no trace", []string{"traceparent: 00-" + strings.Repeat("0", 32) + "-" + span16 + "-01"}, context{}},
		{"no parent", []string{"traceparent: 00-" + trace32 + "-0000000000000000-01"}, context{}},
		{"no digits in the trace", []string{"traceparent: 00-" + strings.Replace(trace32, "a", "g", 1) + "-" + span16 + "-01"}, context{}},
		{"no digits in the parent", []string{"traceparent: 00-" + trace32 + "-" + strings.Replace(span16, "b", "z", 1) + "-01"}, context{}},
		{"no digits in the version", []string{"traceparent: 0x-" + trace32 + "-" + span16 + "-01"}, context{}},
		{"no digits in the flags", []string{"traceparent: 00-" + trace32 + "-" + span16 + "-0."}, context{}},
		{"other dashes", []string{"traceparent: 00_" + trace32 + "_" + span16 + "_01"}, context{}},
		{"b3", []string{"b3: " + trace32 + "-" + span16 + "-1"}, context{trace32, span16, 0, true, true}},
		{"b3, not sampled", []string{"B3: " + trace32 + "-" + span16 + "-0"}, context{trace32, span16, 0, true, false}},
		{"b3, debug", []string{"b3: " + trace32 + "-" + span16 + "-d"}, context{trace32, span16, 0, true, true}},
		{"b3, undecided", []string{"b3: " + trace32 + "-" + span16}, context{trace32, span16, 0, false, false}},
		{"b3 with a parent", []string{"b3: " + trace32 + "-" + span16 + "-1-00000000000000aa"}, context{trace32, span16, 0, true, true}},
		{"b3 of 64 bits", []string{"b3: " + trace16 + "-" + span16 + "-1"}, context{"0000000000000000" + trace16, span16, 0, true, true}},
		{"b3, a decision alone", []string{"b3: 0"}, context{"", "", 0, true, false}},
		{"b3, no digits", []string{"b3: " + strings.Replace(trace32, "a", "x", 1) + "-" + span16}, context{}},
		{"b3, no trace", []string{"b3: " + strings.Repeat("0", 32) + "-" + span16}, context{}},
		{"b3 in several", []string{"X-B3-TraceId: " + trace32, "X-B3-SpanId: " + span16, "X-B3-Sampled: 1"}, context{trace32, span16, 0, true, true}},
		{"b3 in several, the parent first", []string{"X-B3-SpanId: " + span16, "x-b3-sampled: 0", "x-b3-traceid: " + trace16}, context{"0000000000000000" + trace16, span16, 0, true, false}},
		{"b3 in several, sampled in words", []string{"X-B3-TraceId: " + trace32, "X-B3-SpanId: " + span16, "X-B3-Sampled: true"}, context{trace32, span16, 0, true, true}},
		{"b3 flags", []string{"X-B3-TraceId: " + trace32, "X-B3-SpanId: " + span16, "X-B3-Flags: 1"}, context{trace32, span16, 0, true, true}},
		{"b3, a parent without a trace", []string{"X-B3-SpanId: " + span16}, context{}},
		{"traceparent before b3", []string{"traceparent: " + valid, "b3: " + other32 + "-00000000000000aa-0"}, sampled},
		{"b3 before traceparent", []string{"b3: " + other32 + "-00000000000000aa-0", "traceparent: " + valid}, sampled},
		{"x-request-id gives way", []string{"x-request-id: a", "traceparent: " + valid, "x-request-id: b"}, sampled},
	} {
		t.Run(c.about, func(t *testing.T) {
			o := d.run(t, withRate(keepAll, request(c.headers...)))[0]
			if err := o.check(); err != nil {
				t.Fatal(err)
			}
			if c.want.decided && !c.want.sampled {
				if o.counters["unsampled"] != 2 {
					t.Fatalf("a parent that was not sampled is kept: %v", o.counters)
				}
				return
			}
			if len(o.records) != 1 {
				t.Fatalf("%d records: %v", len(o.records), o.counters)
			}
			if got := contextOf(&o.records[0]); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func contextOf(r *bpf.Record) context {
	c := context{
		flags: r.TraceFlags, decided: r.Flags&flagParentDecided != 0, sampled: r.Flags&flagParentSampled != 0,
	}
	if r.Flags&flagTraceHeader != 0 {
		c.trace = hex.EncodeToString(r.TraceId[:])
	}
	if r.Flags&bpf.FlagParentHeader != 0 {
		c.parent = hex.EncodeToString(r.HeaderParent[:])
	}
	return c
}

// Headers of a source that is not believed decide nothing; the values are still reported.
func TestUntrustedContext(t *testing.T) {
	d := start(t)
	s := new(script)
	s.trust(false)
	s.Write(withRate(keepAll, request("traceparent: 00-"+trace32+"-"+span16+"-00", "b3: 0", "x-request-id: r", "tracestate: ot=th:8")).Bytes())
	s.trust(true)
	o := d.run(t, s)[0]
	if len(o.records) != 1 {
		t.Fatalf("%v", o.counters)
	}
	r := &o.records[0]
	if got := contextOf(r); got != (context{}) || r.Flags&bpf.FlagTraceRequestID != 0 || r.Decision[bpf.SideAcceptor].Reason != bpf.ReasonHead {
		t.Errorf("%+v, flags %x, reason %d", got, r.Flags, r.Decision[bpf.SideAcceptor].Reason)
	}
	if id, _ := field(r, bpf.FieldRequestID); id != "r" {
		t.Errorf("request ID %q", id)
	}
}

// The same x-request-id gives the same trace, another one another, whatever else the request says.
func TestRequestIDGivesTheTrace(t *testing.T) {
	d := start(t)
	seen := make(map[[16]byte]string)
	for _, id := range []string{"a", "b", "aa", "a ", strings.Repeat("x", 8), strings.Repeat("x", 9), strings.Repeat("x", 127), strings.Repeat("x", 128), "6e0c63257de34c92bf9efcd03927272e"} {
		id = strings.TrimSpace(id)
		first := d.run(t, withRate(keepAll, request("X-Request-Id: "+id)))[0].records[0]
		again := d.run(t, withRate(keepAll, request("User-Agent: u", "x-request-ID:   "+id)))[0].records[0]
		if first.TraceId != again.TraceId || first.Flags&bpf.FlagTraceRequestID == 0 || first.TraceId == [16]byte{} {
			t.Errorf("%q: %x and %x", id, first.TraceId, again.TraceId)
		}
		if with, ok := seen[first.TraceId]; ok && with != id {
			t.Errorf("%q and %q give one trace", id, with)
		}
		seen[first.TraceId] = id
	}
}

// tracestate's member ot, by OpenTelemetry's probability sampling.
func TestTraceState(t *testing.T) {
	d := start(t)
	const none = ^uint64(0)
	for _, c := range []struct {
		state  string
		th, rv uint64
	}{
		{"", none, none},
		{"ot=th:8", 1 << 55, none},
		{"ot=th:0", 0, none},
		{"ot=th:fffffffffffffe", 0xfffffffffffffe, none},
		{"ot=th:FFFF", 0xffff << 40, none},
		{"ot=th:c;rv:12345678901234", 0xc << 52, 0x12345678901234},
		{"ot=rv:12345678901234;th:c", 0xc << 52, 0x12345678901234},
		{"ot=rv:1234567890123", none, none},
		{"ot=rv:123456789012345", none, none},
		{"ot=th:", none, none},
		{"ot=th:123456789abcdef", none, none},
		{"ot=th:xyz", none, none},
		{"ot=p:8;r:62;th:4", 4 << 52, none},
		{"vendor=th:8", none, none},
		{"not=th:8", none, none},
		{"a=b,ot=th:8,c=d", 1 << 55, none},
		{"a=b, ot=th:8 ,c=d", 1 << 55, none},
		{"a=b,,\t,ot=th:8", 1 << 55, none},
		{"a=ot=th:8", none, none},
		{strings.Repeat("k=v,", 20) + "ot=th:2", 2 << 52, none},
	} {
		t.Run(c.state, func(t *testing.T) {
			o := d.run(t, withRate(keepAll, request("tracestate: "+c.state)))[0]
			if len(o.records) != 1 {
				t.Fatalf("%v", o.counters)
			}
			r := &o.records[0]
			th, rv := none, none
			if r.Flags&flagParentThreshold != 0 {
				th = r.ParentThreshold
			}
			if r.Flags&bpf.FlagRandomness != 0 {
				rv = r.Randomness
			}
			if th != c.th || rv != c.rv {
				t.Errorf("th %x, rv %x, want %x and %x", th, rv, c.th, c.rv)
			}
		})
	}
}

// decision is the outcome of sampling one request.
type decision struct {
	kept      bool
	reason    uint8
	threshold uint64 // where has
	has       bool
}

// decide is the table of the design in plain Go: randomness and thresholds have 56 bits, parentT is used where hasT.
func decide(parentDecided, parentSampled, hasT bool, parentT, randomness, base uint64) decision {
	switch {
	case parentDecided && !parentSampled:
		return decision{}
	case parentDecided && hasT && randomness >= parentT:
		return decision{true, bpf.ReasonParent, parentT, true}
	case parentDecided:
		return decision{kept: true, reason: bpf.ReasonParent}
	case randomness >= base:
		return decision{true, bpf.ReasonHead, base, true}
	}
	return decision{}
}

func TestSamplingDecision(t *testing.T) {
	d := start(t)
	const half = uint64(1) << 55
	randoms := []uint64{1, half - 1, half, half + 1, 1<<56 - 1}
	type wanted struct {
		about string
		want  decision
	}
	var scripts []*script
	var wants []wanted
	for _, base := range []uint64{keepAll, 1, half, 1<<56 - 1, dropAll} {
		for _, random := range randoms {
			for _, explicit := range []bool{false, true} { // randomness by rv, not by the trace ID
				for _, parent := range []string{"none", "sampled", "not sampled"} {
					for _, th := range []uint64{^uint64(0), 0, 1 << 48, half, 0xff << 48} {
						id := fmt.Sprintf("0123456789abcdef77%014x", random)
						var state []string
						if th != ^uint64(0) {
							state = append(state, "th:"+threshold(th))
						}
						if explicit {
							id = "0123456789abcdef7700000000000001"
							state = append(state, fmt.Sprintf("rv:%014x", random))
						}
						var headers []string
						switch parent {
						case "none": // b3 without a decision brings the ID alone
							headers = append(headers, "b3: "+id+"-"+span16)
						case "sampled":
							headers = append(headers, "traceparent: 00-"+id+"-"+span16+"-01")
						default:
							headers = append(headers, "traceparent: 00-"+id+"-"+span16+"-00")
						}
						if state != nil {
							headers = append(headers, "tracestate: ot="+strings.Join(state, ";"))
						}
						scripts = append(scripts, withRate(base, request(headers...)))
						wants = append(wants, wanted{
							fmt.Sprintf("base %x, R %x (rv %v), parent %s, th %x", base, random, explicit, parent, th),
							decide(parent != "none", parent == "sampled", th != ^uint64(0), th, random, base),
						})
					}
				}
			}
		}
	}
	for i, o := range d.run(t, scripts...) {
		if err := o.check(); err != nil {
			t.Fatalf("%s: %v", wants[i].about, err)
		}
		var got decision
		if len(o.records) == 1 {
			r := &o.records[0]
			made := &r.Decision[bpf.SideAcceptor]
			got = decision{kept: true, reason: made.Reason, has: made.Flags&bpf.DecisionThreshold != 0}
			if got.has {
				got.threshold = made.Threshold
			}
		}
		if got != wants[i].want {
			t.Errorf("%s: %+v, want %+v", wants[i].about, got, wants[i].want)
		}
	}
	t.Logf("%d decisions", len(scripts))
}

// threshold writes 56 bits as tracestate has them.
func threshold(t uint64) string {
	s := strings.TrimRight(fmt.Sprintf("%014x", t), "0")
	if s == "" {
		return "0"
	}
	return s
}

// The randomness of an ID that nobody sent is that ID's own last 56 bits, so that other nodes decide alike.
func TestDerivedTraceDecides(t *testing.T) {
	d := start(t)
	r := d.run(t, withRate(keepAll, request()))[0].records[0]
	random := binary.BigEndian.Uint64(r.TraceId[8:]) & (1<<56 - 1)
	if r.Randomness != random || random == 0 {
		t.Fatalf("R is %x, the trace %x", r.Randomness, r.TraceId)
	}
	for base, kept := range map[uint64]bool{random: true, random + 1: false} {
		o := d.run(t, withRate(base, request()))[0]
		if (len(o.records) == 1) != kept {
			t.Errorf("threshold %x, R %x: %v", base, random, o.counters)
		}
	}
}
