package parser

import (
	"fmt"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// pick chooses one of few values, so that encoders find them in their tables, or makes one that was never there.
func (t *h2Talk) pick(plan h2Plan, max int, few ...string) string {
	if t.rng.IntN(4) > 0 {
		return few[t.rng.IntN(len(few))]
	}
	n := t.rng.IntN(1 + max)
	if plan.long && t.rng.IntN(3) == 0 {
		n = t.rng.IntN(3 * max)
	}
	var b strings.Builder
	b.WriteString(few[0])
	for b.Len() < n {
		fmt.Fprintf(&b, "%x", t.rng.Uint64())
	}
	return b.String()
}

// others are headers that nobody asks for, some of them long, or with names that begin like others.
func (t *h2Talk) others(plan h2Plan, fields []hpack.HeaderField) []hpack.HeaderField {
	for range t.rng.IntN(6) {
		f := hpack.HeaderField{Name: []string{
			"accept", "cookie", "x-request-idx", "x-request-i", "user-agen", "traceparents", "tracestat", "content-typo", "content-length",
			"grpc-statu", "grpc-messages", "date", "set-cookie", "b", "b4", "x-b3-", "x", "authorization", "te", "accept-encoding",
		}[t.rng.IntN(20)], Value: t.pick(plan, 400, "", "0", "gzip, deflate", "trailers")}
		f.Sensitive = t.rng.IntN(8) == 0
		if t.rng.IntN(8) == 0 {
			f.Name = fmt.Sprintf("x-%x", t.rng.Uint64()) + strings.Repeat("-long", t.rng.IntN(1+t.rng.IntN(60)))
		}
		fields = append(fields, f)
	}
	return fields
}

func (t *h2Talk) once(fields []hpack.HeaderField, in int, name string, value string) []hpack.HeaderField {
	if t.rng.IntN(in) > 0 {
		return fields
	}
	return append(fields, hpack.HeaderField{Name: name, Value: value, Sensitive: t.rng.IntN(8) == 0})
}

// request is a head that is right by RFC 9113.
func (t *h2Talk) request(plan h2Plan) []hpack.HeaderField {
	fields := []hpack.HeaderField{
		{Name: ":method", Value: t.pick(plan, 20, "GET", "POST", "PUT", "OPTIONS")},
		{Name: ":scheme", Value: t.pick(plan, 12, "http", "https")},
		{Name: ":path", Value: t.pick(plan, 500, "/", "/index.html", "/package.Service/Method", "/v1/items?id=7&of=9")},
	}
	fields = t.once(fields, 2, ":authority", t.pick(plan, 200, "example.com", "10.0.0.1:8080", "a.b.svc.cluster.local"))
	t.rng.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	fields = t.others(plan, fields)
	fields = t.once(fields, 2, "user-agent", t.pick(plan, 150, "grpc-go/1.84.0", "curl/8.5.0", "Mozilla/5.0 (X11; Linux x86_64)"))
	fields = t.once(fields, 3, "x-request-id", t.pick(plan, 100, "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", "1"))
	fields = t.once(fields, 3, "tracestate", t.pick(plan, 400, "m=1", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"))
	fields = t.once(fields, 2, "content-type", t.pick(plan, 60, "application/grpc", "application/grpc+proto", "application/json",
		"application/grpc-web", "application/grpc-web+proto", "application/grpc;x=y", "text/html; charset=utf-8"))
	sampled := t.rng.IntN(8) > 0
	digit := map[bool]string{true: "1", false: "0"}[sampled]
	trace, span := fmt.Sprintf("%016x%016x", t.rng.Uint64(), t.rng.Uint64()|1), fmt.Sprintf("%016x", t.rng.Uint64()|1)
	switch t.rng.IntN(8) {
	case 0, 1, 2:
		fields = append(fields, hpack.HeaderField{Name: "traceparent", Value: "00-" + trace + "-" + span + "-0" + digit})
	case 3:
		fields = append(fields, hpack.HeaderField{Name: "b3", Value: trace + "-" + span + "-" + digit})
	case 4:
		fields = append(fields, hpack.HeaderField{Name: "x-b3-traceid", Value: trace}, hpack.HeaderField{Name: "x-b3-spanid", Value: span},
			hpack.HeaderField{Name: "x-b3-sampled", Value: digit})
	}
	return t.others(plan, fields)
}

func (t *h2Talk) interim(plan h2Plan) []hpack.HeaderField {
	status := []string{"100", "102", "103"}[t.rng.IntN(3)]
	return t.others(plan, []hpack.HeaderField{{Name: ":status", Value: status}})
}

func (t *h2Talk) response(plan h2Plan, status string) []hpack.HeaderField {
	fields := t.others(plan, []hpack.HeaderField{{Name: ":status", Value: status}})
	fields = t.once(fields, 2, "content-type", t.pick(plan, 60, "application/grpc", "text/html", "application/json"))
	return t.others(plan, fields)
}

func (t *h2Talk) trailers(plan h2Plan) []hpack.HeaderField {
	fields := t.others(plan, []hpack.HeaderField{})
	fields = t.once(fields, 2, "grpc-status", fmt.Sprint(t.rng.IntN(17)))
	fields = t.once(fields, 2, "grpc-message", t.pick(plan, 120, "not%20found", "deadline exceeded"))
	return t.others(plan, fields)
}
