package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"ambit/exporter"
	"ambit/l7"
)

// output is where spans go: to a collector, or into the store in memory; and, beside it, as lines on
// standard output.
type output struct {
	otlp    *exporter.OTLP    // nil where no endpoint is set
	store   *exporter.Store   // nil where one is
	live    *exporter.Printer // nil where spans are not shown as they come
	sink    exporter.Sink     // all of it
	capture exporter.Capture

	queueBytes int64 // bound of otlp's queue
}

// sinks hands each span to several.
type sinks []exporter.Sink

func (s sinks) Add(span *l7.Span) {
	for _, sink := range s {
		sink.Add(span)
	}
}

func (s sinks) Close(ctx context.Context) error {
	var errs []error
	for _, sink := range s {
		errs = append(errs, sink.Close(ctx))
	}
	return errors.Join(errs...)
}

func newOutput(ctx context.Context, cfg Config, log *slog.Logger) (output, error) {
	o := output{queueBytes: cfg.Export.QueueBytes}
	query, err := exporter.ParseQueryCapture(cfg.Capture.Query)
	if err != nil {
		return o, err
	}
	o.capture = exporter.Capture{Query: query, GRPCMessage: cfg.Capture.GRPCMessage, ContentType: cfg.Capture.ContentType, GuessedRoute: cfg.Capture.GuessedRoute}
	var all sinks
	if cfg.OTLP.Endpoint != "" {
		endpoint := cfg.OTLP.Endpoint
		if cfg.OTLP.EndpointVariable != "" {
			endpoint = "" // the exporter reads the variable itself, by its own rules
		}
		o.otlp, err = exporter.NewOTLP(ctx, exporter.OTLPConfig{
			Endpoint:   endpoint,
			Version:    Version,
			Capture:    o.capture,
			QueueBytes: int(cfg.Export.QueueBytes),
			BatchSpans: cfg.Export.BatchSpans,
			BatchDelay: cfg.Export.BatchWait,
			RetryFor:   cfg.Export.RetryFor,
			Log:        log,
		})
		if err != nil {
			return o, fmt.Errorf("start the exporter: %w", err)
		}
		all = append(all, o.otlp)
	} else {
		o.store = exporter.NewStore(cfg.Store.MaxTraces, int(cfg.Store.MaxBytes))
		all = append(all, o.store)
	}
	if cfg.ShowLive(exporter.IsTerminal(os.Stdout)) {
		o.live = exporter.NewPrinter(os.Stdout, query)
		all = append(all, o.live)
	}
	o.sink = all
	if len(all) == 1 {
		o.sink = all[0]
	}
	return o, nil
}

// endpoint names where spans go.
func (o *output) endpoint() string {
	if o.otlp == nil {
		return "memory"
	}
	s := o.otlp.Stats()
	return s.Endpoint
}

// notShown is how many spans the live view left out.
func (o *output) notShown() uint64 {
	if o.live == nil {
		return 0
	}
	return o.live.Dropped()
}

// report says at the end what became of the spans.
func (o *output) report(log *slog.Logger) {
	if o.otlp == nil {
		return
	}
	s := o.otlp.Stats()
	log.Info("flushed", "exported", s.Exported, "dropped", s.DroppedTotal(), "queued", s.Queued)
}

// filled is how full the exporter's queue is, from 0 to 1; the store is none.
func (o *output) filled() float64 {
	if o.otlp == nil {
		return 0
	}
	return float64(o.otlp.Stats().QueuedBytes) / float64(o.queueBytes)
}
