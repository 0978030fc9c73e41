package faults

import (
	"context"
	"strings"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"golang.org/x/sys/unix"
)

// stopMax is how long an end in good order may take.
const stopMax = 5 * time.Second

// SIGTERM delivers what waits, spans of the last moment included, and takes everything down.
func TestStopFlushes(t *testing.T) {
	s := newScene(t)
	c := newCollector(t)
	c.come(t)
	// The batch would wait for long, so what comes is what the flush brings.
	d := s.trace(t, c, "--export-batch-wait", "60s", "--export-batch-spans", "8192")
	held := d.objects(t)
	requests(t, s.pod, 2000)
	if took := d.stop(t); took > stopMax {
		t.Errorf("stopping took %v", took)
	}
	if c.received() != 4000 {
		t.Errorf("%d of 4000 spans were flushed: %s", c.received(), d.Log())
	}
	s.clean(t, held, d.socket)
}

// A collector that is dead, or answers nothing, does not hold up the end; what is lost by it is told.
func TestStopWithoutCollector(t *testing.T) {
	s := newScene(t)
	for _, about := range []string{"dead", "silent"} {
		t.Run(about, func(t *testing.T) {
			c := newCollector(t)
			if about == "silent" {
				c.setAnswer(func(ctx context.Context, _, _ int) (*coltracepb.ExportTraceServiceResponse, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				})
				c.come(t)
			}
			d := s.trace(t, c)
			held := d.objects(t)
			requests(t, s.pod, 1000)
			time.Sleep(300 * time.Millisecond)
			began := time.Now()
			must(t, d.Signal(unix.SIGTERM))
			err := d.Wait()
			if took := time.Since(began); took > stopMax {
				t.Errorf("stopping took %v", took)
			}
			if err == nil || !strings.Contains(d.Log(), "dropped=2000") || !strings.Contains(d.Log(), "ambit: flush spans to") {
				t.Errorf("the loss is not told: %v:\n%s", err, d.Log())
			}
			s.clean(t, held, d.socket)
		})
	}
}

// A daemon that is killed under traffic leaves nothing, and the next one, with the same socket, is the only one.
func TestKilledAndStartedAgain(t *testing.T) {
	s := newScene(t)
	c := newCollector(t)
	c.come(t)
	d := s.trace(t, c)
	load := startTraffic(t, s.pod, 500)
	held := d.objects(t)
	attached := len(d.status(t).Attachments)
	for range 2 {
		d.Kill()
		_ = d.Wait() // it was killed
		// The socket's file stays: nobody was left to remove it.
		s.clean(t, held, d.socket+".none")
		d.start(t)
		held = d.objects(t)
		if n := len(d.status(t).Attachments); n != attached {
			t.Errorf("%d programs are attached, there were %d", n, attached)
		}
	}
	load.stop(t)
	before := d.status(t).Exchanges.Seen
	requests(t, s.pod, 100)
	if seen := d.status(t).Exchanges.Seen - before; seen != 200 {
		t.Errorf("100 requests are %d exchange sides", seen)
	}
	if took := d.stop(t); took > stopMax {
		t.Errorf("stopping took %v", took)
	}
	s.clean(t, held, d.socket)
}
