package http2

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

func millis() float64 { return float64(time.Now().UnixMicro()) / 1e3 }

// unencrypted is HTTP/2 in the clear, and HTTP/1 beside it.
func unencrypted() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// serve is Go's server: a port, and the file that it logs to, or none. "X-Want: status size" says what to answer, and
// with "trailers" behind it how; "told" puts the answer into the path: /told/STATUS/...
func serve(args []string) error {
	var into io.Writer = io.Discard
	if len(args) > 1 {
		file, err := os.OpenFile(args[1], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		into = file
	}
	var mu sync.Mutex
	lines := json.NewEncoder(into)
	server := http.Server{Addr: "[::]:" + args[0], Protocols: unencrypted(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := millis()
		received, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		status, size, trailers := wanted(r)
		w.Header().Set("Content-Type", "text/plain")
		if trailers {
			w.Header().Set("Trailer", "X-Sum")
		}
		w.WriteHeader(status)
		if size > 0 {
			_, _ = w.Write(make([]byte, size)) // the client's log tells
		}
		if trailers {
			w.Header().Set("X-Sum", "0123456789")
		}
		if into == io.Discard {
			return
		}
		sent := int64(size)
		if r.Method == http.MethodHead {
			sent = 0
		}
		mu.Lock()
		defer mu.Unlock()
		_ = lines.Encode(line{ // a test that misses it fails
			Method: r.Method, Target: r.RequestURI, Authority: r.Host, Agent: r.UserAgent(), Version: r.Proto,
			RequestID: r.Header.Get("X-Request-Id"), Status: status, Sent: sent, Received: received, Begun: begun,
			Local: r.Context().Value(http.LocalAddrContextKey).(net.Addr).String(), Peer: r.RemoteAddr,
		})
	})}
	return server.ListenAndServe()
}

// wanted says what the server shall answer.
func wanted(r *http.Request) (status, size int, trailers bool) {
	status, size = http.StatusOK, 5
	var how string
	if want := r.Header.Get("X-Want"); want != "" {
		_, _ = fmt.Sscan(want, &status, &size, &how) // how may be absent
	} else if len(r.URL.Path) >= 9 && r.URL.Path[:6] == "/told/" {
		if told, err := strconv.Atoi(r.URL.Path[6:9]); err == nil {
			status = told
		}
	}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		size = 0
	}
	return status, size, how == "trailers"
}
