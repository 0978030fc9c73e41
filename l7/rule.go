package l7

import (
	"net/netip"
	"time"
)

// Rule says what is done with the requests that it accepts. Of several rules the first one that accepts a request holds.
type Rule struct {
	// Name is told with each span; it is unique among the rules.
	Name   string
	Match  Conditions
	Action RuleAction
}

// Conditions are what a rule looks at. All of them must hold; of a list one item is enough. Zero accepts everything.
type Conditions struct {
	// Services are names, or the beginnings of names with "*" behind.
	Services []string
	// Kinds are Client, Server or both.
	Kinds []Kind
	// Methods are known ones, in upper case.
	Methods []string
	// Path looks at the path.
	Path PathCondition
	// Extensions are what follows the last dot of the path's last segment: 1 to 8 characters, in lower case.
	Extensions []string
	// Hosts are names without port, in lower case, or "*.example.com" for exactly one label more.
	Hosts []string
	// Clients are addresses of the opener, as the span's side sees it.
	Clients []netip.Addr
	// Statuses are classes: "none", "1xx" to "5xx".
	Statuses []string
	Headers  HeaderConditions
	// GRPC, where it is not nil, accepts calls of gRPC alone.
	GRPC *GRPCCondition
}

// PathCondition looks at the path as it was sent, without query; empty segments do not count. One of the lists at most
// has items.
type PathCondition struct {
	// Exact are whole paths.
	Exact []string
	// Prefixes are the first segments, whole ones.
	Prefixes []string
	// Templates are whole paths, in which a segment such as {id} stands for any one. They name the route.
	Templates []string
}

// HeaderConditions looks at headers of the request.
type HeaderConditions struct {
	UserAgent   HeaderCondition // without "/" or blank inside: the product, whatever its version
	RequestID   HeaderCondition // x-request-id
	ContentType HeaderCondition // the media type alone, in lower case
	ForceTrace  HeaderCondition // x-envoy-force-trace
	Baggage     HeaderCondition // keys, or members as key=value
}

// HeaderCondition accepts any value where Present, else one of Values. Zero does not look at the header.
type HeaderCondition struct {
	Present bool
	Values  []string
}

func (h *HeaderCondition) looks() bool { return h.Present || len(h.Values) > 0 }

// GRPCCondition looks at the path of a call. Zero accepts every call.
type GRPCCondition struct {
	// Services are whole names, with their package.
	Services []string
	Methods  []string
}

// RuleAction is what a rule does. Zero leaves everything as it is without a rule.
type RuleAction struct {
	// Rate is the share of the requests that the head keeps, 0 to 1; nil leaves it to the default.
	Rate *float64
	// Drop keeps nothing, whatever the caller and the tail say. Nothing but a name goes with it.
	Drop bool
	// Always keeps everything, whatever the caller said: rate 1, and PARENT_IGNORE.
	Always bool
	// Slow is the duration above which the tail takes a request for slow; nil is a second, 0 is never.
	Slow *time.Duration
	// Errors says what the tail takes for failed; nil is what ErrorRule's fields are without items.
	Errors *ErrorRule
	// TailRate is the share of what is slow or failed that the tail keeps, 0 to 1; nil is all.
	TailRate *float64
	// Class is "critical", "normal" or "background"; "" is normal.
	Class string
	// Cap is the most spans per second; 0 is no cap of its own.
	Cap float64
	// Parent is "honour", "ignore" or "scale"; "" honours. "scale" wants a Rate.
	Parent string
	// Force keeps under no known probability, within the budget of forced spans.
	Force bool
}

// ErrorRule says what the tail takes for failed. A list of nil is the default of its own; an empty one is nothing.
type ErrorRule struct {
	// Off: nothing fails.
	Off bool
	// Statuses are classes such as "5xx", and up to 4 statuses such as "429"; nil is 5xx.
	Statuses []string
	// GRPC are codes; nil is what the semantic conventions say.
	GRPC []GRPCCode
	// Endings are ways to end without a whole response; nil is all.
	Endings []Ending
}

// Words of rules.
const (
	classCritical   = "critical"
	classNormal     = "normal"
	classBackground = "background"
	parentHonour    = "honour"
	parentIgnore    = "ignore"
	parentScale     = "scale"
)

// defaultSlow is what the tail takes for slow where a rule does not say.
const defaultSlow = time.Second

// DefaultRule is the name of the rule behind all others, which accepts everything and says nothing.
const DefaultRule = "default"

// statusClasses are the words of Conditions.Statuses, by their index in the kernel.
var statusClasses = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// endings are the words for ways to end without a whole response.
var endings = [...]string{
	EndedByClose: "closed", EndedByReset: "reset", EndedByIdle: "idle", EndedByStreamReset: "stream_reset", EndedByRefusal: "refused",
}

// String is the word that rules have for it.
func (e Ending) String() string {
	if e == EndedByResponse || int(e) >= len(endings) {
		return "response"
	}
	return endings[e]
}

// ParseEnding reads a word for a way to end without a whole response.
func ParseEnding(text string) (Ending, error) {
	for e, word := range endings {
		if word == text && word != "" {
			return Ending(e), nil
		}
	}
	return 0, unknownWord(text, endings[EndedByClose:])
}

// ParseGRPCCode reads a name or a number from 0 to 16.
func ParseGRPCCode(text string) (GRPCCode, error) {
	for code, name := range grpcCodes {
		if name == text || GRPCCode(code).number() == text {
			return GRPCCode(code), nil
		}
	}
	return 0, unknownWord(text, append([]string{"numbers from 0 to 16"}, grpcCodes[:]...))
}

// ParseKind reads "client" or "server".
func ParseKind(text string) (Kind, error) {
	switch text {
	case "client":
		return Client, nil
	case "server":
		return Server, nil
	}
	return 0, unknownWord(text, []string{"client", "server"})
}
