// Package l7 turns the kernel's records into spans: it knows the protocols' fields and nothing of
// sockets, exporters or Kubernetes.
package l7

import (
	"net/netip"

	"ambit/bpf"
)

// Kind is the side of an exchange that a span tells of.
type Kind uint8

const (
	// Client is the side that opened the connection.
	Client Kind = iota
	// Server is the side that accepted it.
	Server
)

func (k Kind) String() string {
	if k == Client {
		return "CLIENT"
	}
	return "SERVER"
}

// Ending is how an exchange ended.
type Ending uint8

const (
	// EndedByResponse is the normal end: the last byte of the response.
	EndedByResponse Ending = iota
	// EndedByClose means that the connection was closed before the response was whole.
	EndedByClose
	// EndedByReset means that it was reset.
	EndedByReset
	// EndedByIdle means that ambit's own idle limit passed.
	EndedByIdle
	// EndedByStreamReset means that one side reset the HTTP/2 stream: ResetByClient and ErrorCode say who, and why.
	EndedByStreamReset
	// EndedByRefusal means that the server's GOAWAY gave the stream back unseen; ErrorCode is GOAWAY's.
	EndedByRefusal
)

// Anomaly says how a route behaves unlike itself.
type Anomaly struct {
	At           int64   // when it was found, nanoseconds since the Unix epoch
	Kind         string  // latency_shift, latency_ramp, error_rate
	Value, Usual float64 // of latency seconds, of errors the ratio
}

// Reason is why a span was kept.
type Reason uint8

const (
	// ReasonHead is a rate: of a rule, of the route, of "ambit rates set", or the default one.
	ReasonHead Reason = iota + 1
	// ReasonParent is the caller's decision, from traceparent or b3.
	ReasonParent
	// ReasonSlow is the tail: it took longer than its rule or its route allows.
	ReasonSlow
	// ReasonError is the tail: it failed.
	ReasonError
	// ReasonForced is a header, or "ambit trace".
	ReasonForced
	// ReasonFloor is the first of its route for a while.
	ReasonFloor
	// ReasonAnomaly is a route that behaves unlike itself.
	ReasonAnomaly
)

var reasons = [...]string{
	ReasonHead: "head", ReasonParent: "parent", ReasonSlow: "slow", ReasonError: "error",
	ReasonForced: "forced", ReasonFloor: "floor", ReasonAnomaly: "anomaly",
}

func (r Reason) String() string {
	if r == 0 || int(r) >= len(reasons) {
		return "none"
	}
	return reasons[r]
}

// Class is who loses first under pressure: background, then normal, and critical last.
type Class uint8

// Classes, as the kernel has them.
const (
	ClassCritical   = Class(bpf.ClassCritical)
	ClassNormal     = Class(bpf.ClassNormal)
	ClassBackground = Class(bpf.ClassBackground)
)

var classes = [...]string{
	ClassCritical: classCritical, ClassNormal: classNormal, ClassBackground: classBackground,
}

func (c Class) String() string {
	if int(c) >= len(classes) {
		return "unknown"
	}
	return classes[c]
}

// Cut says which values are longer than what the kernel kept of them.
type Cut uint16

// The bits of Cut, where the kernel has them. Of HTTP/1 method and target are the request line.
const (
	CutRequestLine  Cut = 1 << bpf.FieldRequestLine
	CutHost         Cut = 1 << bpf.FieldHost
	CutUserAgent    Cut = 1 << bpf.FieldUserAgent
	CutRequestID    Cut = 1 << bpf.FieldRequestID
	CutTraceState   Cut = 1 << bpf.FieldTraceState
	CutMethod       Cut = 1 << bpf.FieldMethod
	CutPath         Cut = 1 << bpf.FieldPath
	CutScheme       Cut = 1 << bpf.FieldScheme
	CutContentType  Cut = 1 << bpf.FieldContentType
	CutResponseType Cut = 1 << bpf.FieldResponseType
	CutGRPCMessage  Cut = 1 << bpf.FieldGRPCMessage

	cutTraceMore Cut = 1 << bpf.FieldTraceMore // told as CutTraceState
	// What only rules look at is no part of a span.
	cutAll Cut = (1<<bpf.Fields - 1) &^ (1<<bpf.FieldBaggage | 1<<bpf.FieldForceTrace)
)

// Owner is the process and cgroup behind the span's socket, as the kernel knows it. Zero is unknown.
type Owner struct {
	Cookie    uint64 // socket cookie
	Cgroup    uint64 // cgroup v2 id
	NetNS     uint64 // network namespace cookie
	StartedNS uint64 // process start, nanoseconds of CLOCK_BOOTTIME
	PID       uint32 // thread group, in the initial pid namespace
	UID       uint32
	Comm      string
}

// Attribute is one attribute of a resource. The value is a string or an int64.
type Attribute struct {
	Key string
	Str string
	Int int64
	// IsInt tells which of the two holds.
	IsInt bool
}

// Resource describes the service that a span belongs to. It is shared by the spans of one service
// instance and never changes once it is made.
type Resource struct {
	// ServiceName is the value of service.name, also among Attributes.
	ServiceName string
	Attributes  []Attribute
}

// Span is one exchange side that was kept. Strings are valid UTF-8. An empty string or a zero Addr is
// unknown or absent.
type Span struct {
	TraceID  [16]byte
	SpanID   [8]byte
	ParentID [8]byte // zero: a root
	Kind     Kind

	Start     int64 // nanoseconds since the Unix epoch: first byte of the request
	FirstByte int64 // first byte of the final response, 0 is none
	End       int64 // last byte of the response, or when it was given up

	Method         string // one of the known methods, or "_OTHER"; "" is unknown
	MethodOriginal string // as sent, where it differs from Method
	Scheme         string // "http" or another; "" is unknown, which it never is with HTTP/1
	Path           string
	Query          string // without "?"; not redacted yet
	HasQuery       bool   // tells "?" with nothing behind it from no query
	Host           string // from the target or the Host header, without the port
	Port           uint16 // from there, or the scheme's default; 0 where Host is empty
	Version        string // "2", "1.1", "1.0"; "" is unknown
	UserAgent      string
	RequestID      string
	TraceState     string // the caller's, with ambit's ot=th written in
	RequestType    string // content-type of the request
	ResponseType   string
	Status         int // 0 is none

	GRPCMessage string // decoded
	RPC         RPC
	GRPCStatus  GRPCCode // NoGRPCStatus where none was seen; of no meaning without RPC

	Stream        uint32    // HTTP/2: its number
	ErrorCode     ErrorCode // with EndedByStreamReset and EndedByRefusal
	ResetByClient bool      // with EndedByStreamReset; else the server did

	// The request's head, or the response's, refers to entries of the peer's header table that ambit never saw:
	// what is absent may have been there.
	RequestUnknown  bool
	ResponseUnknown bool

	RequestBody  int64 // bytes; below 0 where some were never seen
	ResponseBody int64

	Local  netip.AddrPort // the span's own socket
	Remote netip.AddrPort // its peer; of a client the original destination

	Ending Ending

	// Route is the template of the path, of bounded number; "" where it has none, or where the path was not read.
	Route string
	// RouteFromRule says that a rule gave Route. Else it is a guess, which may not be sent as http.route.
	RouteFromRule bool

	Reason Reason
	// Rule is the name of the rule that decided; "" is forgotten. Generation is that of its set, which counts from 1;
	// 0 is unknown.
	Rule       string
	Class      Class
	Generation uint32
	// Threshold is T of consistent probability sampling, 56 bits, where HasThreshold.
	Threshold    uint64
	HasThreshold bool
	Anomaly      *Anomaly // its route behaves unlike itself; nil: it does not
	TraceFlags   uint8    // to export: the sampled bit is always set
	Cut          Cut
	Joined       bool // the connection was open before ambit saw it

	Owner    Owner
	Resource *Resource // nil until meta.Enrich
}
