package l7

import (
	"strconv"
	"strings"
)

// methodOther stands for a method that is not among the known ones, as the semantic conventions have it.
const methodOther = "_OTHER"

// knownMethod tells the methods of RFC 9110, PATCH and QUERY.
func knownMethod(m string) bool {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return true
	}
	return false
}

// readRequestLine fills in method, target and version. A line that was cut has no version, and its
// target is as long as it was kept.
func readRequestLine(line string, s *Span) {
	method, rest, ok := strings.Cut(line, " ")
	if !ok {
		return
	}
	setMethod(method, false, s)
	target := rest
	if s.Cut&CutRequestLine == 0 {
		if i := strings.LastIndexByte(rest, ' '); i >= 0 {
			target = rest[:i]
			s.Version = strings.TrimPrefix(rest[i+1:], "HTTP/")
		}
	} else {
		target = wholeText(target)
	}
	readTarget(method, strings.TrimSpace(target), s)
}

// setMethod fills in the method. The beginning of a longer one is no known method, whatever it reads.
func setMethod(method string, cut bool, s *Span) {
	s.Method = method
	if cut || !knownMethod(method) {
		s.Method, s.MethodOriginal = methodOther, method
	}
}

// wholeText leaves out the character at the end of a text that the cut broke.
func wholeText(s string) string {
	return strings.TrimSuffix(s, "\uFFFD")
}

// readTarget takes the four forms of RFC 9112, section 3.2.
func readTarget(method, target string, s *Span) {
	if method == "CONNECT" {
		s.Host, s.Port = splitHost(target)
		return
	}
	if !strings.HasPrefix(target, "/") && target != "*" {
		if scheme, rest, ok := strings.Cut(target, "://"); ok && isScheme(scheme) {
			s.Scheme = strings.ToLower(scheme)
			authority, path := rest, ""
			if i := strings.IndexAny(rest, "/?"); i >= 0 {
				authority, path = rest[:i], rest[i:]
			}
			s.Host, s.Port = splitHost(authority)
			if s.Port == 80 && s.Scheme == "https" && !strings.HasSuffix(authority, ":80") {
				s.Port = 443
			}
			target = path
		}
	}
	readPath(target, s)
	if s.Path == "" {
		s.Path = "/"
	}
}

// readPath takes path and query, without the fragment that no client should send.
func readPath(target string, s *Span) {
	if i := strings.IndexByte(target, '#'); i >= 0 {
		target = target[:i]
	}
	s.Path, s.Query, s.HasQuery = strings.Cut(target, "?")
}

// isScheme tells a URI's scheme (RFC 3986, section 3.1) from text in which "://" only occurs.
func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if !(c >= 'a' && c <= 'z') && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(s[i]))) {
			return false
		}
	}
	return s != ""
}

// splitHost parts a host and its port, 80 where it names none. A host that can't be one is unknown.
func splitHost(hostport string) (string, uint16) {
	// Whatever stands before "@" may be a password.
	if i := strings.LastIndexByte(hostport, '@'); i >= 0 {
		hostport = hostport[i+1:]
	}
	if hostport == "" || strings.ContainsAny(hostport, " /?#\\<>\"") {
		return "", 0
	}
	host, port := hostport, ""
	if strings.HasPrefix(hostport, "[") {
		end := strings.IndexByte(hostport, ']')
		if end < 0 {
			return "", 0
		}
		host = hostport[1:end]
		rest := hostport[end+1:]
		if rest != "" && rest[0] != ':' {
			return "", 0
		}
		port = strings.TrimPrefix(rest, ":")
	} else if i := strings.LastIndexByte(hostport, ':'); i >= 0 {
		host, port = hostport[:i], hostport[i+1:]
		if strings.IndexByte(host, ':') >= 0 {
			return "", 0
		}
	}
	if host == "" {
		return "", 0
	}
	if port == "" {
		return host, 80
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return host, 0
	}
	return host, uint16(n)
}
