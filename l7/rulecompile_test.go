package l7

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/bpf"
)

// machine finds a rule as the kernel does: by rows of the table, and nothing else.
type machine struct {
	table *bpf.Rules
	row   []uint64
}

func (m *machine) and(row uint32) {
	for i := range m.row {
		m.row[i] &= m.table.Rows[row][i]
	}
}

// seed is that of the hashes.
const seed = 7

func (m *machine) find(field int, value string) (uint32, bool) {
	key := mix(hashText(seed, value), m.table.Seed+uint64(field))
	for _, slot := range m.table.Table[key>>52] {
		if slot != 0 && (slot^key)>>16 == 0 {
			return uint32(slot & 0xffff), true
		}
	}
	return 0, false
}

// lookUp takes the row of the first of the forms of a value that is there, else that of any; there is none without forms.
func (m *machine) lookUp(field int, forms ...string) {
	for _, f := range forms {
		if row, ok := m.find(field, f); ok {
			if len(f) > int(m.table.Longest[field]) {
				panic(fmt.Sprintf("%q is found, and longer than the longest", f))
			}
			m.and(row)
			return
		}
	}
	if len(forms) == 0 {
		m.and(m.table.DefaultRow[field])
		return
	}
	m.and(m.table.PresentRow[field])
}

// header looks for a value in its forms, then for its presence. What is in no bit of Fields is not looked at.
func (m *machine) header(field int, sent string, forms ...string) {
	if m.table.Fields&(1<<field) == 0 {
		return
	}
	if sent == "" {
		forms = nil
	} else if forms == nil {
		forms = []string{sent}
	}
	m.lookUp(field, forms...)
}

func (m *machine) path(target string) {
	t := m.table
	if target == "" {
		for s := range int(t.Segments) {
			m.and(t.DefaultRow[bpf.MatchSegment+s])
		}
		m.and(t.DepthRow[len(t.DepthRow)-1])
		m.and(t.DefaultRow[bpf.MatchExtension])
		return
	}
	path := target
	if at := strings.IndexAny(path, "?#"); at >= 0 {
		path = path[:at]
	}
	if path != "" && path[0] != '/' && path[0] != '*' {
		slashes, at := 0, 0
		for ; at < len(path); at++ {
			if path[at] == '/' {
				if slashes++; slashes == 3 {
					break
				}
			}
		}
		path = path[at:]
	}
	depth, last, begin := 0, "", 0
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		if last = path[begin:i]; i > begin {
			if depth < int(t.Segments) {
				m.lookUp(bpf.MatchSegment+depth, last)
			}
			depth++
		}
		begin = i + 1
	}
	for s := depth; s < int(t.Segments); s++ {
		m.and(t.DefaultRow[bpf.MatchSegment+s])
	}
	m.and(t.DepthRow[min(depth, len(t.DepthRow)-1)])
	if t.Fields&(1<<bpf.MatchExtension) != 0 {
		last = strings.TrimRight(path, "/")
		last = last[strings.LastIndexByte(last, '/')+1:]
		at := strings.LastIndexByte(last, '.')
		if at < 0 || len(last)-at-1 < 1 || len(last)-at-1 > 8 {
			m.and(t.DefaultRow[bpf.MatchExtension])
		} else {
			m.lookUp(bpf.MatchExtension, string(bytes.ToLower([]byte(last[at+1:]))))
		}
	}
}

// baggage gives the rows of the first members that are named, together.
func (m *machine) baggage(sent string) {
	const field = bpf.MatchBaggage
	if m.table.Fields&(1<<field) == 0 {
		return
	}
	var found ruleBits
	rows := 0
	for i, member := range strings.Split(sent, ",") {
		member = strings.Trim(strings.Split(member, ";")[0], " \t")
		if i >= bpf.BaggageMembers || rows == bpf.BaggageRows {
			continue
		}
		row, ok := m.find(field, member)
		if !ok {
			row, ok = m.find(field, strings.TrimRight(strings.Split(member, "=")[0], " \t"))
		}
		if ok {
			rows++
			found = found.or(m.table.Rows[row])
		}
	}
	if rows == 0 {
		m.header(field, sent)
		return
	}
	for i := range m.row {
		m.row[i] &= found[i]
	}
}

// rule is the place of the first rule, and the action's.
func (m *machine) rule(c *Compiled, r *Request, service uint32) int {
	t := m.table
	m.row = make([]uint64, t.Words)
	for i := range m.row {
		m.row[i] = ^uint64(0)
	}
	m.and(service)
	m.and(t.KindRow[r.Kind])
	method := max(slices.Index(bpf.Methods[:], r.Method), 0)
	m.and(t.MethodRow[method])
	m.path(r.Target)
	grpc := 0
	if r.GRPC {
		grpc = 1
	}
	m.and(t.GrpcRow[grpc])
	if t.Fields&(1<<bpf.MatchHost) != 0 {
		var hosts []string
		if r.Host != "" {
			host := strings.TrimSuffix(hostName(r.Host), "]")
			hosts = append(hosts, host)
			if at := strings.IndexByte(host, '.'); at >= 0 {
				hosts = append(hosts, host[at:])
			}
		}
		m.lookUp(bpf.MatchHost, hosts...)
	}
	if t.Fields&(1<<bpf.MatchClient) != 0 {
		b := r.Client.As16()
		m.lookUp(bpf.MatchClient, string(b[:]))
	}
	m.header(bpf.MatchUserAgent, r.UserAgent, r.UserAgent, product(r.UserAgent))
	m.header(bpf.MatchRequestID, r.RequestID, r.RequestID)
	m.header(bpf.MatchContentType, r.ContentType, mediaType(r.ContentType))
	m.header(bpf.MatchForceTrace, r.ForceTrace, r.ForceTrace)
	m.baggage(r.Baggage)
	if r.Class < 0 || t.Statuses == 0 {
		m.and(t.AnyStatusRow)
	} else {
		m.and(t.StatusRow[r.Class])
	}
	for i, word := range m.row {
		if word != 0 {
			line := i*64 + bits.TrailingZeros64(word)
			return int(c.Actions[line].Rule)
		}
	}
	return -1
}

// chance makes random rules and requests out of few words, so that they meet.
type chance struct{ *rand.Rand }

func (c chance) of(words ...string) string { return words[c.IntN(len(words))] }

// some is a list of different words, most often a short one.
func (c chance) some(words ...string) (list []string) {
	words = slices.Clone(words)
	c.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	return words[:1+c.IntN(min(3, len(words)))]
}

var (
	pathWords  = []string{"a", "b", "users", "users.css", "x.JS", "v1", "a-segment-that-is-longer-than-a-word", "%41", "{id}"}
	hostWords  = []string{"a.example.com", "b.example.com", "example.com", "a", "x.y", "[::1]", "1.2.3.4"}
	agentWords = []string{"curl", "curl/8.0", "kube-probe", "Envoy/HC", "a b", "Mozilla/5.0 (X11)"}
	mediaWords = []string{"text/html", "application/json", "application/grpc"}
	bagWords   = []string{"k", "k=1", "k=2", "user", "user=jo", "z=", "long-key-of-baggage=long-value"}
	valueWords = []string{"1", "true", "0af7651916cd43dd8448eb211c80319c"}
	services   = []string{"checkout", "checkout-v2", "cart", "c"}
)

func (c chance) path(words []string, most int) string {
	path := ""
	for range c.IntN(most + 1) {
		path += "/" + c.of(words...)
	}
	if path == "" || c.IntN(8) == 0 {
		path += "/"
	}
	return path
}

func (c chance) paths(words []string) (list []string) {
	for range 1 + c.IntN(3) {
		if p := c.path(words, bpf.Segments); !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

func (c chance) header(words ...string) HeaderCondition {
	switch c.IntN(9) {
	case 0:
		return HeaderCondition{Present: true}
	case 1, 2:
		return HeaderCondition{Values: c.some(words...)}
	}
	return HeaderCondition{}
}

// conditions looks at a few things.
func (c chance) conditions() (m Conditions) {
	for range 1 + c.IntN(3) - c.IntN(30)/29 {
		switch c.IntN(12) {
		case 0:
			m.Services = c.some("checkout", "checkout*", "c*", "*", "cart", "nobody")
		case 1:
			m.Kinds = []Kind{Kind(c.IntN(2))}
		case 2:
			m.Methods = c.some(bpf.Methods[1:]...)
		case 3:
			m.Path = PathCondition{Exact: c.paths(pathWords[:8])}
		case 4:
			m.Path = PathCondition{Prefixes: c.paths(pathWords[:8])}
		case 5:
			m.Path = PathCondition{Templates: c.paths(pathWords)}
		case 6:
			m.Extensions = c.some("css", "js", "html")
		case 7:
			m.Hosts = c.some(append([]string{"*.example.com", "*.com", "*.y"}, hostWords...)...)
		case 8:
			m.Clients = []netip.Addr{netip.MustParseAddr(c.of("10.0.0.1", "fd00::1"))}
		case 9:
			m.Statuses = c.some(statusClasses[:]...)
		case 10:
			m.Headers = HeaderConditions{
				UserAgent: c.header(agentWords...), RequestID: c.header(valueWords...), ContentType: c.header(mediaWords...),
				ForceTrace: c.header(valueWords...), Baggage: c.header(bagWords...),
			}
		case 11:
			m.GRPC = &GRPCCondition{}
			if c.IntN(3) > 0 {
				m.GRPC.Services = c.some("a", "users", "v1")
			}
			if c.IntN(3) > 0 {
				m.GRPC.Methods = c.some("a", "b", "users")
			}
		}
		if m.GRPC != nil {
			m.Path = PathCondition{}
		}
	}
	return m
}

func (c chance) rules(n int) []Rule {
	rules := make([]Rule, n)
	for i := range rules {
		rules[i] = Rule{Name: fmt.Sprint("rule", i), Match: c.conditions()}
	}
	return rules
}

// maybe is nothing, half of the time.
func (c chance) maybe(words ...string) string {
	if c.IntN(2) == 0 {
		return ""
	}
	return c.of(words...)
}

func (c chance) request() *Request {
	r := &Request{
		Service: c.maybe(services...), Kind: Kind(c.IntN(2)),
		Method:    c.of(append([]string{"get", "BREW", ""}, bpf.Methods[1:]...)...),
		Target:    c.path(append(pathWords[:8:8], "other", "", ".x", "file.toolongext"), bpf.Segments+2),
		Host:      c.maybe(append([]string{"A.Example.com:8080", "c.example.com", "x.b.example.com", ".com", "[::1]:80"}, hostWords...)...),
		Client:    netip.MustParseAddr(c.of("10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "fd00::2")),
		UserAgent: c.maybe(append([]string{"curl/7.1", "kube-probe/1.30", "curl 8", "/", "Envoy/HC2"}, agentWords...)...),
		RequestID: c.maybe(append([]string{"2"}, valueWords...)...), ForceTrace: c.maybe(append([]string{"x"}, valueWords...)...),
		ContentType: c.maybe(append([]string{"Text/HTML; charset=utf-8", "text/html ;x", "image/png"}, mediaWords...)...),
		GRPC:        c.IntN(3) == 0, Class: c.IntN(7) - 1,
	}
	switch c.IntN(10) {
	case 0:
		r.Target = "http://host" + r.Target
	case 1:
		r.Target += c.of("?q=/a", "#f", "/?", "?a#/b")
	case 2:
		r.Target = c.of("", "*", "http://host", "http://host?x", "a/b", "users", "/a://b")
	}
	for range c.IntN(20) / (1 + c.IntN(6)) {
		r.Baggage += c.of("", ",", " , ") + c.of(append([]string{"none=1", "other", "k =1"}, bagWords...)...) + c.of("", ";p=1", " ;q")
		if c.IntN(4) > 0 {
			r.Baggage += ","
		}
	}
	return r
}

// The tables find the rule that the plain reference finds.
func TestTablesFindTheFirstRule(t *testing.T) {
	c := chance{rand.New(rand.NewPCG(1, 5))}
	cases, found := 0, map[string]int{}
	try := func(rules []Rule, requests int) {
		compiled, err := Compile(rules, seed)
		if err != nil {
			t.Fatalf("%d rules: %v", len(rules), err)
		}
		m := machine{table: compiled.Table}
		for range requests {
			r := c.request()
			row, err := compiled.ServiceRow(r.Service)
			if err != nil {
				t.Fatal(err)
			}
			cases++
			got, want := m.rule(compiled, r, row), Match(compiled.Rules, r)
			if got != want {
				t.Fatalf("of %d rules, %d holds, want %d\n%+v\nrule %+v\nwant %+v", len(rules), got, want, r, compiled.Rules[max(got, 0)], compiled.Rules[want])
			}
			switch {
			case want == len(rules):
				found["the default"]++
			case reflect.DeepEqual(rules[want].Match, Conditions{}):
				found["a rule without conditions"]++
			default:
				found["a rule with conditions"]++
			}
		}
	}
	for range 4000 {
		try(c.rules(1+c.IntN(12)), 50)
	}
	for range 20 {
		// Without one that accepts everything early.
		rules := c.rules(1000)
		for i := range rules {
			if m := &rules[i].Match; len(m.Path.Exact)+len(m.Path.Prefixes)+len(m.Path.Templates) == 0 {
				*m = Conditions{Path: PathCondition{Exact: []string{c.path(pathWords[:8], bpf.Segments)}}, Methods: m.Methods, Kinds: m.Kinds, Headers: m.Headers}
			}
			p := &rules[i].Match.Path
			for _, list := range []*[]string{&p.Exact, &p.Prefixes, &p.Templates} {
				*list = (*list)[:min(1, len(*list))]
			}
		}
		try(rules, 500)
	}
	t.Logf("%d cases: %v", cases, found)
	if cases < 200_000 || found["a rule with conditions"] < cases/10 || found["the default"] < cases/10 {
		t.Errorf("%d cases: %v", cases, found)
	}
}

// A thousand rules that each name something of their own have room.
func TestAThousandRulesHaveRoom(t *testing.T) {
	rules := make([]Rule, 1000)
	for i := range rules {
		rules[i] = Rule{Name: fmt.Sprint("r", i), Match: Conditions{Path: PathCondition{Prefixes: []string{fmt.Sprintf("/api/service-%d", i)}}}}
	}
	start := time.Now()
	c, err := Compile(rules, seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("compiled in %s", time.Since(start))
	m := machine{table: c.Table}
	for i := range rules {
		r := &Request{Target: fmt.Sprintf("/api/service-%d/x", i), Class: -1}
		if got := m.rule(c, r, c.Table.ServiceRow[0]); got != i {
			t.Errorf("%s: rule %d, want %d", r.Target, got, i)
		}
	}
}
