package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"ambit/admin"
)

// exchange is a request and its response, as those know them who sent them. No two have the same path.
type exchange struct {
	version   string // of HTTP
	method    string
	path      string
	query     string // as ambit shows it
	authority string
	agent     string
	requestID string
	status    int
	sent      int    // bytes of the request's body
	received  int    // bytes of the response's
	stream    int    // 0: that of HTTP/1, or any
	code      string // of a call's status; empty: no call
}

// anything is the value of an attribute that has to be there and that nobody here knows.
const anything = "anything"

// serverFailures are the codes of gRPC that are the server's own fault.
var serverFailures = []string{"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

func (e *exchange) isCall() bool { return e.code != "" }

// pathOf is what the request of a span asked for.
func pathOf(span admin.Span) string {
	if method, ok := span.Attributes["rpc.method"].(string); ok {
		return "/" + method
	}
	path, _ := span.Attributes["url.path"].(string)
	return path
}

// attributes are those that the span of one side has, and no others.
func (e *exchange) attributes(p pair, port int, client bool) map[string]any {
	host, hostPort, err := net.SplitHostPort(e.authority)
	if err != nil {
		host, hostPort = e.authority, "80"
	}
	want := map[string]any{
		"server.address": host, "server.port": hostPort, "user_agent.original": e.agent,
		"network.protocol.name": "http", "network.protocol.version": e.version, "network.transport": "tcp", "network.type": "ipv4",
		"ambit.sampling.reason": "head", "ambit.sampling.rule": "default", "ambit.sampling.class": "normal",
		"ambit.sampling.threshold": "0", "ambit.sampling.generation": anything, "ambit.time_to_first_byte": anything,
	}
	if client {
		want["network.local.address"], want["network.local.port"] = p[0].address, anything
		want["network.peer.address"], want["network.peer.port"] = p[1].address, port
	} else {
		want["network.local.address"], want["network.local.port"] = p[1].address, port
		want["network.peer.address"], want["network.peer.port"] = p[0].address, anything
		want["client.address"], want["client.port"] = p[0].address, anything
	}
	if e.version == "2" {
		want["ambit.http2.stream"] = anything
	}
	if e.stream != 0 {
		want["ambit.http2.stream"] = e.stream
	}
	if e.sent > 0 {
		want["http.request.body.size"] = e.sent
	}
	if e.received > 0 {
		want["http.response.body.size"] = e.received
	}
	failure := ""
	if e.isCall() {
		want["rpc.system.name"], want["rpc.method"], want["rpc.response.status_code"] = "grpc", strings.TrimPrefix(e.path, "/"), e.code
		if e.requestID != "" {
			want["rpc.request.metadata.x-request-id"] = []string{e.requestID}
		}
		if client && e.code != "OK" || slices.Contains(serverFailures, e.code) {
			failure = e.code
		}
	} else {
		e.request(want, client)
		if e.status >= 500 || client && e.status >= 400 {
			failure = fmt.Sprint(e.status)
		}
	}
	if failure != "" {
		want["error.type"] = failure
	}
	return want
}

// numbers are the segments of paths here that are guessed to be placeholders.
var numbers = regexp.MustCompile(`/[0-9]+(/|$)`)

func routeKey(client bool) string {
	if client {
		return "url.template"
	}
	return "ambit.route"
}

// request adds what calls do not have.
func (e *exchange) request(want map[string]any, client bool) {
	want["http.request.method"], want["http.response.status_code"] = e.method, e.status
	want["url.scheme"], want["url.path"] = "http", e.path
	target := e.path
	if e.query != "" {
		want["url.query"] = e.query
		target += "?" + e.query
	}
	// What is not found has no route of its own, but may be on one that was found before.
	if e.status != http.StatusNotFound {
		want[routeKey(client)] = numbers.ReplaceAllString(strings.TrimSuffix(e.path, "/"), "/{number}$1")
	}
	if client {
		want["url.full"] = "http://" + e.authority + target
	}
	if e.requestID != "" {
		want["http.request.header.x-request-id"] = []string{e.requestID}
	}
}

// compare holds the spans of both sides against what was sent.
func (e *exchange) compare(p pair, port int, spans []admin.Span) error {
	client, server := spans[0], spans[1]
	if client.Kind != "CLIENT" {
		client, server = server, client
	}
	if client.Kind != "CLIENT" || server.Kind != "SERVER" {
		return fmt.Errorf("the spans of %s are %s and %s", e.path, client.Kind, server.Kind)
	}
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", e.path, fmt.Sprintf(format, args...)))
	}
	if client.ParentID != "" || server.ParentID != client.SpanID {
		wrong("span %s of the client has parent %q, the server's has %q", client.SpanID, client.ParentID, server.ParentID)
	}
	name := e.method
	if e.isCall() {
		name = strings.TrimPrefix(e.path, "/")
	}
	for _, span := range []admin.Span{client, server} {
		want := e.attributes(p, port, span.Kind == "CLIENT")
		failure, _ := want["error.type"].(string)
		if span.Name != name || span.Error != failure {
			wrong("the %s span is %q, error %q; want %q, %q", span.Kind, span.Name, span.Error, name, failure)
		}
		if e.status == http.StatusNotFound {
			delete(span.Attributes, routeKey(span.Kind == "CLIENT"))
		}
		for _, difference := range differences(span.Attributes, want) {
			wrong("of the %s span %s", span.Kind, difference)
		}
		// Times are the wall clock's.
		if age := time.Since(span.Start); age < 0 || age > checkLimit || span.DurationNS <= 0 {
			wrong("the %s span began at %v and took %d ns", span.Kind, span.Start, span.DurationNS)
		}
	}
	if server.Start.Before(client.Start) {
		wrong("the server began at %v, before the client at %v", server.Start, client.Start)
	}
	return errors.Join(errs...)
}

// differences lists what two sets of attributes differ in. Values are the same if they look so: in JSON all numbers
// are of one kind.
func differences(got, want map[string]any) []string {
	keys := map[string]bool{}
	for _, attributes := range []map[string]any{got, want} {
		for key := range attributes {
			keys[key] = true
		}
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if got[key] != nil && want[key] == anything || fmt.Sprint(got[key]) == fmt.Sprint(want[key]) {
			continue
		}
		out = append(out, fmt.Sprintf("%s is %v, want %v", key, got[key], want[key]))
	}
	return out
}
