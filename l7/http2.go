package l7

import (
	"strconv"
	"strings"

	"ambit/bpf"
)

// ErrorCode is why an HTTP/2 stream or connection was given up: RFC 9113, section 7.
type ErrorCode uint32

// The codes that ambit itself asks for.
const (
	StreamClosed       ErrorCode = 0x5
	RefusedStream      ErrorCode = 0x7
	CancelStream       ErrorCode = 0x8
	ConnectError       ErrorCode = 0xa
	EnhanceYourCalm    ErrorCode = 0xb
	InadequateSecurity ErrorCode = 0xc
)

var errorCodes = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
	"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String is the code's name in RFC 9113, or its number as 0x1f where it has none.
func (c ErrorCode) String() string {
	if int64(c) < int64(len(errorCodes)) {
		return errorCodes[c]
	}
	return "0x" + strconv.FormatUint(uint64(c), 16)
}

// readPseudoHeaders fills in what HTTP/2 says of a request. What the record does not have is unknown and stays so: of
// CONNECT there is no path, and of a head that refers to what was never seen there may be nothing.
func readPseudoHeaders(rec *bpf.Record, fields *[bpf.Fields]string, s *Span) {
	s.Version = "2"
	s.Stream = rec.Stream
	s.ErrorCode = ErrorCode(rec.ErrorCode)
	s.ResetByClient = rec.Flags&bpf.FlagResetByOpener != 0
	if method := fields[bpf.FieldMethod]; method != "" {
		setMethod(method, s.Cut&CutMethod != 0, s)
	}
	if scheme := fields[bpf.FieldScheme]; isScheme(scheme) && s.Cut&CutScheme == 0 {
		s.Scheme = strings.ToLower(scheme)
	}
	authority := fields[bpf.FieldHost]
	s.Host, s.Port = splitHost(authority)
	if s.Port == 80 && s.Scheme != "http" && !strings.HasSuffix(authority, ":80") {
		s.Port = defaultPort(s.Scheme)
	}
	if path := fields[bpf.FieldPath]; path != "" {
		if s.Cut&CutPath != 0 {
			path = wholeText(path)
		}
		readPath(path, s)
	}
}

// defaultPort is 0 for a scheme that has none, or is unknown.
func defaultPort(scheme string) uint16 {
	switch scheme {
	case "http":
		return 80
	case "https":
		return 443
	}
	return 0
}
