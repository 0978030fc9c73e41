package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestMain(m *testing.M) {
	roles.Dispatch()
	os.Exit(m.Run())
}

// Every measurement runs and gives a number, so that the bench does not rot. No number is judged here.
func TestEveryPartMeasures(t *testing.T) {
	s := quick
	s.parts = partNames()
	var out bytes.Buffer
	if _, err := run(t.Context(), &s, true, &out); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	measured := make(map[string]int)
	for _, row := range r.Rows {
		measured[row.Part]++
		if math.IsNaN(row.Value) || math.IsInf(row.Value, 0) || row.Name == "" || row.Unit == "" {
			t.Errorf("%+v is no result", row)
		}
		// A header block's is the difference of two costs, and in windows this short either may come out the greater.
		if row.Bound != "" && row.Value <= 0 && !strings.HasPrefix(row.Name, "header block") {
			t.Errorf("%s is %v %s", row.Name, row.Value, row.Unit)
		}
	}
	for part, rows := range map[string]int{"kernel": 10, "http2": 27, "throughput": 20, "http2-load": 20, "userspace": 2, "memory": 2} {
		if measured[part] != rows {
			t.Errorf("part %s has %d rows, want %d", part, measured[part], rows)
		}
	}
	out.Reset()
	if err := r.print(&out); err != nil || out.Len() == 0 {
		t.Errorf("the table: %v", err)
	}
}

func TestHeadsHaveTheSizeThatTheTargetNames(t *testing.T) {
	for _, name := range []string{"http", "traceparent"} {
		say := talks[name]
		for _, message := range [][]byte{say.ask.turns[0], say.answer.turns[0]} {
			if at := bytes.Index(message, []byte("\r\n\r\n")); at+4 != headBytes {
				t.Errorf("%s: a head of %d bytes", name, at+4)
			}
		}
	}
}

// What the kernel side is given is what the rows say: the fields of a gRPC client's request, by index as far as it goes.
func TestBlocksHaveTheFieldsThatTheTargetNames(t *testing.T) {
	for name, literals := range map[string]int{"block-indexed": 0, "block-path": 1, "grpc": 0, "grpc-apart": 0, "grpc-path": 1} {
		ask := &talks[name].ask
		decoder := hpack.NewDecoder(4096, nil)
		opening := http2.NewFramer(nil, bytes.NewReader(ask.opening[len(http2.ClientPreface):]))
		turn := http2.NewFramer(nil, bytes.NewReader(ask.turns[0]))
		var blocks [][]byte
		for _, frames := range []*http2.Framer{opening, turn} {
			for {
				frame, err := frames.ReadFrame()
				if errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if headers, ok := frame.(*http2.HeadersFrame); ok {
					blocks = append(blocks, bytes.Clone(headers.HeaderBlockFragment()))
				}
			}
		}
		if want := int(talks[name].opened + talks[name].each); len(blocks) != want {
			t.Errorf("%s: %d header blocks, want %d", name, len(blocks), want)
		}
		for i, block := range blocks {
			fields, err := decoder.DecodeFull(block)
			if err != nil || !slices.Equal(fields, unaryFields) {
				t.Errorf("%s: block %d: %v, %v", name, i, fields, err)
			}
			if i > 0 && literals == 0 && len(block) != len(unaryFields) {
				t.Errorf("%s: block %d has %d bytes: not all of its fields are indexed", name, i, len(block))
			}
		}
	}
	if len(unaryPath) != 30 {
		t.Errorf("the path has %d characters", len(unaryPath))
	}
}

const wrkOutput = `Running 3s test @ http://127.0.0.1:8080/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   312.51us  508.76us  12.03ms   93.66%
    Req/Sec    67.84k     4.36k   74.12k    70.00%
  Latency Distribution
     50%  187.00us
     75%  288.00us
     90%  555.00us
     99%    2.50ms
  202612 requests in 3.00s, 25.12MB read
Requests/sec:  67433.10
Transfer/sec:      8.36MB
`

func TestParseWrk(t *testing.T) {
	l, err := parseWrk(wrkOutput)
	want := load{requests: 202612, perSec: 67433.10, p50: 187 * time.Microsecond, p99: 2500 * time.Microsecond}
	if err != nil || l != want {
		t.Errorf("%+v, %v; want %+v", l, err, want)
	}
	for name, text := range map[string]string{
		"errors":    wrkOutput + "  Socket errors: connect 0, read 1, write 0, timeout 0\n",
		"bad codes": wrkOutput + "  Non-2xx or 3xx responses: 5\n",
		"nothing":   "",
	} {
		if _, err := parseWrk(text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

const h2loadOutput = `Application protocol: h2c

finished in 2.01s, 1.50 req/s, 581.79KB/s
requests: 3 total, 83 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 3 2xx, 0 3xx, 0 4xx, 0 5xx
`

func TestParseH2load(t *testing.T) {
	const log = "1795632923320237\t200\t3285\n1795632923320238\t200\t21\n1795632923320238\t200\t3324\n"
	l, err := parseH2load(h2loadOutput, log)
	want := load{requests: 3, perSec: 1.5, p50: 3285 * time.Microsecond, p99: 3324 * time.Microsecond}
	if err != nil || l != want {
		t.Errorf("%+v, %v; want %+v", l, err, want)
	}
	for name, text := range map[string][2]string{
		"errors":            {strings.Replace(h2loadOutput, "3 succeeded", "2 succeeded", 1), log},
		"no output":         {"", log},
		"no log":            {h2loadOutput, ""},
		"a log that is not": {h2loadOutput, "1795632923320237\n"},
	} {
		if _, err := parseH2load(text[0], text[1]); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*settings){
		"an unknown part": func(s *settings) { s.parts = []string{"kernels"} },
		"no pairs":        func(s *settings) { s.pairs = 0 },
		"half a second":   func(s *settings) { s.duration = 1500 * time.Millisecond },
	} {
		s := quick
		change(&s)
		if s.validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
