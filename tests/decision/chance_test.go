package decision

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ambit/bpf"
	"ambit/l7"
)

// chance makes rules and situations out of few words and numbers, so that they meet.
type chance struct{ *rand.Rand }

func newChance(seed uint64) *chance { return &chance{rand.New(rand.NewPCG(seed, 5))} }

func pick[T any](c *chance, from ...T) T { return from[c.IntN(len(from))] }

// either is one of two.
func (c *chance) either(a, b decisionExchangeFlags) decisionExchangeFlags { return pick(c, a, b) }

// one tells whether one of n times has come.
func (c *chance) one(n int) bool { return c.IntN(n) == 0 }

// some is a list of different items, most often a short one.
func some[T any](c *chance, from ...T) []T {
	from = slices.Clone(from)
	c.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	return from[:1+c.IntN(min(3, len(from)))]
}

// maybe is nothing, half of the time.
func (c *chance) maybe(words ...string) string {
	if c.one(2) {
		return ""
	}
	return pick(c, words...)
}

// garbage is some text that means nothing.
func (c *chance) garbage(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "aZ09-_./:;,=% ?#[]{}\xff\x00"[c.IntN(22)]
	}
	return string(b)
}

var (
	pathWords  = []string{"a", "b", "users", "users.css", "x.JS", "v1", "a-segment-that-is-longer-than-a-word", "%41", "{id}"}
	sentWords  = []string{"other", "", "a!b", `"quoted"`, ".x", "file.toolongext", "42", "0123456789abcdef", "8d1f9c1e-0A3A-4b8e-9a53-6f6f5a1c2b3d"}
	hostWords  = []string{"a.example.com", "b.example.com", "example.com", "a", "x.y", "[::1]", "1.2.3.4"}
	agentWords = []string{"curl", "curl/8.0", "kube-probe", "Envoy/HC", "a b", "Mozilla/5.0 (X11)"}
	mediaWords = []string{"text/html", "application/json", "application/grpc"}
	bagWords   = []string{"k", "k=1", "k=2", "user", "user=jo", "z=", "long-key-of-baggage=long-value"}
	valueWords = []string{"1", "true", "0af7651916cd43dd8448eb211c80319c"}
	addresses  = []string{"10.0.0.1", "fd00::1"}
	rateWords  = []float64{0, 0.001, 0.25, 0.5, 0.75, 1}
	failures   = []string{"4xx", "5xx", "404", "429", "503"}
)

func (c *chance) path(words []string, most int) string {
	var b strings.Builder
	for range c.IntN(most + 1) {
		b.WriteString("/" + pick(c, words...))
	}
	if b.Len() == 0 || c.one(8) {
		b.WriteByte('/')
	}
	return b.String()
}

func (c *chance) paths(words []string) (list []string) {
	for range 1 + c.IntN(3) {
		if p := c.path(words, bpf.Segments); !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

func (c *chance) header(words ...string) l7.HeaderCondition {
	switch c.IntN(9) {
	case 0:
		return l7.HeaderCondition{Present: true}
	case 1, 2:
		return l7.HeaderCondition{Values: some(c, words...)}
	}
	return l7.HeaderCondition{}
}

// conditions looks at a few things; what does not look at the status is twice as likely as what does.
func (c *chance) conditions() (m l7.Conditions) {
	for range 1 + c.IntN(2) {
		switch c.IntN(12) {
		case 0:
			m.Services = some(c, "checkout", "checkout*", "c*", "*", "cart", "nobody")
		case 1:
			m.Kinds = []l7.Kind{l7.Kind(c.IntN(2))}
		case 2:
			m.Methods = some(c, bpf.Methods[1:]...)
		case 3:
			m.Path = l7.PathCondition{Exact: c.paths(pathWords[:8])}
		case 4:
			m.Path = l7.PathCondition{Prefixes: c.paths(pathWords[:8])}
		case 5:
			m.Path = l7.PathCondition{Templates: c.paths(pathWords)}
		case 6:
			m.Extensions = some(c, "css", "js", "html")
		case 7:
			m.Hosts = some(c, append([]string{"*.example.com", "*.com", "*.y"}, hostWords...)...)
		case 8:
			m.Clients = []netip.Addr{netip.MustParseAddr(pick(c, addresses...))}
		case 9:
			m.Statuses = some(c, "none", "1xx", "2xx", "3xx", "4xx", "5xx")
		case 10:
			m.Headers = l7.HeaderConditions{
				UserAgent: c.header(agentWords...), RequestID: c.header(valueWords...), ContentType: c.header(mediaWords...),
				ForceTrace: c.header(valueWords...), Baggage: c.header(bagWords...),
			}
		case 11:
			m.GRPC = &l7.GRPCCondition{}
			if !c.one(3) {
				m.GRPC.Services = some(c, "a", "users", "v1")
			}
			if !c.one(3) {
				m.GRPC.Methods = some(c, "a", "b", "users")
			}
		}
		if m.GRPC != nil {
			m.Path = l7.PathCondition{}
		}
	}
	return m
}

func (c *chance) action() (a l7.RuleAction) {
	if c.one(6) {
		return l7.RuleAction{Drop: true}
	}
	if a.Always = c.one(8); !a.Always {
		if !c.one(3) {
			a.Rate = new(pick(c, rateWords...))
		}
		a.Parent = pick(c, "", "honour", "ignore")
		if a.Rate != nil && c.one(3) {
			a.Parent = "scale"
		}
	}
	if !c.one(3) {
		a.Slow = new(pick(c, 0, time.Millisecond, time.Second, time.Hour))
	}
	if c.one(3) {
		a.TailRate = new(pick(c, rateWords...))
	}
	a.Class = pick(c, "", "critical", "normal", "background")
	a.Force = c.one(12)
	if c.one(3) {
		a.Cap = 10
	}
	if c.one(2) {
		e := &l7.ErrorRule{}
		if e.Off = c.one(5); !e.Off {
			if c.one(2) {
				e.Statuses = some(c, failures...)
			}
			if c.one(2) {
				e.GRPC = some(c, l7.GRPCOK, l7.GRPCNotFound, l7.GRPCUnavailable, l7.GRPCUnauthenticated)
			}
			if c.one(2) {
				e.Endings = some(c, l7.EndedByClose, l7.EndedByReset, l7.EndedByIdle, l7.EndedByStreamReset, l7.EndedByRefusal)[c.IntN(2):]
			}
		}
		a.Errors = e
	}
	return a
}

func (c *chance) rules(n int) []l7.Rule {
	rules := make([]l7.Rule, n)
	for i := range rules {
		rules[i] = l7.Rule{Name: fmt.Sprint("rule", i), Match: c.conditions(), Action: c.action()}
	}
	return rules
}

// request is one of any method, path and headers.
func (c *chance) request() l7.Request {
	r := l7.Request{
		Method:    pick(c, append([]string{"get", "BREW", "PROPFIND"}, bpf.Methods[1:]...)...),
		Target:    c.path(append(sentWords, pathWords...), bpf.Segments+2),
		Host:      c.maybe(append([]string{"A.Example.com:8080", "c.example.com", "x.b.example.com", ".com", "[::1]:80"}, hostWords...)...),
		UserAgent: c.maybe(append([]string{"curl/7.1", "kube-probe/1.30", "curl 8", "/", "Envoy/HC2"}, agentWords...)...),
		RequestID: c.maybe(append([]string{"2"}, valueWords...)...), ForceTrace: c.maybe(append([]string{"x"}, valueWords...)...),
		ContentType: c.maybe(append([]string{"Text/HTML; charset=utf-8", "text/html ;x", "image/png"}, mediaWords...)...),
		GRPC:        c.one(3),
	}
	switch c.IntN(10) {
	case 0:
		r.Target = pick(c, "http://host", "HTTPS://user@host:80") + r.Target
	case 1:
		r.Target += pick(c, "?q=/a", "#f", "/?", "?a#/b")
	case 2:
		r.Target = pick(c, "*", "http://host", "http://host?x", "http://host?x=/a", "http://host#/a")
	}
	if r.Method == "CONNECT" {
		r.Target = pick(c, "host:443", "a", "10.0.0.1:80")
	}
	if c.one(3) {
		for range c.IntN(20) / (1 + c.IntN(6)) {
			r.Baggage += pick(c, "", ",", " , ") + pick(c, append([]string{"none=1", "other", "k =1"}, bagWords...)...) + pick(c, "", ";p=1", " ;q")
			if !c.one(4) {
				r.Baggage += ","
			}
		}
		r.Baggage = r.Baggage[:min(len(r.Baggage), 250)]
	}
	return r
}

// threshold is one of a few, so that R may be one too.
func (c *chance) threshold() uint64 {
	if c.one(8) {
		return c.Uint64N(never)
	}
	return bpf.Threshold(pick(c, rateWords...))
}

// maybeThreshold is none, most often.
func (c *chance) maybeThreshold() uint64 {
	if c.one(3) {
		return c.threshold()
	}
	return none
}

// randomness is any, or at, below or above a threshold.
func (c *chance) randomness() uint64 {
	if c.one(3) {
		return c.Uint64N(never)
	}
	return min(c.threshold()+uint64(c.IntN(3))-1, never-1)
}

func (c *chance) route() route {
	r := route{known: c.one(2), threshold: c.maybeThreshold(), anomaly: none, slow: none, floor: c.one(6)}
	if c.one(6) {
		r.anomaly = c.threshold()
	}
	if c.one(3) {
		r.slow = uint64(pick(c, 10*time.Millisecond, time.Minute))
	}
	return r
}

func (c *chance) situation(rules []l7.Rule, caps map[int]int) *situation {
	s := &situation{
		rules: rules, caps: caps, base: c.threshold(), set: none, believed: c.one(2), request: c.request(),
		remote: netip.AddrPortFrom(netip.MustParseAddr(pick(c, addresses...)), pick[uint16](c, 80, 8080)),
		http2:  c.one(2), unknown: c.one(10), cut: c.one(20), r: c.randomness(), forced: c.one(10),
		parent: parent{decided: c.one(2), sampled: c.one(2), threshold: c.maybeThreshold()},
		status: pick(c, 200, 200, 200, 0, 101, 204, 302, 404, 400, 429, 500, 503, 599, 99, 600, 999),
		web:    c.one(8), code: l7.NoGRPCStatus, ending: pick(c, 0, 0, 0, l7.Ending(c.IntN(6))), responseUnknown: c.one(15),
		errorCode: uint32(c.IntN(14)),
		took:      max(0, pick(c, 0, time.Millisecond, 10*time.Millisecond, time.Second, time.Minute, time.Hour)+time.Duration(c.IntN(3)-1)),
	}
	if c.one(6) {
		s.set = c.threshold()
	}
	s.floors = c.one(4)
	for class := range s.safety {
		s.safety[class] = pick[uint32](c, whole, whole, whole, whole/2, uint32(c.IntN(whole)), 0)
	}
	if s.request.GRPC || c.one(8) {
		s.code = pick(c, l7.NoGRPCStatus, l7.GRPCOK, l7.GRPCOK, l7.GRPCCode(c.IntN(20)))
	}
	for side := range bpf.Sides {
		s.service[side], s.client[side] = pick(c, services[:]...), netip.MustParseAddr(pick(c, append(addresses, "10.9.9.9")...))
		s.app[side], s.route[side] = !c.one(8), c.route()
	}
	if !s.app[0] && !s.app[1] {
		s.app[c.IntN(2)] = true // else there is nothing to decide
	}
	for side := range s.late {
		s.late[side] = s.app[side] && !s.cut && c.one(10)
	}
	if s.http2 && s.unknown && s.request.Method != "CONNECT" && c.one(2) {
		s.request.Target = "" // it is the path that is unknown
	}
	return s
}
