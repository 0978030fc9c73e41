package exporter

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// sender is what the sending goroutine alone uses.
type sender struct {
	batch    *batch
	backoff  time.Duration // before the next attempt, if the last one failed
	retryAt  time.Time     // when backoff and throttle allow the next attempt
	throttle time.Time     // when the collector allows it

	lossTold   time.Time // last line about losses
	lossCount  uint64    // dropped until then
	failedDrop uint64    // dropped until the failing line
}

// closeBackoff bounds the waiting between attempts while the exporter closes.
const closeBackoff = 250 * time.Millisecond

// lossInterval is the least time between two lines about losses.
const lossInterval = time.Minute

// run sends batch after batch, until the exporter closes and the queue is empty.
func (o *OTLP) run() {
	defer close(o.done)
	for {
		s, due := o.take()
		if s != nil {
			o.deliver(s)
			continue
		}
		if o.ctx.Err() != nil {
			return
		}
		var timer <-chan time.Time
		if due > 0 {
			timer = time.After(due)
		}
		select {
		case <-o.wake:
		case <-timer:
		case <-o.ctx.Done():
		}
	}
}

// take is queue.take, and moves the slab's spans from waiting to being on their way.
func (o *OTLP) take() (*slab, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	hurry := o.closing || o.queue.open != nil && o.queue.open.number <= o.flushTo
	s, due := o.queue.take(time.Now(), hurry)
	if s != nil {
		o.flying = slabSize{len(s.spans), len(s.buf)}
	}
	return s, due
}

// deliver sends the spans of s, however often it takes, and accounts for them.
//
//	          +--unanswered, retryable: back off--+
//	          v                                   |
//	pause --> attempt ----------------------------+
//	  |          +--> delivered  exported, less what was rejected
//	  |          +--> refused    dropped
//	  +--> RetryFor passed, or closed: dropped
func (o *OTLP) deliver(s *slab) {
	messages := o.sender.batch.build(s)
	number := s.number
	o.mu.Lock()
	o.queue.release(s)
	o.share.Store(o.queue.share())
	o.mu.Unlock()
	deadline := time.Now().Add(o.cfg.RetryFor)
	for first := true; ; first = false {
		if reason := o.pause(deadline); reason != dropNone {
			o.finish(number, 0, reason)
			return
		}
		if !first {
			o.mu.Lock()
			o.stats.Retries++
			o.mu.Unlock()
		}
		switch a := o.attempt(messages); a.verdict {
		case delivered:
			o.succeeded(a)
			o.finish(number, a.rejected, DropRejected)
			return
		case refused:
			o.failed(a)
			o.finish(number, 0, DropRefused)
			return
		default:
			o.failed(a)
		}
	}
}

// pause waits until the next attempt may be made. It returns why none may, or dropNone.
func (o *OTLP) pause(deadline time.Time) DropReason {
	for {
		if o.ctx.Err() != nil {
			return DropShutdown
		}
		now := time.Now()
		if !now.Before(o.sender.retryAt) {
			return dropNone
		}
		if !now.Before(deadline) {
			return DropExpired
		}
		until := o.sender.retryAt
		if deadline.Before(until) {
			until = deadline
		}
		timer := time.NewTimer(until.Sub(now))
		select {
		case <-timer.C:
		case <-o.ctx.Done():
		case <-o.hurry:
			// A flush may end ambit's own waiting, but not what the collector asked for.
			o.sender.backoff = 0
			o.sender.retryAt = o.sender.throttle
		}
		timer.Stop()
	}
}

// attempt sends messages once.
func (o *OTLP) attempt(messages []*tracepb.ResourceSpans) answer {
	var a answer
	ctx := withPayload(withAnswer(o.ctx, &a), o.sender.batch.payload)
	err := o.client.UploadTraces(ctx, messages)
	if err != nil && a.text == "" {
		a.text = err.Error()
	}
	return a
}

// failed notes an attempt that did not deliver, and when the next one may be made.
func (o *OTLP) failed(a answer) {
	if o.ctx.Err() != nil {
		// It was cut short by Close, which says nothing about the collector.
		return
	}
	snd, now := &o.sender, time.Now()
	snd.backoff = min(max(2*snd.backoff, o.cfg.RetryMin), o.cfg.RetryMax)
	if o.isClosing() {
		// There are seconds left at the most.
		snd.backoff = min(snd.backoff, closeBackoff)
	}
	// Jitter keeps the nodes of a cluster from coming back all at once.
	snd.retryAt = now.Add(snd.backoff/2 + rand.N(snd.backoff/2+1))
	snd.throttle = now.Add(a.throttle)
	if snd.retryAt.Before(snd.throttle) {
		snd.retryAt = snd.throttle
	}
	if a.verdict == refused && a.throttle == 0 {
		// The collector is there, and the next batch may be to its liking.
		snd.backoff, snd.retryAt = 0, now
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	o.noteError(a.text, now)
	if o.stats.FailingSince.IsZero() {
		o.stats.FailingSince = now
		snd.failedDrop = o.stats.DroppedTotal()
		o.cfg.Log.Warn("otlp export is failing", "endpoint", o.stats.Endpoint, "error", o.stats.LastError,
			"retried", a.verdict != refused)
	}
}

func (o *OTLP) isClosing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing
}

func (o *OTLP) succeeded(a answer) {
	o.sender.backoff, o.sender.retryAt = 0, time.Time{}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if a.rejected > 0 || a.text != "" {
		o.noteError(a.text, now)
	}
	if !o.stats.FailingSince.IsZero() {
		o.cfg.Log.Info("otlp export has recovered", "endpoint", o.stats.Endpoint,
			"after", now.Sub(o.stats.FailingSince).Round(time.Millisecond),
			"dropped", o.stats.DroppedTotal()-o.sender.failedDrop)
		o.stats.FailingSince = time.Time{}
		o.sender.lossCount = o.stats.DroppedTotal()
	}
}

// maxErrorText bounds Stats.LastError: a collector's message may be of any length.
const maxErrorText = 300

func (o *OTLP) noteError(text string, now time.Time) {
	o.stats.LastError, o.stats.LastErrorAt = printable(text, maxErrorText), now
}

// finish accounts for the batch on its way: lost spans of it for reason, the rest as exported. Where reason
// is not DropRejected, all are lost.
func (o *OTLP) finish(number uint64, lost int64, reason DropReason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := int64(o.flying.spans)
	if reason != DropRejected {
		lost = n
	}
	lost = min(max(lost, 0), n)
	o.stats.Dropped[reason] += uint64(lost)
	o.stats.Exported += uint64(n - lost)
	o.stats.Batches++
	o.flying = slabSize{}
	o.settled = number
	close(o.settle)
	o.settle = make(chan struct{})
	o.tellLosses(time.Now())
}

// tellLosses logs that spans were lost since the last such line. While the export fails, the lines about
// that tell it.
func (o *OTLP) tellLosses(now time.Time) {
	total := o.stats.DroppedTotal()
	if total == o.sender.lossCount || !o.stats.FailingSince.IsZero() || now.Sub(o.sender.lossTold) < lossInterval {
		return
	}
	attrs := []slog.Attr{
		slog.String("endpoint", o.stats.Endpoint),
		slog.Uint64("spans", total-o.sender.lossCount),
		slog.String("error", o.stats.LastError),
	}
	for r, n := range o.stats.Dropped {
		if n > 0 {
			attrs = append(attrs, slog.Uint64("total_"+DropReason(r).String(), n))
		}
	}
	o.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, "spans were lost", attrs...)
	o.sender.lossTold, o.sender.lossCount = now, total
}
