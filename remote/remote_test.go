package remote

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// What is served over HTTP and over gRPC is what a client takes.
func TestRoundTrip(t *testing.T) {
	want := Strategy{Default: 0.25, LowerBound: 0.5, Operations: map[string]float64{"GET /a": 1, "GET /b": 0.001, "shop.Cart/Add": 0}}
	s, err := Listen("127.0.0.1:0", func(service string) (Strategy, bool) { return want, service == "cart & co" }, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for _, endpoint := range []string{"http://" + s.Address(), "http://" + s.Address() + "/api/sampling", "grpc://" + s.Address()} {
		c, err := NewClient(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := c.Fetch(t.Context(), "cart & co"); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", endpoint, got, err)
		}
		if _, err := c.Fetch(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "no service of this name") || !strings.Contains(err.Error(), s.Address()) {
			t.Errorf("%s: of a service that is not known: %v", endpoint, err)
		}
		if _, err := c.Fetch(t.Context(), ""); err == nil {
			t.Errorf("%s: of no service there is an answer", endpoint)
		}
	}
	if all, unknown := s.Asked(); all != 9 || unknown != 3 {
		t.Errorf("asked %d, %d of them unknown", all, unknown)
	}
	for _, path := range []string{"/", "/sampling", "/metrics"} {
		answer, err := http.Get("http://" + s.Address() + path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode < 400 {
			t.Errorf("%s is answered with %s", path, answer.Status)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		answer string
		want   Strategy
		wrong  string
	}{
		{answer: `{"strategyType":"PROBABILISTIC","probabilisticSampling":{"samplingRate":0.5},"of a later version":1}`, want: Strategy{Default: 0.5}},
		{answer: `{"strategyType":0,"probabilisticSampling":{"samplingRate":1}}`, want: Strategy{Default: 1}},
		{answer: `{"strategyType":1,"rateLimitingSampling":{"maxTracesPerSecond":7}}`, want: Strategy{PerSecond: 7}},
		{answer: `{"strategyType":"RATE_LIMITING","rateLimitingSampling":{"maxTracesPerSecond":7},"probabilisticSampling":{"samplingRate":1}}`, want: Strategy{PerSecond: 7}},
		{
			answer: `{"probabilisticSampling":{"samplingRate":1},"operationSampling":{"defaultSamplingProbability":0.1,"defaultLowerBoundTracesPerSecond":2,
				"perOperationStrategies":[{"operation":"a","probabilisticSampling":{"samplingRate":0.2}},{"operation":"b"}]}}`,
			want: Strategy{Default: 0.1, LowerBound: 2, Operations: map[string]float64{"a": 0.2}},
		},
		{answer: `{}`, wrong: "no strategy"},
		{answer: `[]`, wrong: "decode"},
		{answer: `{"probabilisticSampling":{"samplingRate":1.5}}`, wrong: "no probability"},
		{answer: `{"probabilisticSampling":{"samplingRate":"NaN"}}`, wrong: "no probability"},
		{answer: `{"strategyType":1,"rateLimitingSampling":{"maxTracesPerSecond":-7}}`, wrong: "limit"},
		{answer: `{"operationSampling":{"defaultSamplingProbability":0.1,"defaultLowerBoundTracesPerSecond":"Infinity"}}`, wrong: "lower bound"},
		{answer: `{"operationSampling":{"perOperationStrategies":[{"operation":"a","probabilisticSampling":{"samplingRate":-1}}]}}`, wrong: `"a"`},
		{answer: strings.Repeat(" ", maxAnswer) + "{}", wrong: "bytes"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("service") != "cart" || r.URL.Query().Get("tenant") != "x" {
				http.Error(w, "what?", http.StatusBadRequest)
			}
			fmt.Fprint(w, c.answer)
		}))
		client, err := NewClient(s.URL + "/sampling?tenant=x")
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.Fetch(t.Context(), "cart")
		if !reflect.DeepEqual(got, c.want) || (err != nil) != (c.wrong != "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%.80s: %+v, %v", c.answer, got, err)
		}
		s.Close()
	}
}

func TestRate(t *testing.T) {
	for _, c := range []struct {
		s            Strategy
		offered, all float64
		want         float64
	}{
		{Strategy{Default: 0.5}, 10, 10, 0.5},
		{Strategy{PerSecond: 5}, 10, 50, 0.1},
		{Strategy{PerSecond: 5}, 1, 2, 1},
		{Strategy{Default: 0.5, Operations: map[string]float64{"second": 0.25}}, 10, 10, 0.25},
		{Strategy{Default: 0.5, Operations: map[string]float64{"first": 0, "second": 0.25}}, 10, 10, 0},
		{Strategy{Default: 0.001, LowerBound: 2}, 10, 10, 0.2},
		{Strategy{Default: 0.001, LowerBound: 2}, 1, 10, 1},
	} {
		if got := c.s.Rate(c.offered, c.all, "first", "second"); got != c.want {
			t.Errorf("%+v: %v, want %v", c.s, got, c.want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for endpoint, right := range map[string]bool{
		"http://c:5778": true, "https://c/x?y=z": true, "grpc://c:14250": true, "grpcs://[::1]:1": true,
		"": false, "c:5778": false, "grpc://c": false, "grpc://c:1/x": false, "ftp://c:1": false, "http://": false, "http://u:p@c": false,
	} {
		if err := CheckEndpoint(endpoint); (err == nil) != right {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

// What a source said holds on while it is away, and new services are asked for at once.
func TestPoller(t *testing.T) {
	var away atomic.Bool
	s, err := Listen("127.0.0.1:0", func(service string) (Strategy, bool) {
		return Strategy{Default: 0.5, Operations: map[string]float64{service: 1}}, !away.Load()
	}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	client, err := NewClient("http://" + s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p := NewPoller(client, time.Hour, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	await := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, p.Stats())
			}
		}
	}
	p.Want([]string{"a", "b"})
	await("two are known", func() bool { return p.Stats().Services == 2 })
	if got, ok := p.Of("b"); !ok || got.Operations["b"] != 1 {
		t.Errorf("%+v", got)
	}
	away.Store(true)
	p.Want([]string{"a", "b", "c"})
	await("the third fails", func() bool { return p.Stats().Failed > 0 })
	if _, ok := p.Of("a"); !ok {
		t.Error("what is known is forgotten")
	}
	if p.Stats().LastError == "" {
		t.Error("the error is not told")
	}
	p.Want([]string{"b"})
	if _, ok := p.Of("a"); ok || p.Stats().Services != 1 {
		t.Errorf("what nobody wants is kept: %+v", p.Stats())
	}
}
