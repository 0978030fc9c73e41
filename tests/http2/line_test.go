package http2

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// line is what an endpoint logged of one request. What it does not know is absent; of a size that is -1. Times are
// milliseconds since 1970.
type line struct {
	Method    string  `json:"method,omitempty"`
	Target    string  `json:"target"` // it names the request: each has another one
	Authority string  `json:"authority,omitempty"`
	Agent     string  `json:"agent,omitempty"`
	Version   string  `json:"version,omitempty"`
	RequestID string  `json:"request_id,omitempty"`
	Status    int     `json:"status"`
	Sent      int64   `json:"sent"` // bytes of the body
	Received  int64   `json:"received"`
	Begun     float64 `json:"begun,omitempty"` // by a server: when it had read the head
	Ended     float64 `json:"ended,omitempty"`
	Local     string  `json:"local,omitempty"` // address and port
	Peer      string  `json:"peer,omitempty"`
}

// end reads an address and port as JavaScript or Go write them.
func end(text string) (netip.AddrPort, error) {
	if text == "" {
		return netip.AddrPort{}, nil
	}
	at, err := netip.ParseAddrPort(text)
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), err
}

// readLog reads what a program wrote as a log: a line of JSON for each request.
func readLog[T any](text []byte) ([]T, error) {
	var all []T
	for one := range bytes.Lines(text) {
		var l T
		if err := json.Unmarshal(one, &l); err != nil {
			return all, fmt.Errorf("read %q: %w", one, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// log is a file that a server writes, and how far it was read.
type log[T any] struct {
	path string
	read int
}

// next waits until the server has logged n requests more, and returns them.
func (l *log[T]) next(t testing.TB, n int, process *harness.Process) []T {
	t.Helper()
	var all []T
	stage.Wait(t, "the server has logged its requests", func() error {
		text, err := os.ReadFile(l.path)
		if err != nil {
			return err
		}
		if all, err = readLog[T](text[:strings.LastIndexByte(string(text), '\n')+1]); err != nil {
			return err
		}
		if len(all) < l.read+n {
			return fmt.Errorf("it has logged %d, want %d: %s", len(all)-l.read, n, process.Log())
		}
		return nil
	})
	if len(all) != l.read+n {
		t.Errorf("the server has logged %d requests, want %d", len(all)-l.read, n)
	}
	all = all[l.read:]
	l.read += len(all)
	return all
}

// rest returns what the server has logged since it was last asked, without waiting.
func (l *log[T]) rest(t testing.TB) []T {
	t.Helper()
	text, err := os.ReadFile(l.path)
	stage.Must(t, err)
	all, err := readLog[T](text[:strings.LastIndexByte(string(text), '\n')+1])
	stage.Must(t, err)
	all = all[l.read:]
	l.read += len(all)
	return all
}
