package e2e

import (
	"fmt"
	"net/netip"
	"slices"
)

// A plan is what a client program does: requests over connections, in order.
type connection struct {
	Address  netip.Addr `json:"address"`
	Port     uint16     `json:"port"`
	Host     string     `json:"host"`
	Requests []asked    `json:"requests"`
	Urllib   bool       `json:"urllib,omitempty"`
}

// asked is one request. Headers beside Host and User-Agent, which is the request's ID, are in canonical form.
type asked struct {
	ID      string            `json:"id"`
	Method  string            `json:"method"`
	Target  string            `json:"target"`
	Headers map[string]string `json:"headers"`
	Body    int               `json:"body,omitempty"`
	Chunked bool              `json:"chunked,omitempty"`
	Expect  bool              `json:"expect,omitempty"`
	old     bool              // HTTP/1.0
}

// status is what the server shall answer.
func (a asked) status() (n int) {
	_, _ = fmt.Sscan(a.Headers["X-Want"], &n) // want wrote it
	return n
}

// want makes a GET that asks a server for an answer.
func want(target string, status, size int, framing string) asked {
	return asked{Method: "GET", Target: target, Headers: map[string]string{"X-Want": fmt.Sprintf("%d %d %s", status, size, framing)}}
}

func (a asked) by(method string) asked {
	a.Method = method
	return a
}

func (a asked) with(key, value string) asked {
	headers := map[string]string{key: value}
	for k, v := range a.Headers {
		headers[k] = v
	}
	a.Headers = headers
	return a
}

func (a asked) sending(n int) asked {
	a.Body = n
	return a
}

func (a asked) inChunks() asked {
	a.Chunked = true
	return a
}

func (a asked) expecting() asked {
	a.Expect = true
	return a
}

const (
	oddPath  = "/a//b/./../c/%2e%2E/;v=1,2/@:!$&'()*+,=~/%C3%BC"
	oddQuery = "?&a=b&&c&=d&e==f?g/h&%20=%26&i[]=j"
	parent1  = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)

// keptAlive are requests that every client can send and every server that runs a program answers as it is asked.
var keptAlive = []asked{
	want("/", 200, 5, "length"),
	want(oddPath+oddQuery, 200, 2, "length"),
	want("/head?x=1", 200, 1000, "length").by("HEAD"),
	want("/form", 201, 10, "length").by("POST").sending(1000),
	want("/upload", 200, 3000, "chunked").by("POST").sending(5000).inChunks(),
	want("/expect", 200, 1, "length").by("PUT").sending(300).expecting(),
	want("/expect", 413, 0, "length").by("POST").sending(3000).inChunks().expecting(),
	want("/missing", 404, 9, "length"),
	want("/broken", 503, 0, "length"),
	want("/nothing", 204, 0, "length").by("DELETE"),
	want("/strange", 207, 20, "length").by("PROPFIND"),
	want("/patch", 200, 20, "chunked").by("PATCH").sending(1),
	want("/traced", 200, 3, "length").with("Traceparent", parent1),
	want("/named", 200, 3, "length").with("X-Request-Id", "8f4c-named"),
	want("/large", 200, 300_000, "length"),
	want("/large", 200, 300_000, "chunked"),
	want("/large", 200, 0, "length").by("POST").sending(300_000),
	want("/options", 200, 0, "length").by("OPTIONS"),
}

// simple are requests for the other address family, or for a client that makes a connection for each.
var simple = []asked{
	want("/six", 200, 66, "length"),
	want("/six?a=b", 500, 6, "length"),
	want("/six", 200, 600, "chunked"),
	want("/six", 200, 6, "length").by("POST").sending(60),
}

// files are requests of nginx's files, which answer the statuses that are wanted by themselves.
var files = []asked{
	want("/file.txt", 200, 0, ""),
	want("/file.txt?a=b", 200, 0, "").by("HEAD"),
	want("/missing.txt", 404, 0, ""),
	want("/large.bin", 200, 0, ""),
	want("/large.bin", 206, 0, "").with("Range", "bytes=100-299"),
	want("/file.txt", 304, 0, "").with("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"),
	want("/dir", 301, 0, ""),
	want("/dir/../file.txt", 200, 0, "").with("Traceparent", parent1),
}

// numbered are requests with an ID of their own each.
func numbered(name string, requests []asked) []asked {
	all := slices.Clone(requests)
	for i := range all {
		all[i].ID = fmt.Sprintf("%s %d", name, i)
	}
	return all
}
