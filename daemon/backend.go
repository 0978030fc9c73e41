package daemon

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"ambit/admin"
	"ambit/exporter"
	"ambit/l7"
)

// rateLog remembers what was set, and by whom; the kernel has what is in force.
type rateLog struct {
	mu       sync.Mutex
	share    float64
	override *float64 // in the place of all rates
	source   string
	changed  time.Time
}

func (r *rateLog) setBase(share float64, source string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.share, r.source, r.changed = share, source, time.Now()
}

func (r *rateLog) base() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.share
}

func (r *rateLog) setOverride(share *float64, source string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.override, r.source, r.changed = share, source, time.Now()
}

// ready is an error where there is nothing yet to ask or to change, or no more.
func (d *Daemon) ready() error {
	switch d.State() {
	case admin.Starting:
		return admin.Unavailable("ambit is still starting; try again")
	case admin.HandedOver:
		return admin.Unavailable("this ambit has handed over to another one: ask that")
	}
	return nil
}

// State answers the probes.
func (d *Daemon) State() admin.State {
	return d.state.Load().(admin.State)
}

// Rates tells the rates in force, and those of the routes that are asked for.
func (d *Daemon) Rates(q admin.RatesQuery) (admin.Rates, error) {
	if err := d.ready(); err != nil {
		return admin.Rates{}, err
	}
	rates, err := d.kernel.Rates()
	if err != nil {
		return admin.Rates{}, err
	}
	budgets, err := d.rules.budgets()
	if err != nil {
		return admin.Rates{}, err
	}
	d.rates.mu.Lock()
	defer d.rates.mu.Unlock()
	control, base := d.steering.show()
	answer := admin.Rates{
		Default: d.rates.share, Threshold: fmt.Sprintf("%014x", rates.Base), Override: d.rates.override,
		Source: d.rates.source, Generation: rates.Generation, Changed: d.rates.changed, Budgets: budgets,
		Control: control, Routes: d.steering.list(q),
	}
	if control != nil {
		answer.Default = base
	}
	if q.Limit > 0 {
		answer.Anomalies = d.steering.events()
	}
	return answer, nil
}

// SetRates puts a rate above those of all rules in the running kernel.
func (d *Daemon) SetRates(_ context.Context, share float64) (admin.Rates, error) {
	return d.override(&share, "ambit rates set")
}

// ClearRates takes it away.
func (d *Daemon) ClearRates(context.Context) (admin.Rates, error) {
	return d.override(nil, "ambit rates clear")
}

func (d *Daemon) override(share *float64, source string) (admin.Rates, error) {
	if err := d.ready(); err != nil {
		return admin.Rates{}, err
	}
	if err := d.kernel.SetOverride(share); err != nil {
		return admin.Rates{}, err
	}
	d.rates.setOverride(share, source)
	if share == nil {
		d.log.Info("the rates of rules hold again")
	} else {
		d.log.Info("rate set above all rules", "rate", *share)
	}
	return d.Rates(admin.RatesQuery{})
}

// stored is the store, or an answer that says why there is none.
func (d *Daemon) stored() (*exporter.Store, error) {
	if err := d.ready(); err != nil {
		return nil, err
	}
	if d.out.store == nil {
		return nil, admin.Unavailable("no traces are kept here: they go to " + d.out.endpoint() +
			"; run ambit without an endpoint to keep them in memory")
	}
	return d.out.store, nil
}

// Traces lists the latest traces.
func (d *Daemon) Traces(n int) ([]admin.TraceSummary, error) {
	store, err := d.stored()
	if err != nil {
		return nil, err
	}
	out := []admin.TraceSummary{}
	for _, s := range store.Recent(n) {
		out = append(out, d.summary(&s))
	}
	return out, nil
}

// Trace shows one trace.
func (d *Daemon) Trace(id string, width int) (admin.TraceDetail, error) {
	store, err := d.stored()
	if err != nil {
		return admin.TraceDetail{}, err
	}
	whole, err := d.traceID(store, id)
	if err != nil {
		return admin.TraceDetail{}, err
	}
	t, ok := store.Trace(whole)
	if !ok {
		return admin.TraceDetail{}, admin.NotFound(fmt.Sprintf("trace %x is not kept, or was never seen", whole))
	}
	out := admin.TraceDetail{
		TraceSummary: d.summary(&t.Summary),
		Waterfall:    exporter.Waterfall(&t, exporter.Style{Width: width, Query: d.out.capture.Query}),
	}
	for i := range t.Spans {
		span, err := d.span(&t.Spans[i].Span)
		if err != nil {
			return admin.TraceDetail{}, err
		}
		out.SpanList = append(out.SpanList, span)
	}
	return out, nil
}

// traceID finds the only trace that is kept whose ID begins with these digits; a whole ID is not looked for.
func (d *Daemon) traceID(store *exporter.Store, digits string) (id exporter.TraceID, err error) {
	if len(digits) == hex.EncodedLen(len(id)) {
		_, err := hex.Decode(id[:], []byte(digits))
		return id, err
	}
	matches := 0
	for _, s := range store.Recent(d.cfg.Store.MaxTraces) {
		if strings.HasPrefix(hex.EncodeToString(s.TraceID[:]), digits) {
			id, matches = s.TraceID, matches+1
		}
	}
	switch matches {
	case 0:
		return id, admin.NotFound(fmt.Sprintf("no trace that is kept begins with %s", digits))
	case 1:
		return id, nil
	}
	return id, &admin.Error{
		Status: http.StatusConflict, Message: fmt.Sprintf("%d traces begin with %s: give more digits of one", matches, digits),
	}
}

func (d *Daemon) summary(s *exporter.Summary) admin.TraceSummary {
	return admin.TraceSummary{
		TraceID:    fmt.Sprintf("%x", s.TraceID[:]),
		Start:      s.Start,
		DurationNS: int64(s.Duration),
		Spans:      s.Spans,
		Omitted:    s.Omitted,
		Errors:     s.Errors,
		Services:   s.Services,
		Name:       spanTitle(&s.Root),
		Service:    serviceName(&s.Root),
	}
}

// spanTitle is a span's name for people: it may show the path, which a request's name never does.
func spanTitle(s *l7.Span) string {
	if method, original := s.RPCMethod(); s.RPC != l7.NoRPC {
		return cmp.Or(original, method, "gRPC")
	}
	if s.Method == "" {
		return strings.TrimSpace("HTTP " + s.Path)
	}
	method := s.Method
	if s.MethodOriginal != "" {
		method = s.MethodOriginal
	}
	return strings.TrimSpace(method + " " + s.Path)
}

func serviceName(s *l7.Span) string {
	if s.Resource == nil {
		return ""
	}
	return s.Resource.ServiceName
}

func (d *Daemon) span(s *l7.Span) (admin.Span, error) {
	sent, err := exporter.Describe(s, d.out.capture)
	if err != nil {
		return admin.Span{}, err
	}
	out := admin.Span{
		SpanID:     fmt.Sprintf("%x", s.SpanID[:]),
		Kind:       s.Kind.String(),
		Name:       sent.Name,
		Service:    serviceName(s),
		Start:      time.Unix(0, s.Start),
		DurationNS: s.End - s.Start,
		Error:      sent.Error,
		Message:    sent.Message,
		TraceState: sent.TraceState,
		Attributes: sent.Attributes,
		Resource:   make(map[string]any),
	}
	if s.ParentID != [8]byte{} {
		out.ParentID = fmt.Sprintf("%x", s.ParentID[:])
	}
	if s.Resource != nil {
		for _, a := range s.Resource.Attributes {
			if a.IsInt {
				out.Resource[a.Key] = a.Int
			} else {
				out.Resource[a.Key] = a.Str
			}
		}
	}
	return out, nil
}
