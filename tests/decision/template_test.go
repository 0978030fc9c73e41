package decision

import (
	"fmt"
	"strings"
	"testing"

	"ambit/bpf"
	"ambit/l7"
)

// letters are n random ones out of a set.
func (c *chance) letters(n int, of string) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = of[c.IntN(len(of))]
	}
	return string(b)
}

const (
	digits = "0123456789"
	hex    = "0123456789abcdef"
	token  = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+"
)

// segment is a word, an identifier, or what just is none.
func (c *chance) segment() string {
	switch c.IntN(16) {
	case 0:
		return c.letters(pick(c, 1, 2, 7, 8, 9, 20, 200), digits)
	case 1:
		return c.letters(pick(c, 1, 3, 8, 10, 16, 17), digits[:2]+".,-")
	case 2:
		return fmt.Sprintf("%d-%02d-%02d", 2000+c.IntN(30), 1+c.IntN(12), 1+c.IntN(28))
	case 3, 4:
		id := []byte(c.letters(36, pick(c, hex, hex, digits, "0123456789ABCDEFabcdef")))
		for _, at := range []int{8, 13, 18, 23} {
			id[at] = '-'
		}
		if c.one(4) { // spoilt in one place
			id[c.IntN(len(id))] = "-gG0."[c.IntN(5)]
		}
		return string(id)
	case 5, 6:
		return c.letters(pick(c, 15, 16, 17, 24, 32, 64, 127, 128, 129), pick(c, hex, hex, "0123456789ABCDEF", "abcdef", "abcdef0"))
	case 7, 8:
		return c.letters(pick(c, 19, 20, 21, 43, 127, 128, 129), pick(c, token, token, token[:62], token[:52], token[26:], token[:26]+token[52:]))
	case 9:
		return c.letters(pick(c, 16, 20, 24), token) + pick(c, "~", ".", "%2F", "\xc3\xa9", "@", "!")
	case 10:
		return pick(c, "%41", "%2F", "a%20b", "..", ".", "-", ",", "é", "٤٢", "a.b.c", "file.tar.gz", "5px", "v1.2", "1e5", "no!", `"7"`, `se"ven`)
	case 11:
		return "word" + c.letters(1, "ab") + strings.Repeat("-and-more", c.IntN(30))
	}
	return pick(c, "users", "orders", "t", "a", "api", "v1", "users-of-a-longer-name")
}

// target is a request's, of any form and up to as long as is kept.
func (c *chance) target() string {
	var b strings.Builder
	n := c.IntN(6)
	deep := c.one(20)
	if deep {
		n = 22 + c.IntN(6)
	}
	for range n {
		s := c.segment()
		if deep {
			s = pick(c, "a", "b", "7", "long-enough")
		}
		if b.Len()+len(s) > 500 {
			break
		}
		b.WriteString("/" + s)
		if c.one(15) {
			b.WriteString(pick(c, "/", "//"))
		}
	}
	if b.Len() == 0 || c.one(12) {
		b.WriteByte('/')
	}
	path := b.String()
	switch c.IntN(12) {
	case 0:
		return path + pick(c, "?", "?q=/a/1", "#f", "#/f?", "?a#/b", "?0123456789abcdef0123")
	case 1:
		return pick(c, "http://host", "HTTPS://user@host:80", "a+b.c://[::1]:8080") + path
	case 2:
		return pick(c, "*", "http://host", "http://host?/a", "http://host#/a")
	}
	return path
}

// routeName is what tells the routes of one side apart, in words.
func (s *situation) routeName(side int) string {
	template := "of a rule " + s.template()
	if s.template() == "" {
		template = l7.Template(s.request.Target, s.request.GRPC)
		if s.request.Method == "CONNECT" {
			template = ""
		}
	}
	name := fmt.Sprint(l7.Kind(side), " ", s.service[side], " ", l7.MethodName(s.request.Method), " ", template)
	if side == bpf.SideAcceptor {
		return name
	}
	if s.request.Host == "" {
		return name + " at " + s.remote.String()
	}
	return name + " of " + strings.ToLower(s.request.Host)
}

// Two exchange sides have the same route if, and only if, l7 gives it the same name: the kernel's placeholders are those of
// l7.Template, at any place of the text.
func TestRoutesAreThoseOfTheirTemplates(t *testing.T) {
	const requests = 100_000
	k, c := open(t), newChance(3)
	rules, caps := k.use(
		l7.Rule{Name: "named", Match: l7.Conditions{Methods: []string{"GET"}, Path: l7.PathCondition{Templates: []string{"/users/{id}", "/users/{id}/orders"}}}},
		l7.Rule{Name: "later", Match: l7.Conditions{Path: l7.PathCondition{Templates: []string{"/users/{user}", "/t/{a}/{b}"}}}},
	)
	names, keys := make(map[uint64]string), make(map[string]uint64)
	placeholders := make(map[string]int)
	for range requests {
		s := plain(rules, caps)
		s.http2 = c.one(2)
		s.request.Method = pick(c, "GET", "GET", "GET", "POST", "PATCH", "DELETE", "OPTIONS", "get", "BREW", "PROPFIND", "CONNECT")
		s.request.Host = pick(c, "", "a.example.com", "A.example.com", "a.example.com:8080", "a-host-of-some-length.example.com")
		s.request.UserAgent = c.maybe(agentWords...)
		for side := range s.service {
			s.service[side] = pick(c, services[:3]...)
		}
		if s.request.GRPC = c.one(8); s.request.GRPC {
			s.request.Target = "/" + pick(c, "shop.v1.Stock", "grpc.health.v1.Health", "42") + "/" + pick(c, "Get", "0123456789abcdef", "7")
		} else {
			s.request.Target = c.target()
		}
		if s.request.Method == "CONNECT" {
			s.request.Target = pick(c, "host:443", "[::1]:80", "a")
		}
		k.putRequest(s, c)
		k.run(k.programs.Head)
		for side := range bpf.Sides {
			key, name := k.exchange.Decision[side].Route, s.routeName(side)
			if other, ok := names[key]; ok && other != name {
				t.Fatalf("%s %q: one key for %q and %q", s.request.Method, s.request.Target, name, other)
			}
			if other, ok := keys[name]; ok && other != key {
				t.Fatalf("%s %q: two keys for %q", s.request.Method, s.request.Target, name)
			}
			names[key], keys[name] = name, key
			for _, p := range []string{"{number}", "{uuid}", "{hex}", "{token}", "…", "of a rule", "CONNECT", "*"} {
				if strings.Contains(name, p) {
					placeholders[p]++
				}
			}
		}
	}
	t.Logf("%d requests have %d routes; of the names %v", requests, len(names), placeholders)
	for _, p := range []string{"{number}", "{uuid}", "{hex}", "{token}", "…", "of a rule", "CONNECT", "*"} {
		if placeholders[p] < 500 {
			t.Errorf("%d names have %q: too few to tell", placeholders[p], p)
		}
	}
}
