package e2e

import (
	"fmt"
	"strings"
	"testing"
)

const (
	plain = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n"
	okay  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	empty = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
)

var plainly = exchange{host: "shop", status: 200, response: 2}

// request and response build messages with a body.
func request(method, target string, body string, headers ...string) string {
	return lines(append([]string{method + " " + target + " HTTP/1.1", "Host: shop", fmt.Sprintf("Content-Length: %d", len(body))}, headers...)...) + body
}

func response(status int, body string, headers ...string) string {
	return lines(append([]string{fmt.Sprintf("HTTP/1.1 %d Whatever", status), fmt.Sprintf("Content-Length: %d", len(body))}, headers...)...) + body
}

func chunked(start string, extra ...string) string {
	return lines(append([]string{start, "Host: shop", "Transfer-Encoding: chunked"}, extra...)...)
}

const (
	chunks     = "4\r\nWiki\r\n6;name=value\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\n" // 24 bytes
	trailers   = "4\r\nWiki\r\n000\r\nExpires: never\r\nGET: / HTTP/1.1\r\n\r\n"               // 4 bytes
	imitation  = "GET /evil HTTP/1.1\r\nHost: evil\r\ntraceparent: 00-11111111111111111111111111111111-1111111111111111-01\r\n\r\n"
	imitationR = "HTTP/1.1 500 Evil\r\nContent-Length: 5\r\n\r\n"
)

func post(target string, n int64, status int, back int64) exchange {
	return exchange{method: "POST", target: target, host: "shop", request: n, status: status, response: back}
}

// repeat plays a script n times over.
func repeat(n int, s script) script {
	var all script
	for range n {
		all = append(all, s...)
	}
	return all
}

func several(n int, x ...exchange) []exchange {
	var all []exchange
	for range n {
		all = append(all, x...)
	}
	return all
}

func TestFraming(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 16<<10) // 256 KiB
	everywhere(t, []scene{
		{
			name: "a request and its response, one segment each",
			say:  script{ask(1, plain), tell(1, okay)},
			want: []exchange{plainly},
		},
		{
			name: "keep-alive carries exchange after exchange",
			say:  repeat(5, script{ask(1, plain), tell(1, okay)}),
			want: several(5, plainly),
		},
		{
			name: "HTTP/1.0 ends with the connection",
			say: script{
				ask(1, "GET /old HTTP/1.0\r\n\r\n"), head("HTTP/1.0 200 OK\r\n\r\nhello "), back("world"),
				closes(server).finishes(1),
			},
			want: []exchange{{target: "/old", version: "1.0", status: 200, response: 11}},
		},
		{
			name: "HTTP/1.0 with keep-alive and lengths",
			say: repeat(2, script{
				ask(1, "GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
				tell(1, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"),
			}),
			want: several(2, exchange{target: "/old", version: "1.0", status: 200, response: 3}),
		},
		{
			name: "HTTP/1.1 with a body that the connection's end ends, in many segments",
			say: script{
				ask(1, plain), head("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"), back(large).in(7000),
				closes(server).finishes(1),
			},
			want: []exchange{{host: "shop", status: 200, response: 256 << 10}},
		},
		{
			name: "lengths in both directions, bodies in segments of their own",
			say: script{
				ask(1, lines("POST /p HTTP/1.1", "Host: shop", "Content-Length: 10")), send("01234"), send("56789"),
				head("HTTP/1.1 201 Created\r\nContent-Length: 6\r\n\r\n"), back("abc"), tail("def"),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/p", 10, 201, 6), plainly},
		},
		{
			name: "large bodies in both directions, in writes that make GSO packets",
			say: script{
				ask(1, request("POST", "/big", large)), tell(1, response(200, large)),
				ask(1, request("POST", "/big", large)).in(100_000), tell(1, response(200, large)).in(65_000),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/big", 256<<10, 200, 256<<10), post("/big", 256<<10, 200, 256<<10), plainly},
		},
		{
			name: "chunks in both directions, with extensions and bytes that look like line ends",
			say: script{
				ask(1, chunked("POST /c HTTP/1.1")+chunks), tell(1, chunked("HTTP/1.1 200 OK")+chunks),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/c", 24, 200, 24), plainly},
		},
		{
			name: "chunks cut at every byte",
			say: script{
				ask(1, chunked("POST /c HTTP/1.1")+chunks).in(1), tell(1, chunked("HTTP/1.1 200 OK")+chunks).in(1),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/c", 24, 200, 24), plainly},
		},
		{
			name: "chunks with trailers, one of which looks like a request",
			say: script{
				ask(1, chunked("POST /c HTTP/1.1", "Trailer: Expires")+trailers), tell(1, chunked("HTTP/1.1 200 OK")+trailers).in(3),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/c", 4, 200, 4), plainly},
		},
		{
			name: "a chunk extension longer than any buffer",
			say: script{
				ask(1, chunked("POST /c HTTP/1.1")+"5;x="+strings.Repeat("y", 3000)+"\r\nhello\r\n0;"+strings.Repeat("z", 900)+"\r\n\r\n"),
				tell(1, chunked("HTTP/1.1 200 OK")+"5;x="+strings.Repeat("y", 3000)+"\r\nhello\r\n0\r\n\r\n").in(500),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/c", 5, 200, 5), plainly},
		},
		{
			name: "chunk sizes in capitals, with zeros before and blanks behind",
			say: script{
				ask(1, chunked("POST /c HTTP/1.1")+"0000A \r\n0123456789\r\n00\r\n\r\n"), tell(1, okay),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/c", 10, 200, 2), plainly},
		},
		{
			name: "chunked wins over a length, whatever comes first",
			say: script{
				ask(1, chunked("POST /c HTTP/1.1", "Content-Length: 3")+chunks),
				tell(1, lines("HTTP/1.1 200 OK", "Content-Length: 1000", "transfer-encoding: gzip, Chunked")+chunks),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/c", 24, 200, 24), plainly},
		},
		{
			name: "lengths with blanks around, and said twice",
			say: script{
				ask(1, lines("POST /p HTTP/1.1", "Host: shop", "content-length:             5 \t ")+"12345"), tell(1, okay),
				ask(1, lines("POST /p HTTP/1.1", "Host: shop", "CONTENT-LENGTH:5", "Content-Length: 5")+"12345"), tell(1, okay),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/p", 5, 200, 2), post("/p", 5, 200, 2), plainly},
		},
		{
			name: "lines that end in LF alone, and empty lines before a request",
			say: script{
				ask(1, "\r\n\r\nGET / HTTP/1.1\nHost: shop\n\n"), tell(1, "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
				ask(1, "\r\nGET / HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, okay),
			},
			want: []exchange{plainly, plainly},
		},
		{
			name: "a response to HEAD has no body, whatever it says",
			say: script{
				ask(1, "HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
				ask(1, "HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n"), tell(1, chunked("HTTP/1.1 200 OK")),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{
				{method: "HEAD", host: "shop", status: 200}, {method: "HEAD", host: "shop", status: 200}, plainly,
			},
		},
		{
			name: "204 and 304 have no body, whatever they say",
			say: script{
				ask(1, plain), tell(1, "HTTP/1.1 204 No Content\r\n\r\n"),
				ask(1, plain), tell(1, "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: x\r\n\r\n"),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{{host: "shop", status: 204}, {host: "shop", status: 304}, plainly},
		},
		{
			name: "100 Continue before the body, 103 before the final status",
			say: script{
				ask(1, lines("POST /p HTTP/1.1", "Host: shop", "Content-Length: 5", "Expect: 100-continue")),
				back("HTTP/1.1 100 Continue\r\n\r\n"), pause(slack * 4), send("12345"),
				back("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"), pause(slack * 4),
				tell(1, okay), ask(1, plain), tell(1, "HTTP/1.1 102 Processing\r\n\r\n"+okay),
			},
			want: []exchange{post("/p", 5, 200, 2), plainly},
		},
		{
			name: "a response before the request's body ended, and the next request",
			say: script{
				ask(1, lines("POST /p HTTP/1.1", "Host: shop", "Content-Length: 10")+"1234"),
				tell(1, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"), pause(slack * 4), send("567890"),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{{method: "POST", target: "/p", host: "shop", status: 413, request: 4, response: 2}, plainly},
		},
		{
			name: "bodies that look like messages, each at the beginning of a segment",
			say: script{
				ask(1, lines("POST /p HTTP/1.1", "Host: shop", fmt.Sprintf("Content-Length: %d", 3*len(imitation)))),
				send(imitation), send(imitation), send(imitation),
				head(lines("HTTP/1.1 200 OK", fmt.Sprintf("Content-Length: %d", 2*len(imitationR)))), back(imitationR), tail(imitationR),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/p", int64(3*len(imitation)), 200, int64(2*len(imitationR))), plainly},
		},
		{
			name: "a chunked body that looks like messages",
			say: script{
				ask(1, chunked("POST /p HTTP/1.1")), send(fmt.Sprintf("%x\r\n", len(imitation))), send(imitation), send("\r\n0\r\n\r\n"),
				head(chunked("HTTP/1.1 200 OK")), back(fmt.Sprintf("%X\r\n", len(imitationR))), back(imitationR), tail("\r\n0\r\n\r\n"),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{post("/p", int64(len(imitation)), 200, int64(len(imitationR))), plainly},
		},
		{
			name: "a length that is no number leaves the request's end open, and the next turn is right",
			say: script{
				ask(1, lines("POST /p HTTP/1.1", "Host: shop", "Content-Length: five")), tell(1, response(400, "no")),
				ask(1, plain), tell(1, okay),
			},
			want:   []exchange{{method: "POST", target: "/p", host: "shop", status: 400, response: 2}, plainly},
			events: map[string]int{"desynchronised": 1, "resynchronised": 1},
		},
	})
}
