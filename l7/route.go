package l7

import "strings"

// Route is what exchanges of one kind and service have in common, under the name that their metrics bear.
type Route struct {
	Kind     Kind
	Method   string // one of the known methods, or "_OTHER"; "" is unknown
	Template string // of a call of gRPC its path; "" is unknown, or none
	// FromRule says that a rule gave Template. Else it is a guess, which may not be sent as http.route.
	FromRule bool
	GRPC     bool
	// Host and Port are what a client called; unknown of a server.
	Host string
	Port uint16
}

// maxSegments is how many segments of a path a template tells apart.
const maxSegments = 24

// Template guesses the route of a request's target: segments of its path that look like identifiers become
// placeholders, so that it can name a bounded number of routes. The kernel makes the keys of routes by the same
// words (l7/route.h):
//
//	{number}  up to 128 digits, with . , - between them: 42, 1.2, 2024-01-02
//	{uuid}    36 bytes: hex digits, and "-" at 8, 13, 18 and 23
//	{hex}     16 to 128 hex digits, one of them 0 to 9
//	{token}   20 to 128 of A-Z a-z 0-9 - _ = +, with upper case, lower case and a digit
//
// Query and fragment are left out, and so are empty segments, scheme and authority; "/…" stands for segments behind the
// 24th. A target that has no path, such as CONNECT's, gives "", and "*" itself. A call of gRPC is its path as it is.
func Template(target string, grpc bool) string {
	if grpc || target == "*" {
		return target
	}
	path, ok := pathOf(target)
	if !ok {
		return ""
	}
	var b strings.Builder
	segments := 0
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" {
			continue
		}
		if segments++; segments > maxSegments {
			b.WriteString("/…")
			break
		}
		b.WriteByte('/')
		b.WriteString(placeholder(segment))
	}
	if segments == 0 {
		return "/"
	}
	return b.String()
}

// pathOf takes the path out of the forms of RFC 9112, section 3.2, that have one.
func pathOf(target string) (string, bool) {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	if strings.HasPrefix(target, "/") {
		return target, true
	}
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || !isScheme(scheme) {
		return "", false
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:], true
	}
	return "/", true
}

// placeholder is the first that a segment fits, or the segment.
func placeholder(segment string) string {
	switch {
	case isNumber(segment):
		return "{number}"
	case isUUID(segment):
		return "{uuid}"
	case isHex(segment):
		return "{hex}"
	case isToken(segment):
		return "{token}"
	}
	return segment
}

func isNumber(s string) bool {
	if len(s) > 128 {
		return false
	}
	digits := 0
	for i := range len(s) {
		switch c := s[i]; {
		case isDigit(c):
			digits++
		case c != '.' && c != ',' && c != '-':
			return false
		}
	}
	return digits > 0
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash && s[i] != '-' || !dash && !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	if len(s) < 16 || len(s) > 128 {
		return false
	}
	digit := false
	for i := range len(s) {
		if !isHexDigit(s[i]) {
			return false
		}
		digit = digit || isDigit(s[i])
	}
	return digit
}

func isToken(s string) bool {
	if len(s) < 20 || len(s) > 128 {
		return false
	}
	var upper, lower, digit bool
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'A' && c <= 'Z':
			upper = true
		case c >= 'a' && c <= 'z':
			lower = true
		case isDigit(c):
			digit = true
		case c != '-' && c != '_' && c != '=' && c != '+':
			return false
		}
	}
	return upper && lower && digit
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHexDigit(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

// MethodName is a method as metrics have it: "_OTHER" where it is not among the known ones, "" where it is unknown.
func MethodName(method string) string {
	if method == "" || knownMethod(method) {
		return method
	}
	return methodOther
}

// Authority parts a Host header or :authority into host and port: 80 where it names none, 0 where that can be none. A
// host that can't be one is "".
func Authority(text string) (host string, port uint16) { return splitHost(text) }

// RPCMethodName is the full name of a call, package.Service/Method, "_OTHER" where its path is no such name, and ""
// where that is unknown.
func (r *Route) RPCMethodName() string {
	s := Span{Path: r.Template}
	name, _ := s.RPCMethod()
	return name
}
