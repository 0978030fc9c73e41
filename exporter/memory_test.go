//go:build !race

// The race detector keeps books of its own, many times the size of what is measured here.

package exporter

import (
	"context"
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"ambit/l7"

	"google.golang.org/grpc"
)

// resident is the memory of this process in bytes, without the pages of its executable, which are read as
// they are needed.
func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("/proc/self/status has no RssAnon")
	return 0
}

func TestMemoryWithACollectorThatStaysAway(t *testing.T) {
	const (
		spans = 6_000_000 // ten minutes at 10,000 per second
		limit = 8 << 20
	)
	for _, compression := range []string{"none", "gzip"} {
		t.Run("compression "+compression, func(t *testing.T) {
			clearEnvironment(t)
			t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
			c := startCollector(t, nil, grpc.ForceServerCodecV2(deafCodec{}))
			cfg := quick(c.addr)
			cfg.RetryMin, cfg.RetryMax = time.Millisecond, time.Millisecond
			cfg.BatchDelay = time.Millisecond
			o := startOTLPHere(t, cfg)
			resources := []*l7.Resource{frontend, backend}
			s := exampleSpan()
			add := func(i int) {
				binary.BigEndian.PutUint64(s.SpanID[:], uint64(i)+1)
				s.Resource = resources[i&1]
				o.Add(s)
			}
			for range 100 { // what it is like while all is well
				for i := range 500 {
					add(i)
				}
				if err := o.Flush(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			before := resident(t)
			c.stop()
			most := 0
			for i := range spans {
				if add(i); i%100_000 == 0 {
					time.Sleep(20 * time.Millisecond) // so that attempts happen in between
					most = max(most, resident(t))
				}
			}
			most = max(most, resident(t))
			if grown := most - before; grown > limit {
				t.Errorf("memory grew by %d KiB", grown>>10)
			} else {
				t.Logf("memory grew by %d KiB", grown>>10)
			}
			st := exact(t, o)
			if st.Retries < 50 || st.Dropped[DropQueueFull] < spans-20_000 || st.QueuedBytes > st.CapacityBytes+cfg.BatchBytes+512<<10 {
				t.Errorf("stats are %+v", st)
			}
			c.start(t, c.addr)
			eventually(t, "delivery resumes", func() bool { s := o.Stats(); return s.Queued == 0 && s.FailingSince.IsZero() })
			if st := exact(t, o); st.Exported != 50_000+spans-st.Dropped[DropQueueFull] {
				t.Errorf("stats are %+v", st)
			}
		})
	}
}
