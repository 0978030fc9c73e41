package l7

import (
	"net/netip"
	"slices"
	"strings"

	"ambit/bpf"
)

// Request is what rules look at. An empty text is absent or unknown.
type Request struct {
	Service string // of the span's own side
	Kind    Kind
	Method  string
	Target  string // as it was sent, with what is not the path
	Host    string // as it was sent, with its port
	Client  netip.Addr

	UserAgent, RequestID, ContentType, ForceTrace, Baggage string

	GRPC  bool
	Class int // of the status: 0 none, 1 to 5; -1 is not known yet
}

// Match tells which of the rules holds, -1 is none of them. It is what the kernel is held to, which finds the same
// by tables.
func Match(rules []Rule, r *Request) int {
	return slices.IndexFunc(rules, func(rule Rule) bool { return rule.Match.accept(rules, r) })
}

func (c *Conditions) accept(all []Rule, r *Request) bool {
	return one(c.Services, func(s string) bool {
		return r.Service != "" && MatchesService(s, r.Service)
	}) && one(c.Kinds, func(k Kind) bool { return k == r.Kind }) &&
		one(c.Methods, func(m string) bool { return m == r.Method }) &&
		c.Path.accept(r) && one(c.Extensions, func(e string) bool { return e == extension(r.Target) }) &&
		one(c.Hosts, func(h string) bool {
			host := hostName(r.Host)
			_, rest, dotted := strings.Cut(host, ".")
			return host != "" && (host == h || dotted && "*."+rest == h)
		}) && one(c.Clients, func(a netip.Addr) bool { return a == r.Client.Unmap() }) &&
		one(c.Statuses, func(s string) bool { return r.Class >= 0 && statusClasses[r.Class] == s }) &&
		c.Headers.UserAgent.accept(r.UserAgent, product(r.UserAgent)) && c.Headers.RequestID.accept(r.RequestID) &&
		c.Headers.ContentType.accept(r.ContentType, mediaType(r.ContentType)) &&
		c.Headers.ForceTrace.accept(r.ForceTrace) && c.Headers.Baggage.accept(r.Baggage, namedMembers(all, r.Baggage)...) &&
		c.GRPC.accept(r)
}

// one tells whether one item fits, or there is none to fit.
func one[T any](items []T, fits func(T) bool) bool {
	return len(items) == 0 || slices.ContainsFunc(items, fits)
}

// accept looks at the header's value as it was sent, and at the forms in which its values may be named.
func (h *HeaderCondition) accept(sent string, forms ...string) bool {
	if !h.looks() {
		return true
	}
	return sent != "" && (h.Present || slices.Contains(h.Values, sent) ||
		slices.ContainsFunc(forms, func(f string) bool { return f != "" && slices.Contains(h.Values, f) }))
}

func (p *PathCondition) accept(r *Request) bool {
	segments, known := pathSegments(r.Target)
	same := func(path string, template bool) bool {
		want := strings.FieldsFunc(path, isSlash)
		if len(want) != len(segments) || !known {
			return false
		}
		for i, w := range want {
			if w != segments[i] && !(template && isPlaceholder(w)) {
				return false
			}
		}
		return true
	}
	return one(p.Exact, func(e string) bool { return same(e, false) }) &&
		one(p.Templates, func(t string) bool { return same(t, true) }) &&
		one(p.Prefixes, func(prefix string) bool {
			want := strings.FieldsFunc(prefix, isSlash)
			return len(want) <= len(segments) && slices.Equal(want, segments[:len(want)])
		})
}

func (g *GRPCCondition) accept(r *Request) bool {
	if g == nil {
		return true
	}
	segments, _ := pathSegments(r.Target)
	if len(g.Services)+len(g.Methods) == 0 {
		return r.GRPC
	}
	return r.GRPC && len(segments) == 2 && one(g.Services, func(s string) bool { return s == segments[0] }) &&
		one(g.Methods, func(m string) bool { return m == segments[1] })
}

// pathSegments cuts the path of a target, without the empty ones: of an absolute one all behind the authority. It is not
// known where there is no target.
func pathSegments(target string) (segments []string, known bool) {
	path, _, _ := strings.Cut(target, "#")
	path, _, _ = strings.Cut(path, "?")
	if path != "" && path[0] != '/' && path[0] != '*' {
		path = strings.Join(strings.Split(path, "/")[min(3, strings.Count(path, "/")+1):], "/")
	}
	return strings.FieldsFunc(path, isSlash), target != ""
}

// extension is what follows the last dot of the last segment, if that is 1 to 8 bytes.
func extension(target string) string {
	segments, _ := pathSegments(target)
	if len(segments) == 0 {
		return ""
	}
	last := segments[len(segments)-1]
	at := strings.LastIndexByte(last, '.')
	if at < 0 || len(last)-at-1 > 8 {
		return ""
	}
	return lowerASCII(last[at+1:])
}

// hostName is in lower case, without port.
func hostName(sent string) string {
	if strings.HasPrefix(sent, "[") {
		if end := strings.IndexByte(sent, ']'); end >= 0 {
			return lowerASCII(sent[:end+1])
		}
	}
	host, _, _ := strings.Cut(sent, ":")
	return lowerASCII(host)
}

// product is what a user agent begins with.
func product(agent string) string {
	if at := strings.IndexAny(agent, "/ "); at >= 0 {
		return agent[:at]
	}
	return agent
}

func mediaType(sent string) string {
	media, _, _ := strings.Cut(sent, ";")
	return lowerASCII(strings.Trim(media, " \t"))
}

// namedMembers are the first few members of baggage, of the first ones, that some rule names: as they are, and their keys.
func namedMembers(rules []Rule, baggage string) (forms []string) {
	for i, member := range strings.Split(baggage, ",") {
		member, _, _ = strings.Cut(member, ";")
		member = strings.Trim(member, " \t")
		key, _, _ := strings.Cut(member, "=")
		key = strings.TrimRight(key, " \t")
		if i < bpf.BaggageMembers && len(forms) < 2*bpf.BaggageRows && slices.ContainsFunc(rules, func(r Rule) bool {
			named := r.Match.Headers.Baggage.Values
			return slices.Contains(named, member) || slices.Contains(named, key)
		}) {
			forms = append(forms, member, key)
		}
	}
	return forms
}

// lowerASCII leaves everything alone that is not A to Z.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}
