package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"slices"
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
		if row.Bound != "" && row.Value <= 0 {
			t.Errorf("%s is %v %s", row.Name, row.Value, row.Unit)
		}
	}
	for part, rows := range map[string]int{"kernel": 10, "http2": 27, "throughput": 16, "userspace": 2, "memory": 2} {
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
