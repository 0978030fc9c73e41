package http2

import (
	"fmt"
	"slices"
	"strings"
)

// connection is what a client program does over one connection: requests, so many of them at once.
type connection struct {
	Address   string  `json:"address"` // and port
	Authority string  `json:"authority"`
	Streams   int     `json:"streams"`
	Requests  []asked `json:"requests"`
	alone     bool    // each over a connection of its own
}

// asked is one request. Its target names it: each has another one.
type asked struct {
	Method  string            `json:"method"`
	Target  string            `json:"target"`
	Headers map[string]string `json:"headers"`
	Body    int               `json:"body,omitempty"`
	status  int
	size    int64 // of the answer, where a log may not tell
}

// want makes a GET that asks a server for an answer.
func want(target string, status, size int, how ...string) asked {
	how = append([]string{fmt.Sprint(status), fmt.Sprint(size)}, how...)
	return asked{Method: "GET", Target: target, status: status}.with("x-want", strings.Join(how, " "))
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

const (
	oddPath  = "/a//b/c/%2e%2E/;v=1,2/@:!$&'()*+,=~/%C3%BC"
	oddQuery = "?&a=b&&c&=d&e==f?g/h&%20=%26&i[]=j&"
	parent   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)

// large is several frames, and most often one packet: two processors may swap the packets of a veth, and then a direction is
// lost, as it has to be. Calls of gRPC and h2load have longer ones.
const large = 50_000

// mixed are requests that every client can send and every server that runs a program answers as it is asked.
var mixed = []asked{
	want("/?", 200, 5),
	want(oddPath+oddQuery, 200, 2),
	want("/head?x=1&", 200, 1000).by("HEAD"),
	want("/form?", 201, 10).by("POST").sending(1000),
	want("/upload?", 200, 3000).by("PUT").sending(large),
	want("/missing?", 404, 9),
	want("/broken?", 503, 0),
	want("/nothing?", 204, 0).by("DELETE"),
	want("/strange?", 207, 20).by("PROPFIND"),
	want("/traced?", 200, 3).with("traceparent", parent),
	want("/named?", 200, 3).with("x-request-id", "8f4c-named"),
	want("/large?", 200, large),
	want("/trailers?", 200, 700, "trailers"),
	want("/options?", 200, 0).by("OPTIONS"),
	want("/cookie?", 200, 1).with("cookie", "session="+strings.Repeat("abcdefgh", 100)),
	want("/"+strings.Repeat("long/", 80)+"?", 200, 1),
	want("/huffman?", 200, 1).with("x-binary", strings.Repeat("<>{}|^`\\", 40)),
}

// byCurl are those that curl makes: it goes when it has the whole body, and may not wait for trailers.
var byCurl = slices.DeleteFunc(slices.Clone(mixed), func(r asked) bool { return strings.HasSuffix(r.Headers["x-want"], "trailers") })

// evicting are requests whose headers leave little of a table of 4 KiB from one request to the next.
var evicting = func() (all []asked) {
	for i := range 40 {
		all = append(all, want("/evict?", 200, 1).with("x-one", fmt.Sprintf("%d %s", i, strings.Repeat("v", 40*(i%30)))).
			with("x-two", fmt.Sprintf("%s %d", strings.Repeat("w", 11*(i%70)), i/3)))
	}
	return all
}()

// plain are requests without headers; a server takes the status that it shall answer from the path.
var plain = []asked{
	{Target: "/told/200/a?", status: 200},
	{Target: "/told/404/missing?a=b&", status: 404},
	{Target: "/told/503/" + strings.Repeat("broken/", 70) + "?", status: 503},
	{Target: "/told/301?", status: 301},
	{Target: oddPath + oddQuery, status: 200},
}

// files are requests of a server of files, which answers the statuses that are wanted by itself.
var files = []asked{
	{Target: "/file.txt?", status: 200},
	{Target: "/file.txt?a=b&", Method: "HEAD", status: 200},
	{Target: "/missing.txt?", status: 404},
	{Target: "/large.bin?", status: 200, size: large},
	{Target: "/file.txt?x&", status: 200, Headers: map[string]string{"traceparent": parent}},
	{Target: "/file.txt?y&", status: 200, Headers: map[string]string{"x-request-id": "8f4c-named"}},
	{Target: "/" + strings.Repeat("long/", 80) + "?", status: 404},
}

// numbered gives each request a target of its own.
func numbered(requests []asked, times int) []asked {
	var all []asked
	for range times {
		for _, r := range requests {
			r.Target += fmt.Sprintf("n=%d", len(all))
			if r.Method == "" {
				r.Method = "GET"
			}
			all = append(all, r)
		}
	}
	return all
}
