package meta

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"

	"ambit/l7"
)

const (
	// maxEnviron is how far into an environment is read. Kubernetes adds seven variables for each service
	// of the namespace, so it may be large; 256 KiB are the variables of about 700 services.
	maxEnviron = 256 << 10
	// maxVariable is the longest variable that is understood.
	maxVariable = 16 << 10
	// maxAttributes, maxKey and maxValue bound what is taken over from one list of attributes, and
	// maxAttributeBytes the sum of its keys and values.
	maxAttributes     = 32
	maxKey            = 128
	maxValue          = 256
	maxAttributeBytes = 2048
)

// environment is what a process's environment says about its service.
type environment struct {
	serviceName string
	attributes  []l7.Attribute // of OTEL_RESOURCE_ATTRIBUTES, strings, as they stand there
}

var (
	nameVariable       = []byte("OTEL_SERVICE_NAME=")
	attributesVariable = []byte("OTEL_RESOURCE_ATTRIBUTES=")
)

// parseAttributes parses the form of OTEL_RESOURCE_ATTRIBUTES: key=value pairs between commas, spaces
// around them ignored, both percent-encoded. As the specification wants it, one malformed pair spoils
// the whole list. Of a key that occurs twice the last value counts. It stops at the first key beyond
// maxAttributes, which it returns too, so that its caller sees that there are too many.
func parseAttributes(list string) ([]l7.Attribute, error) {
	var attributes []l7.Attribute
	for pair := range strings.SplitSeq(list, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		k, v, found := strings.Cut(pair, "=")
		if !found {
			return nil, fmt.Errorf("%q has no \"=\"", pair)
		}
		k, err := url.PathUnescape(strings.TrimSpace(k))
		if err != nil {
			return nil, fmt.Errorf("decode the key of %q: %w", pair, err)
		}
		if k == "" {
			return nil, fmt.Errorf("%q has no key", pair)
		}
		if v, err = url.PathUnescape(strings.TrimSpace(v)); err != nil {
			return nil, fmt.Errorf("decode the value of %q: %w", pair, err)
		}
		if attributes = replace(attributes, l7.Attribute{Key: k, Str: v}); len(attributes) > maxAttributes {
			break
		}
	}
	return attributes, nil
}

func replace(attributes []l7.Attribute, a l7.Attribute) []l7.Attribute {
	for i := range attributes {
		if attributes[i].Key == a.Key {
			attributes[i] = a
			return attributes
		}
	}
	return append(attributes, a)
}

// environ reads the environment of the process whose directory is open as dir. It streams through the
// reader's buffer and keeps nothing but the two variables.
func (r *reader) environ(dir int) (environment, error) {
	var env environment
	fd, err := openAt(dir, "environ")
	if err != nil {
		return env, err
	}
	defer closeFD(fd)
	var (
		named, listed bool // as getenv does, the first of two counts
		have, total   int
		skipping      bool // in a variable that does not fit in the buffer
	)
	variable := func(v []byte) {
		switch {
		case !named && bytes.HasPrefix(v, nameVariable):
			named = true
			env.serviceName = r.count.clean(string(bytes.TrimSpace(v[len(nameVariable):])), maxValue)
		case !listed && bytes.HasPrefix(v, attributesVariable):
			listed = true
			list, err := parseAttributes(string(v[len(attributesVariable):]))
			if err != nil {
				r.count.malformed.Add(1)
			}
			env.attributes = r.count.bound(list)
		}
	}
	for total < maxEnviron && !(named && listed) {
		n, err := readFD(fd, r.buffer[have:])
		if err != nil {
			return env, err
		}
		if n == 0 {
			// The last variable ends with the file; the kernel always ends it with a zero as well.
			if !skipping {
				variable(r.buffer[:have])
			}
			return env, nil
		}
		total += n
		have += n
		rest := r.buffer[:have]
		for {
			end := bytes.IndexByte(rest, 0)
			if end < 0 {
				break
			}
			if !skipping {
				variable(rest[:end])
			}
			skipping = false
			rest = rest[end+1:]
		}
		if len(rest) == len(r.buffer) {
			if bytes.HasPrefix(rest, nameVariable) || bytes.HasPrefix(rest, attributesVariable) {
				r.count.malformed.Add(1)
			}
			skipping = true
		}
		if skipping {
			rest = rest[:0]
		}
		have = copy(r.buffer, rest)
	}
	if !(named && listed) {
		r.count.cut.Add(1)
	}
	return env, nil
}

// bound makes attributes of a stranger fit to be kept: clean, and within the bounds.
func (c *counters) bound(list []l7.Attribute) []l7.Attribute {
	var (
		bounded []l7.Attribute
		size    int
	)
	for _, a := range list {
		k, v := c.clean(a.Key, maxKey), c.clean(a.Str, maxValue)
		if len(bounded) == maxAttributes || size+len(k)+len(v) > maxAttributeBytes {
			c.cut.Add(1)
			return bounded
		}
		size += len(k) + len(v)
		bounded = replace(bounded, l7.Attribute{Key: k, Str: v})
	}
	return bounded
}

// find returns the value of a key, "" if it is not there.
func find(attributes []l7.Attribute, key string) string {
	for i := range attributes {
		if attributes[i].Key == key {
			return attributes[i].Str
		}
	}
	return ""
}
