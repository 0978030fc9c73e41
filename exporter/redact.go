package exporter

import (
	"net/netip"
	"strconv"
	"strings"

	"ambit/l7"
)

const redacted = "REDACTED"

// appendQuery appends what capture lets through of a query. A part without "=" is a key without a value, as
// the URL standard has it, and stays.
func appendQuery(b []byte, query string, capture QueryCapture) []byte {
	switch capture {
	case QueryNone:
		return b
	case QueryValues:
		return append(b, query...)
	}
	for {
		part, end := query, strings.IndexByte(query, '&')
		if end >= 0 {
			part = query[:end]
		}
		if i := strings.IndexByte(part, '='); i >= 0 {
			b = append(b, part[:i+1]...)
			b = append(b, redacted...)
		} else {
			b = append(b, part...)
		}
		if end < 0 {
			return b
		}
		b = append(b, '&')
		query = query[end+1:]
	}
}

// serverHost is the host that the request named, without userinfo and without the brackets of an IPv6
// literal; "" where it named none.
func serverHost(host string) string {
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	if n := len(host); n >= 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	return host
}

// target is what the request was for: the host that it named, else the end that the server has of the
// connection (of a client the original destination).
type target struct {
	host string     // "" where the request named none
	addr netip.Addr // stands in for host; may be invalid
	port uint16     // 0 is unknown
}

// targetOf is the target of s, whose request named host.
func targetOf(s *l7.Span, host string) target {
	if host != "" {
		return target{host: host, port: s.Port}
	}
	end := s.Local
	if s.Kind == l7.Client {
		end = s.Remote
	}
	return target{addr: end.Addr().Unmap(), port: end.Port()}
}

// known tells whether there is anything to name.
func (t target) known() bool {
	return t.host != "" || t.addr.IsValid()
}

// appendURL appends the absolute URL of a request without its query. Userinfo is never in it, and neither is
// the scheme's default port.
func (t target) appendURL(b []byte, scheme, path string) []byte {
	b = append(b, scheme...)
	b = append(b, "://"...)
	switch {
	case t.host == "":
		b = appendURLAddr(b, t.addr)
	case strings.IndexByte(t.host, ':') >= 0:
		b = append(b, '[')
		b = append(b, t.host...)
		b = append(b, ']')
	default:
		b = append(b, t.host...)
	}
	if t.port != 0 && !(scheme == "http" && t.port == 80) && !(scheme == "https" && t.port == 443) {
		b = append(b, ':')
		b = strconv.AppendUint(b, uint64(t.port), 10)
	}
	// "*" of OPTIONS means the server itself: its URL has no path.
	if path != "*" {
		if path != "" && path[0] != '/' {
			// Without it the path would read as a part of the host.
			b = append(b, '/')
		}
		b = append(b, path...)
	}
	return b
}

func appendURLAddr(b []byte, addr netip.Addr) []byte {
	if addr.Is4() {
		return addr.AppendTo(b)
	}
	b = append(b, '[')
	b = addr.AppendTo(b)
	return append(b, ']')
}
