package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"ambit/tests/harness"
)

// roles are what this program is when it is started again inside of a namespace: Go's own server and client.
var roles = harness.Roles{"serve": serve, "fetch": fetch}

// serve answers what X-Want asks for, as testdata/server.js does. Arguments: port, file.
func serve(args []string) error {
	file, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr: ":" + args[0], DisableGeneralOptionsHandler: true,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			l := line{ID: r.UserAgent(), Method: r.Method, Target: r.RequestURI, Host: r.Host, Version: r.Proto, Begun: millis()}
			var err error
			if l.Received, err = io.Copy(io.Discard, r.Body); err != nil {
				fmt.Fprintf(os.Stderr, "read the body of %s: %v\n", l.ID, err)
			}
			l.Status, l.Sent = answer(w, r)
			l.setEnds(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String(), r.RemoteAddr)
			if err := json.NewEncoder(file).Encode(l); err != nil {
				fmt.Fprintf(os.Stderr, "log %s: %v\n", l.ID, err)
			}
		}),
	}
	return server.ListenAndServe()
}

// answer answers what is wanted, and tells the status and the bytes of the body.
func answer(w http.ResponseWriter, r *http.Request) (status int, sent int64) {
	want := strings.Fields(r.Header.Get("X-Want"))
	if len(want) != 3 {
		want = []string{"200", "0", "length"}
	}
	status, _ = strconv.Atoi(want[0]) // the tests send numbers
	size, _ := strconv.Atoi(want[1])
	if want[2] == "length" && status != http.StatusNoContent {
		w.Header().Set("Content-Length", want[1])
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified {
		return status, 0
	}
	if want[2] != "length" {
		w.(http.Flusher).Flush()
	}
	_, _ = io.WriteString(w, strings.Repeat("g", size)) // the client tells if it is too few
	return status, int64(size)
}

// fetch does what a plan says, in JSON, and writes a line for each request. It ends when its standard input does.
func fetch(args []string) error {
	var plan []connection
	if err := json.Unmarshal([]byte(args[0]), &plan); err != nil {
		return err
	}
	for _, c := range plan {
		client := &http.Client{
			Transport:     &http.Transport{DisableCompression: true, MaxConnsPerHost: 1, ExpectContinueTimeout: patience},
			Timeout:       2 * patience,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		for _, r := range c.Requests {
			l, err := fetchOne(client, c, r)
			if err != nil {
				return err
			}
			if err := json.NewEncoder(os.Stdout).Encode(l); err != nil {
				return err
			}
		}
		client.CloseIdleConnections()
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func fetchOne(client *http.Client, c connection, r asked) (line, error) {
	l := line{ID: r.ID, Method: r.Method, Target: r.Target, Sent: int64(r.Body), Begun: millis()}
	request := &http.Request{
		Method: r.Method, URL: &url.URL{Scheme: "http", Host: netip.AddrPortFrom(c.Address, c.Port).String(), Opaque: r.Target},
		Host: c.Host, Header: http.Header{"User-Agent": {r.ID}},
	}
	for key, value := range r.Headers {
		request.Header.Set(key, value)
	}
	if r.Expect {
		request.Header.Set("Expect", "100-continue")
	}
	if r.Body > 0 {
		request.Body, request.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("o", r.Body))), int64(r.Body)
		if r.Chunked {
			request.ContentLength = -1
		}
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		l.setEnds(info.Conn.LocalAddr().String(), info.Conn.RemoteAddr().String())
	}}
	response, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		return l, err
	}
	l.Status = response.StatusCode
	l.Received, err = io.Copy(io.Discard, response.Body)
	l.Ended = millis()
	return l, errors.Join(err, response.Body.Close())
}

// millis is now, in the milliseconds of the endpoints' logs.
func millis() float64 { return float64(time.Now().UnixNano()) / 1e6 }
