package sampling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// work is what a client is to send. The same seed sends the same requests, but for the connection that each is on.
type work struct {
	Target      string // address and port
	Seed        uint64
	Requests    int
	Connections int // at once
	Mix         []request
}

// request is a kind of request. In Target and Headers "{hex}" stands for 16 random hex digits, "{rv}" for 14 of them,
// "{number}" for a random number, "{word}" for 8 random letters and "{token}" for 24 characters as of base64.
type request struct {
	Share   int // of all, by the sum of the shares
	Method  string
	Target  string
	Headers string // lines, each with its end
}

// places are what stands for something random, and what it becomes.
var places = map[string]func([]byte, uint64) []byte{
	"{hex}":    func(b []byte, r uint64) []byte { return fmt.Appendf(b, "%016x", r|1) },
	"{rv}":     func(b []byte, r uint64) []byte { return fmt.Appendf(b, "%014x", r>>8) },
	"{number}": func(b []byte, r uint64) []byte { return fmt.Appendf(b, "%d", r%1e6) },
	"{token}":  func(b []byte, r uint64) []byte { return fmt.Appendf(b, "aZ%d-%016xQ0", r%10, r) },
	"{word}": func(b []byte, r uint64) []byte {
		for range 8 {
			b = append(b, 'a'+byte(r%26))
			r /= 26
		}
		return b
	},
}

// head is a request's head, cut at its places.
type head []string

func headOf(r request) (h head) {
	text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: sampling.test\r\n%s\r\n", r.Method, r.Target, r.Headers)
	for text != "" {
		at, found := len(text), ""
		for place := range places {
			if i := strings.Index(text, place); i >= 0 && i < at {
				at, found = i, place
			}
		}
		h = append(h, text[:at])
		if found != "" {
			h = append(h, found)
		}
		text = text[at+len(found):]
	}
	return h
}

func (h head) append(b []byte, random *rand.Rand) []byte {
	for _, piece := range h {
		if fill := places[piece]; fill != nil {
			b = fill(b, random.Uint64())
		} else {
			b = append(b, piece...)
		}
	}
	return b
}

// load is the role of a client: it reads its work as JSON from the standard input, does it, and tells how many requests of
// each kind were answered.
func load([]string) error {
	var w work
	if err := json.NewDecoder(os.Stdin).Decode(&w); err != nil {
		return fmt.Errorf("read the work: %w", err)
	}
	var heads []head
	var kinds []int // by what is left of a random number
	for i, r := range w.Mix {
		heads = append(heads, headOf(r))
		kinds = append(kinds, slices.Repeat([]int{i}, r.Share)...)
	}
	var wg sync.WaitGroup
	failures, counts := make([]error, w.Connections), make([][]int, w.Connections)
	for c := range w.Connections {
		wg.Go(func() {
			counts[c] = make([]int, len(w.Mix))
			failures[c] = w.connection(c, heads, kinds, counts[c])
		})
	}
	wg.Wait()
	told := make([]int, len(w.Mix))
	for _, own := range counts {
		for i, n := range own {
			told[i] += n
		}
	}
	return errors.Join(append(failures, json.NewEncoder(os.Stdout).Encode(told))...)
}

// connection sends a connection's share of the requests.
func (w *work) connection(c int, heads []head, kinds, count []int) error {
	random := rand.New(rand.NewPCG(w.Seed, uint64(c)))
	conn, err := net.DialTimeout("tcp", w.Target, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	var out []byte
	in := make([]byte, answerSize)
	for range (c+1)*w.Requests/w.Connections - c*w.Requests/w.Connections {
		kind := kinds[random.IntN(len(kinds))]
		out = heads[kind].append(out[:0], random)
		if _, err := conn.Write(out); err != nil {
			return err
		}
		if err := readAnswer(conn, in); err != nil {
			return err
		}
		count[kind]++
	}
	return nil
}

// do makes a client in the namespace do the work, and returns how many requests of each kind were answered.
func do(t testing.TB, ns *harness.Namespace, w work) []int {
	t.Helper()
	told, err := try(t.Context(), ns, w)
	stage.Must(t, err)
	return told
}

// try is do for goroutines that are not the test's own.
func try(ctx context.Context, ns *harness.Namespace, w work) (told []int, err error) {
	for i := range w.Mix {
		if w.Mix[i].Method == "" {
			w.Mix[i].Method = "GET"
		}
	}
	order, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	p, err := harness.RoleProgram("load")
	if err != nil {
		return nil, err
	}
	p.Stdin = strings.NewReader(string(order))
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := ns.RunProgram(ctx, p)
	if err != nil {
		return nil, err
	}
	return told, json.Unmarshal([]byte(out), &told)
}
