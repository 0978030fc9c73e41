package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambit/admin"
)

// purchase is what a purchase must look like: four spans, and none of the proxies' hops.
var purchase = []string{"CLIENT of client", "SERVER of frontend", "CLIENT of frontend", "SERVER of backend"}

// check looks at what ambit kept and says what is not as it should be.
func (s *shop) check(d *daemon) error {
	heading(s.out, "Check")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	first, err := d.settled(ctx, s.trace, len(purchase))
	if err != nil {
		return fmt.Errorf("look for the first purchase: %w", err)
	}
	list, err := d.client.Traces(ctx, admin.MaxTraces)
	if err != nil {
		return fmt.Errorf("list the traces: %w", err)
	}
	checks := []struct {
		says string
		find func() error
	}{
		{"the first purchase is one trace of exactly four spans, found by its ID", func() error {
			return errors.Join(consists(first, purchase), parents(first))
		}},
		{"the failing purchase is an error on all four", func() error {
			return d.likeOne(ctx, list, purchase, func(span admin.Span) bool {
				return span.Error == "500" || span.Error == "502"
			})
		}},
		{"each of them says why it was kept", func() error {
			return d.likeOne(ctx, list, purchase, func(span admin.Span) bool {
				return span.Attributes["ambit.sampling.reason"] == "parent" && span.Attributes["ambit.sampling.rule"] == "default"
			})
		}},
		{"health checks, scrapes and static files give no span, and count", func() error { return d.countedOnly(ctx, list) }},
		{"nothing was lost", func() error { return d.complete(ctx) }},
	}
	var errs []error
	for _, c := range checks {
		err := c.find()
		mark := "ok    "
		if err != nil {
			mark = "FAILED"
			errs = append(errs, fmt.Errorf("%s: %w", c.says, err))
		}
		fmt.Fprintf(s.out, "  %s  %s\n", mark, c.says)
	}
	return errors.Join(errs...)
}

// unseen are the paths that shipped rules drop, and the rule that does.
var unseen = map[string]string{"/healthz": "health-paths", "/metrics": "metrics-paths", "/static/logo.svg": "static-files"}

// countedOnly looks that what is dropped is in no trace, and in the counters of both sides.
func (d *daemon) countedOnly(ctx context.Context, list []admin.TraceSummary) error {
	for _, summary := range list {
		trace, err := d.trace(ctx, summary.TraceID)
		if err != nil {
			return err
		}
		for _, span := range trace.SpanList {
			path, _ := span.Attributes["url.path"].(string)
			if unseen[path] != "" {
				return fmt.Errorf("trace %s has a span of %s", trace.TraceID, path)
			}
		}
	}
	top, err := d.client.Top(ctx)
	if err != nil {
		return fmt.Errorf("ask for the routes: %w", err)
	}
	rows := make(map[string]uint64)
	for _, row := range top.Rows {
		if rule := unseen[row.Route]; rule == "" {
			continue
		} else if row.KeptShare != 0 || row.Rule != rule {
			return fmt.Errorf("of %s a share of %v is kept, by rule %q", row.Route, row.KeptShare, row.Rule)
		}
		rows[row.Kind+" "+row.Route] = row.Count
	}
	for path := range unseen {
		if sent, answered := rows["CLIENT "+path], rows["SERVER "+path]; sent == 0 || sent != answered {
			return fmt.Errorf("%s counts %d times as sent and %d times as answered", path, sent, answered)
		}
	}
	return nil
}

// trace asks for one trace by its ID.
func (d *daemon) trace(ctx context.Context, id string) (admin.TraceDetail, error) {
	return d.client.Trace(ctx, id, 0)
}

// settled waits until a trace has that many spans: records take a moment from the kernel to the store.
func (d *daemon) settled(ctx context.Context, id string, spans int) (admin.TraceDetail, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		trace, err := d.trace(ctx, id)
		if err == nil && len(trace.SpanList) >= spans {
			return trace, nil
		}
		select {
		case <-ctx.Done():
			return trace, err // what is missing is the check's to say
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// likeOne looks for a trace that consists of those spans, all of which hold.
func (d *daemon) likeOne(ctx context.Context, list []admin.TraceSummary, want []string, holds func(admin.Span) bool) error {
	for _, summary := range list {
		if summary.Spans != len(want) {
			continue
		}
		trace, err := d.trace(ctx, summary.TraceID)
		if err != nil {
			return err
		}
		if consists(trace, want) != nil {
			continue
		}
		if !slices.ContainsFunc(trace.SpanList, func(span admin.Span) bool { return !holds(span) }) {
			return parents(trace)
		}
	}
	return fmt.Errorf("none of %d traces is like that", len(list))
}

// consists compares the spans of a trace, by kind and service, with those that it should have.
func consists(trace admin.TraceDetail, want []string) error {
	var got []string
	for _, span := range trace.SpanList {
		got = append(got, span.Kind+" of "+span.Service)
	}
	slices.Sort(got)
	if sorted := slices.Sorted(slices.Values(want)); !slices.Equal(got, sorted) {
		return fmt.Errorf("trace %s has %s; want %s", trace.TraceID, strings.Join(got, ", "), strings.Join(sorted, ", "))
	}
	return nil
}

// parents looks that each span's parent is in the trace, or is the one that the client's header names.
func parents(trace admin.TraceDetail) error {
	known := []string{"", parentID}
	for _, span := range trace.SpanList {
		known = append(known, span.SpanID)
	}
	for _, span := range trace.SpanList {
		if !slices.Contains(known, span.ParentID) {
			return fmt.Errorf("the parent %s of a %s span of %s does not exist", span.ParentID, span.Kind, span.Service)
		}
	}
	return nil
}

// complete holds ambit's counters to their sum, and says what it dropped.
func (d *daemon) complete(ctx context.Context) error {
	status, err := d.client.Status(ctx)
	if err != nil {
		return fmt.Errorf("ask for the status: %w", err)
	}
	e := status.Exchanges
	if sum := e.Unsampled + e.Exported + e.DroppedTotal() + e.InFlight + e.Queued; e.Seen != sum || e.Seen == 0 {
		return fmt.Errorf("%d exchange sides were seen and %d accounted for", e.Seen, sum)
	}
	if e.DroppedTotal() > 0 {
		return fmt.Errorf("dropped: %v", e.Dropped)
	}
	return nil
}
