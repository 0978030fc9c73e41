package l7

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit/bpf"
)

const (
	// maxMatchValue is the longest text that a rule may name, in bytes: the kernel looks at no longer one.
	maxMatchValue = 128
	// maxProduct is the longest product of a user agent that the kernel looks at, in bytes.
	maxProduct = 63
	// maxRuleName is the longest name of a rule, in bytes.
	maxRuleName = 64
	// maxStatuses is how many statuses a rule may choose beside classes.
	maxStatuses = len(bpf.Action{}.Statuses)
	// maxSlow is far above what any request takes.
	maxSlow = time.Hour
	// maxCap is the most spans per second that a cap can be.
	maxCap = 1e6
)

// FieldError says which part of a rule is wrong. Its text names the part, what is wrong and what is allowed.
type FieldError struct {
	// Field is a path of names as the configuration file has them, such as "match.path.exact"; "" is the rule.
	Field string
	// Item is the place in the field's list, -1 where it is no item's fault.
	Item int
	Err  error
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return e.Err.Error()
	}
	return e.Field + ": " + e.Err.Error()
}

func (e *FieldError) Unwrap() error { return e.Err }

func wrong(field string, item int, allowed, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if allowed != "" {
		err = fmt.Errorf("%w; allowed: %s", err, allowed)
	}
	return &FieldError{Field: field, Item: item, Err: err}
}

func unknownWord(text string, known []string) error {
	return fmt.Errorf("%q is unknown; allowed: %s", text, strings.Join(known, ", "))
}

func (c GRPCCode) number() string { return strconv.Itoa(int(c)) }

// Validate checks one rule. The error is a *FieldError.
func (r *Rule) Validate() error {
	if err := checkName(r.Name); err != nil {
		return &FieldError{Field: "name", Item: -1, Err: err}
	}
	if err := r.Match.validate(); err != nil {
		return err
	}
	return r.Action.validate()
}

func checkName(name string) error {
	const allowed = "1 to 64 of a-z, A-Z, 0-9 and ._-"
	if name == "" {
		return fmt.Errorf("a rule needs a name; allowed: %s", allowed)
	}
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return fmt.Errorf("%q has a character that is not allowed; allowed: %s", name, allowed)
		}
	}
	if len(name) > maxRuleName {
		return fmt.Errorf("the name has %d characters; allowed: %s", len(name), allowed)
	}
	return nil
}

// texts checks each item of a list; valid says what is wrong with it.
func texts(field string, items []string, allowed string, valid func(string) error) error {
	for i, item := range items {
		err := valid(item)
		if err == nil && len(item) > maxMatchValue {
			err = fmt.Errorf("%q has %d bytes, and %d are looked at", item, len(item), maxMatchValue)
		}
		if err != nil {
			return &FieldError{Field: field, Item: i, Err: fmt.Errorf("%w; allowed: %s", err, allowed)}
		}
		if slices.Contains(items[:i], item) {
			return wrong(field, i, "", "%q is given twice", item)
		}
	}
	return nil
}

func (c *Conditions) validate() error {
	if err := texts("match.service", c.Services, "names, or the beginning of names with * behind", func(s string) error {
		if s == "" || strings.Contains(strings.TrimSuffix(s, "*"), "*") {
			return fmt.Errorf("%q is no name", s)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := texts("match.method", c.Methods, strings.Join(bpf.Methods[1:], ", "), func(m string) error {
		if m == "" || !slices.Contains(bpf.Methods[:], m) {
			return fmt.Errorf("%q is not known", m)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := c.Path.validate(); err != nil {
		return err
	}
	if err := texts("match.extension", c.Extensions, "1 to 8 characters in lower case, without dot and slash", func(e string) error {
		if len(e) < 1 || len(e) > 8 || e != lowerASCII(e) || strings.ContainsAny(e, "./?#") || !printableASCII(e) {
			return fmt.Errorf("%q is no extension", e)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := texts("match.host", c.Hosts, "names in lower case without port, or *. and a name, for one label more", checkHost); err != nil {
		return err
	}
	for i, a := range c.Clients {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return wrong("match.client", i, "IP addresses", "%s is no address", a)
		}
		if slices.Contains(c.Clients[:i], a) {
			return wrong("match.client", i, "", "%s is given twice", a)
		}
	}
	if err := texts("match.status", c.Statuses, strings.Join(statusClasses[:], ", "), func(s string) error {
		if !slices.Contains(statusClasses[:], s) {
			return fmt.Errorf("%q is no class of statuses", s)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := c.Headers.validate(); err != nil {
		return err
	}
	return c.validateGRPC()
}

func (p *PathCondition) validate() error {
	lists := []struct {
		field string
		items []string
	}{{"match.path.exact", p.Exact}, {"match.path.prefix", p.Prefixes}, {"match.path.template", p.Templates}}
	given := ""
	for _, l := range lists {
		if len(l.items) == 0 {
			continue
		}
		if given != "" {
			return wrong(l.field, -1, "one of exact, prefix and template", "it goes not with %s", given)
		}
		given = l.field
		template := l.field == "match.path.template"
		for i, path := range l.items {
			if err := checkPath(path, template); err != nil {
				return &FieldError{Field: l.field, Item: i, Err: err}
			}
			if slices.Contains(l.items[:i], path) {
				return wrong(l.field, i, "", "%q is given twice", path)
			}
		}
	}
	return nil
}

func checkPath(path string, template bool) error {
	allowed := fmt.Sprintf("paths such as /a/b, of at most %d segments of at most %d bytes, without query", bpf.Segments, maxMatchValue)
	if template {
		allowed = fmt.Sprintf("paths such as /users/{id}, of at most %d segments of at most %d bytes, without query", bpf.Segments, maxMatchValue)
	}
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w; allowed: %s", fmt.Errorf(format, args...), allowed)
	}
	if !strings.HasPrefix(path, "/") {
		return refuse("%q does not begin with a slash", path)
	}
	if strings.ContainsAny(path, "?#") {
		return refuse("%q has a query or fragment", path)
	}
	if !printableASCII(path) {
		return refuse("%q has characters that no path is sent with", path)
	}
	segments := strings.FieldsFunc(path, isSlash)
	if len(segments) > bpf.Segments {
		return refuse("%q has %d segments", path, len(segments))
	}
	for _, s := range segments {
		if len(s) > maxMatchValue {
			return refuse("%q has a segment of %d bytes", path, len(s))
		}
		if template && strings.ContainsAny(s, "{}") && !isPlaceholder(s) {
			return refuse("%q in %q is neither a text nor a placeholder", s, path)
		}
	}
	return nil
}

func isSlash(c rune) bool { return c == '/' }

// isPlaceholder tells a template's segment that stands for any one: {name}.
func isPlaceholder(s string) bool {
	return len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}' && !strings.ContainsAny(s[1:len(s)-1], "{}")
}

// printableASCII tells a text that has no blank, no control character and nothing else than ASCII.
func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func checkHost(h string) error {
	name := strings.TrimPrefix(h, "*.")
	address, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	if err == nil && address.Is6() && name == h && name == "["+address.String()+"]" {
		return nil
	}
	if name == "" || h != lowerASCII(h) || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "*/:@[]?#") || !printableASCII(name) {
		return fmt.Errorf("%q is no host", h)
	}
	return nil
}

func (h *HeaderConditions) validate() error {
	for _, one := range []struct {
		name    string
		header  *HeaderCondition
		allowed string
		wrong   func(string) bool
	}{
		{"user-agent", &h.UserAgent, "a product such as curl, of at most 63 bytes, or a whole value such as curl/8.0", func(v string) bool {
			return len(product(v)) > maxProduct
		}},
		{"x-request-id", &h.RequestID, "whole values", func(string) bool { return false }},
		{"content-type", &h.ContentType, "media types in lower case without parameters, such as text/html", func(v string) bool {
			return v != lowerASCII(v) || strings.ContainsAny(v, "; ")
		}},
		{"x-envoy-force-trace", &h.ForceTrace, "whole values", func(string) bool { return false }},
		{"baggage", &h.Baggage, "keys, or key=value, without blanks", func(v string) bool {
			return strings.ContainsAny(v, ",; \t") || v[0] == '='
		}},
	} {
		field := "match.headers." + one.name
		if one.header.Present && len(one.header.Values) > 0 {
			return wrong(field, -1, "true, or values", "it is present with any value, and values are given")
		}
		if err := texts(field, one.header.Values, one.allowed, func(v string) error {
			if v == "" || strings.TrimSpace(v) != v || one.wrong(v) || !printableASCII(strings.ReplaceAll(v, " ", "")) {
				return fmt.Errorf("%q is no value to look for", v)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conditions) validateGRPC() error {
	if c.GRPC == nil {
		return nil
	}
	if len(c.Path.Exact)+len(c.Path.Prefixes)+len(c.Path.Templates) > 0 {
		return wrong("match.grpc", -1, "one of grpc and path", "it goes not with a path")
	}
	valid := func(s string) error {
		if s == "" || strings.ContainsAny(s, "/?#") || !printableASCII(s) {
			return fmt.Errorf("%q is no name", s)
		}
		return nil
	}
	if err := texts("match.grpc.service", c.GRPC.Services, "names with their package, such as shop.v1.Cart", valid); err != nil {
		return err
	}
	return texts("match.grpc.method", c.GRPC.Methods, "names without their service, such as AddItem", valid)
}

func (a *RuleAction) validate() error {
	if a.Drop {
		rest := *a
		rest.Drop = false
		if rest != (RuleAction{}) {
			return wrong("drop", -1, "drop alone", "what is dropped can have no other action")
		}
		return nil
	}
	if a.Always && (a.Rate != nil || a.Parent != "") {
		return wrong("always", -1, "always, or rate and parent", "it is rate 1 and parent ignore, and one of them is given too")
	}
	for _, share := range []struct {
		field string
		value *float64
	}{{"rate", a.Rate}, {"tail_rate", a.TailRate}} {
		if share.value != nil && !(*share.value >= 0 && *share.value <= 1) {
			return wrong(share.field, -1, "a number from 0 to 1", "%v is out of range", *share.value)
		}
	}
	if a.Slow != nil && (*a.Slow < 0 || *a.Slow > maxSlow) {
		return wrong("slow_threshold", -1, "a duration up to 1h, or off", "%s is out of range", *a.Slow)
	}
	if !(a.Cap >= 0 && a.Cap <= maxCap) || math.IsNaN(a.Cap) {
		return wrong("cap", -1, "spans per second above 0 and up to 1000000", "%v is out of range", a.Cap)
	}
	if !slices.Contains([]string{"", classCritical, classNormal, classBackground}, a.Class) {
		return &FieldError{Field: "class", Item: -1, Err: unknownWord(a.Class, []string{classCritical, classNormal, classBackground})}
	}
	if !slices.Contains([]string{"", parentHonour, parentIgnore, parentScale}, a.Parent) {
		return &FieldError{Field: "parent", Item: -1, Err: unknownWord(a.Parent, []string{parentHonour, parentIgnore, parentScale})}
	}
	if a.Parent == parentScale && a.Rate == nil {
		return wrong("parent", -1, "scale with a rate", "there is no rate to scale by")
	}
	if a.Errors != nil {
		return a.Errors.validate()
	}
	return nil
}

func (e *ErrorRule) validate() error {
	if e.Off && (e.Statuses != nil || e.GRPC != nil || e.Endings != nil) {
		return wrong("errors", -1, "off, or some of statuses, grpc and endings", "it is off, and says what an error is")
	}
	chosen := 0
	for i, s := range e.Statuses {
		if slices.Contains(statusClasses[1:], s) {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 100 || n > 599 || strconv.Itoa(n) != s {
			return wrong("errors.statuses", i, "classes such as 5xx, and statuses from 100 to 599", "%q is no status", s)
		}
		if chosen++; chosen > maxStatuses {
			return wrong("errors.statuses", i, fmt.Sprintf("at most %d, beside classes", maxStatuses), "%s is one status too many", s)
		}
	}
	for i, c := range e.GRPC {
		if !c.Known() {
			return wrong("errors.grpc", i, strings.Join(grpcCodes[:], ", "), "%d is no code", c)
		}
	}
	for i, end := range e.Endings {
		if end == EndedByResponse || int(end) >= len(endings) {
			return wrong("errors.endings", i, strings.Join(endings[EndedByClose:], ", "), "%d is no ending without response", end)
		}
	}
	return nil
}

// RuleError is a FieldError of one of several rules.
type RuleError struct {
	// Rule is its place among them.
	Rule int
	Name string
	Err  error
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("rule %q: %v", e.Name, e.Err)
}

func (e *RuleError) Unwrap() error { return e.Err }

var errTwice = errors.New("the name is given twice; allowed: a name of its own for each rule")

// ValidateRules checks rules one by one, and that their names are unique. The error is a *RuleError.
func ValidateRules(rules []Rule) error {
	names := make(map[string]bool, len(rules))
	for i := range rules {
		r := &rules[i]
		err := r.Validate()
		if err == nil && (names[r.Name] || r.Name == DefaultRule) {
			err = &FieldError{Field: "name", Item: -1, Err: errTwice}
			if r.Name == DefaultRule {
				err = wrong("name", -1, "another name", "%q is the rule behind all others", r.Name)
			}
		}
		if err != nil {
			return &RuleError{Rule: i, Name: r.Name, Err: err}
		}
		names[r.Name] = true
	}
	return nil
}
