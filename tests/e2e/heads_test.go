package e2e

import (
	"fmt"
	"strings"
	"testing"
)

const (
	userAgent = "curl/8.5.0 (x86_64) ünïcode"
	everyMark = "!#$%&'*+-.^_`|~09azAZ"
)

// sized is a request line of so many bytes with the version.
func sized(n int) (line, target string) {
	target = "/" + strings.Repeat("t", n-len("GET / HTTP/1.1"))
	return "GET " + target + " HTTP/1.1", target
}

// sizedExchange is what is kept of it: 640 bytes of the line.
func sizedExchange(n int) exchange {
	line, target := sized(n)
	x := plainly
	x.target = target
	if n > 640 {
		x.target, x.version, x.cut = line[len("GET "):640], "-", []string{"request_line"}
	}
	return x
}

func TestHeads(t *testing.T) {
	var methods script
	var methodsWant []exchange
	for _, m := range []string{"PUT", "DELETE", "PATCH", "TRACE", "QUERY", "OPTIONS", "get", "M-SEARCH", "X", everyMark, strings.Repeat("LONG", 10)} {
		methods = append(methods, ask(1, m+" /m HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, okay))
		methodsWant = append(methodsWant, exchange{method: m, target: "/m", host: "shop", status: 200, response: 2})
	}
	var lengths script
	var lengthsWant []exchange
	for _, n := range []int{600, 639, 640, 641, 700, 767, 768, 769, 770, 896, 1024, 4096, 8000} {
		line, _ := sized(n)
		lengths = append(lengths, ask(1, line+"\r\nHost: shop\r\n\r\n"), tell(1, okay))
		lengthsWant = append(lengthsWant, sizedExchange(n))
	}
	full := lines("GET /all?a=1&b HTTP/1.1", "Accept: */*", "Host: shop:8080", "User-Agent: "+userAgent, "X-Request-ID: r-1")
	fullWant := exchange{
		target: "/all?a=1&b", host: "shop", port: 8080, userAgent: userAgent, requestID: "r-1", status: 200, response: 2,
	}
	var cuts script
	for i := 1; i < len(full); i++ {
		cuts = append(cuts, ask(1, full[:i]), send(full[i:]), head(okay[:i%(len(okay)-1)+1]), tail(okay[i%(len(okay)-1)+1:]))
	}
	cookie := "Cookie: " + strings.Repeat("c", 8<<10)
	crowd := make([]string, 200)
	for i := range crowd {
		crowd[i] = fmt.Sprintf("X-Header-%d: %s", i, strings.Repeat("v", 50))
	}
	fill := func(n int) string { // a head of n bytes
		start := "GET /fill HTTP/1.1\r\nX: "
		return start + strings.Repeat("f", n-len(start)-len("\r\nHost: shop\r\n\r\n")) + "\r\nHost: shop\r\n\r\n"
	}
	filled := plainly
	filled.target = "/fill"

	everywhere(t, []scene{
		{name: "any token is a method", say: methods, want: methodsWant},
		{
			name: "targets of every length are kept up to their bound, and the cut is marked",
			say:  lengths, want: lengthsWant, events: map[string]int{"values_cut": 10},
		},
		{name: "heads cut in two at every byte", say: cuts, want: several(len(full)-1, fullWant)},
		{
			name: "heads of one byte per segment",
			say:  script{ask(1, full).in(1), head(okay).in(1).finishes(1), ask(1, full).in(1), tell(1, okay)},
			want: []exchange{fullWant, fullWant},
		},
		{
			name: "the four forms of a target",
			say: script{
				ask(1, "GET /o?x HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, okay),
				ask(1, "GET http://user:secret@Other.example:81/a?b=c HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, okay),
				ask(1, "GET https://other.example?b=c HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, okay),
				ask(1, "GET HTTP://[fd00::1] HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, okay),
				ask(1, "OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, okay),
				ask(1, "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n"), tell(1, response(403, "no")),
			},
			want: []exchange{
				{target: "/o?x", host: "shop", status: 200, response: 2},
				{path: "/a", query: "b=c", host: "Other.example", port: 81, status: 200, response: 2},
				{path: "/", query: "b=c", scheme: "https", host: "other.example", port: 443, status: 200, response: 2},
				{path: "/", host: "fd00::1", status: 200, response: 2},
				{method: "OPTIONS", target: "*", host: "shop", status: 200, response: 2},
				{method: "CONNECT", target: "db.example:5432", host: "db.example", port: 5432, status: 403, response: 2},
			},
		},
		{
			name: "every form of Host",
			say: script{
				ask(1, "GET / HTTP/1.1\r\nHost: [fd77::2]:8080\r\n\r\n"), tell(1, okay),
				ask(1, "GET / HTTP/1.1\r\nhOST:shop \t\r\n\r\n"), tell(1, okay),
				ask(1, "GET / HTTP/1.1\r\nHost:\r\n\r\n"), tell(1, okay),
				ask(1, "GET / HTTP/1.1\r\nHostess: no\r\nX-Host: no\r\n\r\n"), tell(1, okay),
				ask(1, "GET / HTTP/1.1\r\nHost: "+strings.Repeat("h", 300)+"\r\n\r\n"), tell(1, okay),
			},
			want: []exchange{
				{host: "fd77::2", port: 8080, status: 200, response: 2},
				plainly,
				{status: 200, response: 2},
				{status: 200, response: 2},
				{host: strings.Repeat("h", 256), cut: []string{"host"}, status: 200, response: 2},
			},
			events: map[string]int{"values_cut": 1},
		},
		{
			name: "names of headers in any case, values with blanks around, look-alikes beside",
			say: script{
				ask(1, lines("GET / HTTP/1.1", "host:  shop", "USER-AGENT:\t me \t", "x-REQUEST-id:id 7", "User-Agent-X: no", "X-Request-Idx: no")),
				tell(1, okay),
			},
			want: []exchange{{host: "shop", userAgent: "me", requestID: "id 7", status: 200, response: 2}},
		},
		{
			name: "values longer than what is kept, cut and marked",
			say: script{
				ask(1, lines("GET / HTTP/1.1", "Host: shop", "User-Agent: "+strings.Repeat("u", 500), "X-Request-Id: "+strings.Repeat("i", 129))),
				tell(1, okay),
			},
			want: []exchange{{
				host: "shop", userAgent: strings.Repeat("u", 192), requestID: strings.Repeat("i", 128), status: 200, response: 2,
				cut: []string{"user_agent", "x-request-id"},
			}},
			events: map[string]int{"values_cut": 2},
		},
		{
			name: "a value cut within a character of several bytes",
			say: script{
				ask(1, lines("GET / HTTP/1.1", "Host: shop", "User-Agent: "+strings.Repeat("u", 191)+"üü")), tell(1, okay),
			},
			want: []exchange{{
				host: "shop", userAgent: strings.Repeat("u", 191) + "\uFFFD", status: 200, response: 2, cut: []string{"user_agent"},
			}},
			events: map[string]int{"values_cut": 1},
		},
		{
			name: "8 KiB of cookies before the other headers, in segments of any size",
			say: script{
				ask(1, lines("GET /c HTTP/1.1", cookie, "Host: shop", "X-Request-Id: r")), tell(1, okay),
				ask(1, lines("GET /c HTTP/1.1", cookie, "Host: shop", "X-Request-Id: r")).in(1448), tell(1, okay),
				ask(1, lines("GET /c HTTP/1.1", cookie, "Host: shop", "X-Request-Id: r")).in(97), tell(1, okay),
			},
			want: several(3, exchange{target: "/c", host: "shop", requestID: "r", status: 200, response: 2}),
		},
		{
			name: "two hundred headers before the ones that matter, in both directions",
			say: script{
				ask(1, lines(append(append([]string{"GET /h HTTP/1.1"}, crowd...), "Host: shop", "X-Request-Id: r")...)),
				tell(1, lines(append(append([]string{"HTTP/1.1 200 OK"}, crowd...), "Content-Length: 2")...)+"ok"),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{{target: "/h", host: "shop", requestID: "r", status: 200, response: 2}, plainly},
		},
		{
			name: "a head of 16 KiB is read",
			say:  script{ask(1, fill(16<<10)), tell(1, okay), ask(1, plain), tell(1, okay)},
			want: []exchange{filled, plainly},
		},
		{
			name:    "a head of more loses its exchange, counted, and the next is right",
			say:     script{ask(1, fill(17<<10)), tell(1, okay), ask(1, plain), tell(1, okay), ask(1, fill(60_000)), tell(1, okay), ask(1, plain), tell(1, okay)},
			want:    []exchange{at(1, plainly), at(3, plainly)},
			dropped: map[string]int{"head_too_long": 2},
			events:  map[string]int{"desynchronised": 2, "resynchronised": 4, "responses_without_request": 2},
		},
		{
			name: "so does a response's",
			say: script{
				ask(1, plain), tell(1, lines("HTTP/1.1 200 OK", "X: "+strings.Repeat("x", 17<<10), "Content-Length: 2")+"ok"),
				ask(1, plain), tell(1, okay),
			},
			want:    []exchange{at(1, plainly)},
			dropped: map[string]int{"head_too_long": 1},
			events:  map[string]int{"desynchronised": 1, "resynchronised": 1},
		},
		{
			name: "responses with any reason, without one, and of HTTP/1.0",
			say: script{
				ask(1, plain), tell(1, "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
				ask(1, plain), tell(1, "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"),
				ask(1, plain), tell(1, "HTTP/1.0 200 very 404 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
				ask(1, plain), tell(1, "HTTP/1.1 599 Strange\r\nContent-Length: 2\r\n\r\nok"),
				ask(1, plain), tell(1, "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 2\r\n\r\nok"),
			},
			want: []exchange{
				plainly, plainly, plainly, {host: "shop", status: 599, response: 2}, {host: "shop", status: 418, response: 2},
			},
		},
	})
}
