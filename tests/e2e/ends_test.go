package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// unanswered is a request that got no response.
func unanswered(failure string) exchange { return exchange{host: "shop", failure: failure} }

func TestEnds(t *testing.T) {
	partly := exchange{host: "shop", status: 200, response: 4, failure: "connection_closed"}
	wasReset := partly
	wasReset.failure = "connection_reset"
	begun := "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123"
	binary := "\x00\x01\x02GET / HTTP/1.1\r\n\r\n"
	everywhere(t, []scene{
		{
			name: "the server closes without a response",
			say:  script{ask(1, plain), closes(server).finishes(1)},
			want: []exchange{unanswered("connection_closed")},
		},
		{
			name: "the client closes without waiting for a response",
			say:  script{ask(1, plain), closes(client)},
			want: []exchange{unanswered("connection_closed")},
		},
		{
			name: "the server resets without a response",
			say:  script{ask(1, plain), resets(server).finishes(1)},
			want: []exchange{unanswered("connection_reset")},
		},
		{
			name: "the client resets without waiting for a response",
			say:  script{ask(1, plain), resets(client).finishes(1)},
			want: []exchange{unanswered("connection_reset")},
		},
		{
			name: "the client closes its direction alone, and reads the response",
			say:  script{ask(1, plain), halfCloses(client), tell(1, okay)},
			want: []exchange{plainly},
		},
		{
			name: "the server closes within a body of known length",
			say:  script{ask(1, plain), head(begun), closes(server).finishes(1)},
			want: []exchange{partly},
		},
		{
			name: "the server resets within a body of known length",
			say:  script{ask(1, plain), head(begun), resets(server).finishes(1)},
			want: []exchange{wasReset},
		},
		{
			name: "the server closes within a chunk",
			say:  script{ask(1, plain), head(chunked("HTTP/1.1 200 OK") + "a\r\n0123"), closes(server).finishes(1)},
			want: []exchange{partly},
		},
		{
			name: "the server resets within a body that the end would have ended",
			say:  script{ask(1, plain), head("HTTP/1.1 200 OK\r\n\r\n0123"), resets(server).finishes(1)},
			want: []exchange{wasReset},
		},
		{
			name: "the connection ends within the response's head",
			say:  script{ask(1, plain), head("HTTP/1.1 500 Bad\r\nX: y\r\n"), closes(server).finishes(1)},
			want: []exchange{{host: "shop", status: 500, failure: "connection_closed"}},
		},
		{
			name: "the connection ends within the request's head",
			say:  script{ask(1, "GET /half HTTP/1.1\r\nHost: shop\r\nUser-Ag"), closes(client)},
			want: []exchange{{target: "/half", host: "shop", failure: "connection_closed"}},
		},
		{
			name: "the connection ends within the request's line: there is no exchange yet",
			say:  script{send("GET /half HT"), closes(client)},
		},
		{
			name: "an error before the request's head is whole",
			say: script{
				ask(1, "GET /slow HTTP/1.1\r\nHost: shop\r\nCook"), tell(1, response(408, "slow", "Connection: close")), closes(server),
			},
			want: []exchange{{target: "/slow", host: "shop", status: 408, response: 4}},
		},
		{
			name:   "a connection that begins with a response has no exchange",
			say:    script{send(""), back(response(408, "slow")), closes(server)},
			events: map[string]int{"connections_not_http": 1},
		},
		{
			name: "a response without a request on a connection that is kept alive, and the next exchange",
			say: script{
				ask(1, plain), tell(1, okay), back(response(408, "slow")), ask(1, plain), tell(1, okay),
			},
			want:   []exchange{plainly, plainly},
			events: map[string]int{"responses_without_request": 1, "resynchronised": 1},
		},
		{
			name: "Upgrade ends parsing, also where what follows looks like HTTP",
			say: script{
				ask(1, plain), tell(1, okay),
				ask(1, lines("GET /ws HTTP/1.1", "Host: shop", "Connection: Upgrade", "Upgrade: websocket")),
				tell(1, lines("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket")),
				send(plain), back(okay), send(binary), back(binary),
			},
			want:   []exchange{plainly, {target: "/ws", host: "shop", status: 101}},
			events: map[string]int{"connections_upgraded": 1},
		},
		{
			name: "Upgrade that is declined does not",
			say: script{
				ask(1, lines("GET /ws HTTP/1.1", "Host: shop", "Connection: Upgrade", "Upgrade: h2c")), tell(1, okay),
				ask(1, plain), tell(1, okay),
			},
			want: []exchange{{target: "/ws", host: "shop", status: 200, response: 2}, plainly},
		},
		{
			name: "CONNECT ends parsing once it is granted",
			say: script{
				ask(1, "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n"), tell(1, response(407, "who?")),
				ask(1, "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n"), tell(1, "HTTP/1.1 200 Granted\r\n\r\n"),
				send(plain), back(okay), send(binary), back(binary),
			},
			want: []exchange{
				{method: "CONNECT", target: "db:5432", host: "db", port: 5432, status: 407, response: 4},
				{method: "CONNECT", target: "db:5432", host: "db", port: 5432, status: 200},
			},
			events: map[string]int{"connections_upgraded": 1},
		},
		{
			name: "nonsense in place of a request, counted",
			say: script{
				ask(1, plain), tell(1, okay), send("\x00\x01nonsense\r\n"), back(response(400, "what?")), closes(server),
			},
			want:    []exchange{plainly},
			dropped: map[string]int{"malformed": 1},
			events:  map[string]int{"desynchronised": 1, "responses_without_request": 1},
		},
		{
			name:    "nonsense in place of a response, counted, and the next exchange",
			say:     script{ask(1, plain), tell(1, "nonsense\r\n"), ask(1, plain), tell(1, okay)},
			want:    []exchange{at(1, plainly)},
			dropped: map[string]int{"malformed": 1},
			events:  map[string]int{"desynchronised": 1, "resynchronised": 1},
		},
	})
}

func TestPipelining(t *testing.T) {
	numbered := func(n int) (requests, responses string, want []exchange) {
		for i := range n {
			body := strings.Repeat("b", i)
			requests += request("POST", fmt.Sprintf("/%d", i), body)
			responses += response(210+i%80, body+body)
			want = append(want, exchange{method: "POST", target: fmt.Sprintf("/%d", i), host: "shop", request: int64(i), status: 210 + i%80, response: int64(2 * i)})
		}
		return requests, responses, want
	}
	ask8, tell8, want8 := numbered(8)
	ask32, tell32, want32 := numbered(32)
	ask40, tell40, want40 := numbered(40)
	ask150, tell150, want150 := numbered(150)
	kept := func(want []exchange) []exchange { // of those beyond the bound only the last
		last := len(want) - 1
		var all []exchange
		for i, x := range want {
			if i < 32 || i == last {
				all = append(all, at(i, x))
			}
		}
		return all
	}
	heads := plain + "HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n" + plain
	headed := exchange{method: "HEAD", host: "shop", status: 200}
	var oneByOne script
	for i := range 8 {
		oneByOne = append(oneByOne, ask(1, request("POST", fmt.Sprintf("/%d", i), strings.Repeat("b", i))))
	}
	for i := range 8 {
		oneByOne = append(oneByOne, tell(1, response(210+i, strings.Repeat("b", 2*i))))
	}
	everywhere(t, []scene{
		{name: "8 deep, one segment each way", say: script{ask(8, ask8), tell(8, tell8)}, want: want8},
		{name: "8 deep, a segment for each message", say: oneByOne, want: want8},
		{
			name: "8 deep, cut anywhere",
			say:  script{ask(8, ask8).in(33), tell(8, tell8).in(29), ask(8, ask8).in(7), tell(8, tell8).in(11)},
			want: append(untimed(want8), untimed(want8)...),
		},
		{name: "32 deep", say: script{ask(32, ask32), tell(32, tell32), ask(1, plain), tell(1, okay)}, want: append(want32, plainly)},
		{
			name: "beyond the bound exchanges are lost alone, counted, and the others have their own responses",
			say:  script{ask(40, ask40), tell(40, tell40), ask(1, plain), tell(1, okay)},
			want: append(kept(want40), at(40, plainly)), dropped: map[string]int{"pipeline": 7},
		},
		{
			name: "far beyond the bound",
			say:  script{ask(150, ask150), tell(150, tell150), ask(1, plain), tell(1, okay)},
			want: append(kept(want150), at(150, plainly)), dropped: map[string]int{"pipeline": 117},
		},
		{
			name: "HEAD among others, whose responses have no body",
			say:  script{ask(3, heads), tell(3, okay+"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"+okay)},
			want: []exchange{plainly, headed, plainly},
		},
		{
			name: "the connection ends before all have their response",
			say:  script{ask(3, plain+plain+plain), tell(1, okay), closes(server).finishes(2)},
			want: []exchange{plainly, unanswered("connection_closed"), unanswered("connection_closed")},
		},
		{
			name: "HEAD so far beyond the bound that nobody can tell which response has a body",
			say: script{
				ask(120, strings.Repeat(heads, 40)), tell(120, strings.Repeat(okay+"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"+okay, 40)),
			},
			dropped: map[string]int{"pipeline": 65},
		},
	})
}

// untimed are exchanges whose own places in time a script in small pieces does not tell.
func untimed(want []exchange) []exchange {
	all := make([]exchange, len(want))
	for i, x := range want {
		all[i] = x
		all[i].anytime = true
	}
	return all
}
