package exporter

import (
	"encoding/hex"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ambit/l7"
)

// The columns of a line, in order. The path takes what the others leave.
const (
	columnTime     = 12 // 15:04:05.000
	columnKind     = 6
	columnService  = 16
	columnMethod   = 7
	columnStatus   = 7
	columnDuration = 7
	columnPeers    = 38
	columnTrace    = 8
	columnReason   = 6

	columnsAlways = columnTime + columnKind + columnService + columnMethod + columnStatus + columnDuration + 6

	minPath       = 20
	unlimitedPath = 40
	leastPath     = 8 // beside a status that is longer than its column
)

// columns says which columns a line of a given width has, and how wide the path is.
type columns struct {
	path                 int
	peers, trace, reason bool
}

// columnsFor leaves out whom, why and which trace, in that order, until the path has room.
func columnsFor(width int) columns {
	if width <= 0 {
		return columns{unlimitedPath, true, true, true}
	}
	c := columns{width - columnsAlways, true, true, true}
	c.path -= columnPeers + columnTrace + columnReason + 3
	for _, drop := range []struct {
		shown *bool
		width int
	}{{&c.peers, columnPeers}, {&c.reason, columnReason}, {&c.trace, columnTrace}} {
		if c.path >= minPath {
			break
		}
		*drop.shown = false
		c.path += drop.width + 1
	}
	// Narrower terminals wrap: there is no line without the columns that are always there.
	c.path = max(c.path, minPath/2)
	return c
}

// Header is the line above those of Line, without a newline.
func Header(st Style) string {
	c := columnsFor(st.Width)
	b := st.begin(nil, colorDim)
	cell := func(name string, width int, right bool) {
		b = appendColumn(b, name, width, right, true)
		b = append(b, ' ')
	}
	cell("START", columnTime, false)
	cell("KIND", columnKind, false)
	cell("SERVICE", columnService, false)
	cell("METHOD", columnMethod, false)
	cell("PATH", c.path, false)
	cell("STATUS", columnStatus, false)
	cell("TOOK", columnDuration, true)
	if c.peers {
		cell("FROM -> TO", columnPeers, false)
	}
	if c.trace {
		cell("TRACE", columnTrace, false)
	}
	if c.reason {
		cell("REASON", columnReason, false)
	}
	return string(st.end(b[:len(b)-1], colorDim))
}

// Line is one span as one line without a newline: start, kind, service, method, path, status or ending,
// duration, who to whom, the first digits of the trace ID, and why it was kept. It holds no control
// character of the span's, whatever the span holds. On a narrow terminal the last columns are left out.
func Line(s *l7.Span, st Style) string {
	return string(appendLine(nil, s, st))
}

func appendLine(b []byte, s *l7.Span, st Style) []byte {
	c := columnsFor(st.Width)
	b = time.Unix(0, s.Start).AppendFormat(b, "15:04:05.000")
	b = append(b, ' ')
	color := colorServer
	if s.Kind == l7.Client {
		color = colorClient
	}
	b = st.begin(b, color)
	b = appendColumn(b, s.Kind.String(), columnKind, false, true)
	b = st.end(b, color)
	b = append(b, ' ')
	b = appendColumn(b, serviceName(s), columnService, false, true)
	b = append(b, ' ')
	b = appendColumn(b, methodText(s), columnMethod, false, true)
	b = append(b, ' ')
	outcome, color := outcomeText(s)
	status := statusColumns(outcome, c.path)
	b = appendColumn(b, pathText(s, st, c.path+columnStatus-status), c.path+columnStatus-status, false, st.Width > 0)
	b = append(b, ' ')
	b = st.begin(b, color)
	b = appendColumn(b, outcome, status, false, true)
	b = st.end(b, color)
	b = append(b, ' ')
	b = appendColumn(b, durationText(s.End-s.Start), columnDuration, true, true)
	if c.peers {
		b = append(b, ' ')
		b = appendColumn(b, peersText(s), columnPeers, false, st.Width > 0)
	}
	b = st.begin(b, colorDim)
	if c.trace {
		b = append(b, ' ')
		b = hex.AppendEncode(b, s.TraceID[:columnTrace/2])
	}
	if c.reason {
		b = append(b, ' ')
		b = append(b, s.Reason.String()...)
	}
	return st.end(b, colorDim)
}

func serviceName(s *l7.Span) string {
	switch {
	case s.Resource != nil && s.Resource.ServiceName != "":
		return s.Resource.ServiceName
	case s.Owner.Comm != "":
		return s.Owner.Comm
	}
	return "?"
}

// statusColumns is how many columns an outcome gets: names such as DEADLINE_EXCEEDED take what they lack from the
// path, so that what follows stands where it does on every line.
func statusColumns(outcome string, path int) int {
	return max(columnStatus, min(len(outcome), columnStatus+path-leastPath))
}

// methodText is the method as it was sent, or that it was a call.
func methodText(s *l7.Span) string {
	switch {
	case s.RPC == l7.GRPC:
		return "gRPC"
	case s.RPC == l7.GRPCWeb:
		return "gRPCweb"
	case s.MethodOriginal != "":
		return s.MethodOriginal
	case s.Method != "":
		return s.Method
	}
	return "?"
}

// pathText is the path and what is shown of the query, or the method of a call. A call's method that has no room
// goes without its package.
func pathText(s *l7.Span, st Style, columns int) string {
	path := s.Path
	if s.RPC != l7.NoRPC {
		if method, original := s.RPCMethod(); original == "" && method != "" {
			if st.Width > 0 && cellsOf(method) > columns {
				service := strings.LastIndexByte(method, '/')
				method = method[strings.LastIndexByte(method[:service], '.')+1:]
			}
			return method
		}
	}
	switch {
	case path != "":
	case s.RequestUnknown:
		return "?"
	default:
		path = serverHost(s.Host) // CONNECT
	}
	if !s.HasQuery || st.Query == QueryNone {
		return path
	}
	return string(appendQuery(append([]byte(path), '?'), s.Query, st.Query))
}

// outcomeText is the status, or how the exchange ended without a whole response; and its colour.
func outcomeText(s *l7.Span) (text, color string) {
	call, failure := outcomeOf(s)
	switch failure {
	case failureClosed:
		return "closed", colorError
	case failureReset:
		return "reset", colorError
	case failureIdle:
		return "timeout", colorError
	}
	switch {
	case call != "":
		switch {
		case failure != "":
			return call, colorError
		case call != l7.GRPCOK.String():
			return call, colorWarn
		}
		return call, ""
	case s.RPC == l7.GRPC && failure == "" && s.Status == 200:
		return "-", "" // 200 would say that it went well
	case s.Ending == l7.EndedByStreamReset, s.Ending == l7.EndedByRefusal:
		if statusFailure(s) == "" {
			return failure, colorError
		}
	}
	text = strconv.Itoa(s.Status)
	switch {
	case s.Status == 0:
		return "-", ""
	case s.Status >= 500:
		return text, colorError
	case s.Status >= 400:
		return text, colorWarn
	}
	return text, ""
}

// peersText is the client's address and the server's address and port.
func peersText(s *l7.Span) string {
	client, server := s.Local, s.Remote
	if s.Kind == l7.Server {
		client, server = server, client
	}
	from := "?"
	if client.Addr().IsValid() {
		from = client.Addr().Unmap().String()
	}
	to := "?"
	if server.Addr().IsValid() {
		to = netip.AddrPortFrom(server.Addr().Unmap(), server.Port()).String()
	}
	return from + " -> " + to
}

// durationText is ns in at most seven columns.
func durationText(ns int64) string {
	abs := math.Abs(float64(ns))
	switch {
	case abs < 1e6:
		return strconv.FormatInt(ns/1e3, 10) + "µs"
	case abs < 1e9:
		return strconv.FormatFloat(float64(ns)/1e6, 'f', precision(abs/1e6), 64) + "ms"
	}
	return strconv.FormatFloat(float64(ns)/1e9, 'f', precision(abs/1e9), 64) + "s"
}

// precision gives a number three significant digits.
func precision(v float64) int {
	switch {
	case v < 10:
		return 2
	case v < 100:
		return 1
	}
	return 0
}
