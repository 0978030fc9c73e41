package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"strings"
)

// methods serves one path: a handler for each method, 405 for the others.
type methods map[string]http.HandlerFunc

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if serve := m[method]; serve != nil {
		serve(w, r)
		return
	}
	allowed := strings.Join(slices.Sorted(maps.Keys(m)), ", ")
	w.Header().Set("Allow", allowed)
	fail(w, &Error{http.StatusMethodNotAllowed, fmt.Sprintf("%s takes %s", r.URL.Path, allowed)})
}

func get(h http.HandlerFunc) methods { return methods{http.MethodGet: h} }

// publicRoutes are what the TCP address shows: of what a request carried nothing but the templates of paths that are
// labels of metrics, and nothing that changes anything.
func publicRoutes(b Backend, metrics http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/metrics", get(metrics.ServeHTTP))
	mux.Handle("/healthz", get(func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") }))
	mux.Handle("/readyz", get(func(w http.ResponseWriter, _ *http.Request) {
		state := b.State()
		status := http.StatusOK
		if state == Starting {
			status = http.StatusServiceUnavailable
		}
		say(w, status, string(state))
	}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, NotFound(fmt.Sprintf("there is no %q here", r.URL.Path)))
	})
	return mux
}

// socketRoutes are everything, for root.
func socketRoutes(b Backend, metrics http.Handler) *http.ServeMux {
	a := api{b}
	mux := publicRoutes(b, metrics)
	mux.Handle("/v1/status", get(a.status))
	mux.Handle("/v1/rates", methods{http.MethodGet: a.rates, http.MethodPut: a.setRates, http.MethodDelete: a.clearRates})
	mux.Handle("/v1/rules", get(a.rules))
	mux.Handle("/v1/reload", methods{http.MethodPost: a.reload})
	mux.Handle("/v1/forced", methods{http.MethodPost: a.force})
	mux.Handle("/v1/forced/{id}", methods{http.MethodGet: a.forcing, http.MethodDelete: a.unforce})
	mux.Handle("/v1/pause", methods{http.MethodPost: change(b, b.Pause)})
	mux.Handle("/v1/resume", methods{http.MethodPost: change(b, b.Resume)})
	mux.Handle("/v1/handover", methods{http.MethodPost: change(b, b.HandOver)})
	mux.Handle("/v1/top", get(a.top))
	mux.Handle("/v1/traces", get(a.traces))
	mux.Handle("/v1/traces/{id}", get(a.trace))
	mux.Handle("/debug/pprof/", get(pprof.Index))
	mux.Handle("/debug/pprof/cmdline", get(pprof.Cmdline))
	mux.Handle("/debug/pprof/profile", get(pprof.Profile))
	mux.Handle("/debug/pprof/symbol", methods{http.MethodGet: pprof.Symbol, http.MethodPost: pprof.Symbol})
	mux.Handle("/debug/pprof/trace", get(pprof.Trace))
	return mux
}

type api struct{ backend Backend }

func (a api) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), writeTimeout)
	defer cancel()
	status, err := a.backend.Status(ctx)
	answer(w, status, err)
}

func (a api) rates(w http.ResponseWriter, r *http.Request) {
	limit, err := parameter(r, "limit", 0, MaxRates, 0)
	if err != nil {
		fail(w, err)
		return
	}
	query := r.URL.Query()
	rates, err := a.backend.Rates(RatesQuery{Limit: limit, Service: query.Get("service"), Route: query.Get("route")})
	if rates.Routes == nil {
		rates.Routes = []RouteRate{}
	}
	if rates.Anomalies == nil {
		rates.Anomalies = []Anomaly{}
	}
	answer(w, rates, err)
}

func (a api) setRates(w http.ResponseWriter, r *http.Request) {
	var body rateChange
	if err := read(w, r, &body); err != nil {
		fail(w, err)
		return
	}
	if body.Override == nil || !(*body.Override >= 0 && *body.Override <= 1) {
		fail(w, &Error{http.StatusBadRequest, `"override" must be a number from 0 to 1`})
		return
	}
	ctx, cancel := changeContext(r)
	defer cancel()
	rates, err := a.backend.SetRates(ctx, *body.Override)
	answer(w, rates, err)
}

func (a api) clearRates(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := changeContext(r)
	defer cancel()
	rates, err := a.backend.ClearRates(ctx)
	answer(w, rates, err)
}

func (a api) rules(w http.ResponseWriter, _ *http.Request) {
	rules, err := a.backend.Rules()
	answer(w, rules, err)
}

func (a api) reload(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := changeContext(r)
	defer cancel()
	rules, err := a.backend.Reload(ctx)
	answer(w, rules, err)
}

func (a api) force(w http.ResponseWriter, r *http.Request) {
	var body ForceRequest
	if err := read(w, r, &body); err != nil {
		fail(w, err)
		return
	}
	if err := body.Validate(); err != nil {
		fail(w, &Error{http.StatusBadRequest, err.Error()})
		return
	}
	ctx, cancel := changeContext(r)
	defer cancel()
	forcing, err := a.backend.Force(ctx, body)
	answer(w, forcing, err)
}

func (a api) forcing(w http.ResponseWriter, r *http.Request) {
	forcing, err := a.backend.Forcing(r.PathValue("id"))
	answer(w, forcing, err)
}

func (a api) unforce(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := changeContext(r)
	defer cancel()
	forcing, err := a.backend.Unforce(ctx, r.PathValue("id"))
	answer(w, forcing, err)
}

func change(b Backend, do func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := changeContext(r)
		defer cancel()
		err := do(ctx)
		answer(w, stateAnswer{b.State()}, err)
	}
}

// changeContext outlives the caller: a change that was begun is ended.
func changeContext(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
}

func (a api) traces(w http.ResponseWriter, r *http.Request) {
	n, err := parameter(r, "n", 1, MaxTraces, 20)
	if err != nil {
		fail(w, err)
		return
	}
	traces, err := a.backend.Traces(n)
	if traces == nil {
		traces = []TraceSummary{}
	}
	answer(w, traces, err)
}

func (a api) trace(w http.ResponseWriter, r *http.Request) {
	width, err := parameter(r, "width", 0, maxWidth, 0)
	if err != nil {
		fail(w, err)
		return
	}
	id, err := ParseTraceID(r.PathValue("id"))
	if err != nil {
		fail(w, &Error{http.StatusBadRequest, err.Error()})
		return
	}
	trace, err := a.backend.Trace(id, width)
	answer(w, trace, err)
}

// parameter reads a whole number of the query.
func parameter(r *http.Request, name string, low, high, absent int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, &Error{http.StatusBadRequest, fmt.Sprintf("%s must be a whole number from %d to %d", name, low, high)}
	}
	return n, nil
}

// minTraceDigits is what the live view shows of a trace ID.
const minTraceDigits = 8

// ParseTraceID reads a trace ID of 32 hex digits, or its first ones, at least 8. It returns them in lower case.
func ParseTraceID(text string) (string, error) {
	hexadecimal := !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
	if !hexadecimal || len(text) < minTraceDigits || len(text) > 32 {
		return "", fmt.Errorf("%q is no trace ID: want 32 hex digits, or the first %d or more", text, minTraceDigits)
	}
	return strings.ToLower(text), nil
}

// read decodes a body of one JSON object, of at most maxBody bytes.
func read(w http.ResponseWriter, r *http.Request, into any) error {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		var more json.Token
		if more, err = decoder.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%v behind the value", more)
		}
	}
	if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
		return &Error{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", maxBody)}
	}
	return &Error{http.StatusBadRequest, fmt.Sprintf("the body is not what is wanted: %v", err)}
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, text) // the caller may be gone
}

// errorAnswer is the body of everything that is no success.
type errorAnswer struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, body any, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	write(w, http.StatusOK, body)
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var chosen *Error
	if errors.As(err, &chosen) {
		status = chosen.Status
	}
	write(w, status, errorAnswer{err.Error()})
}

func write(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(text, '\n')) // the caller may be gone
}
