package exporter

import (
	"ambit/l7"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

var (
	keyRoute        = newWireKey(semconv.HTTPRouteKey, tagAnyString)
	keyTemplate     = newWireKey(semconv.URLTemplateKey, tagAnyString)
	keyGuessedRoute = newWireKey(attributeRoute, tagAnyString)
)

// requestMemo is memo for the name and method of a request.
type requestMemo struct {
	method, route string // route as it is in the name, "" where it is not
	wire          []byte // nil: no value yet
}

// appendMethod appends the method and the name that it makes, with the route where that is no guess.
func (e *encoder) appendMethod(b []byte, s *l7.Span) []byte {
	route := ""
	if s.RouteFromRule || e.capture.GuessedRoute {
		route = s.Route
	}
	if m := &e.name; m.wire == nil || m.method != s.Method || m.route != route {
		method := e.valid(s.Method)
		e.text = appendName(e.text[:0], method, e.valid(route))
		wire := appendBytes(m.wire[:0], tagSpanName, e.text)
		if method != "" {
			wire = appendStringAttribute(wire, keyMethod, method)
		}
		*m = requestMemo{method, route, wire}
	}
	b = append(b, e.name.wire...)
	if s.MethodOriginal != "" {
		b = appendStringAttribute(b, keyMethodOriginal, e.valid(s.MethodOriginal))
	}
	return b
}

// appendName appends the method and the route. Without a route the method stands alone: a path would make a name per
// request, and so would what is guessed of it where the guess is wrong.
func appendName(b []byte, method, route string) []byte {
	if method == "" || method == "_OTHER" {
		method = "HTTP"
	}
	b = append(b, method...)
	if route != "" {
		b = append(append(b, ' '), route...)
	}
	return b
}

// appendRoute appends the template of the path. That http.route may be no guess is the conventions' word.
func (e *encoder) appendRoute(b []byte, s *l7.Span) []byte {
	if s.Route == "" {
		return b
	}
	key := keyGuessedRoute
	switch {
	case s.Kind == l7.Client:
		key = keyTemplate
	case s.RouteFromRule || e.capture.GuessedRoute:
		key = keyRoute
	}
	return appendStringAttribute(b, key, e.valid(s.Route))
}
