package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/signal"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/harness"
)

// appPort is where both applications listen.
const appPort = harness.BackendPort

// passedOn are the headers that make one trace of several requests. Passing them on is all that an
// application does for tracing.
var passedOn = []string{
	"Traceparent", "Tracestate", "B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Sampled", "X-Request-Id",
}

func serve(routes map[string]http.HandlerFunc) error {
	mux := http.NewServeMux()
	for pattern, handler := range routes {
		mux.HandleFunc(pattern, handler)
	}
	return http.ListenAndServe(":"+strconv.Itoa(appPort), mux)
}

// backend is a role: it knows the stock, and fails when it is asked about something that is not there.
func backend([]string) error {
	return serve(map[string]http.HandlerFunc{
		"GET /stock/{item}": func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Millisecond)
			if r.PathValue("item") == "unicorn" {
				http.Error(w, "the database is on fire", http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"item":%q,"left":42}`, r.PathValue("item"))
		},
	})
}

// frontend is a role: it answers from the backend, whose URL is the argument.
func frontend(args []string) error {
	return serve(map[string]http.HandlerFunc{
		"GET /healthz": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") },
		"GET /metrics": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "teapots_sold_total 42") },
		"GET /static/logo.svg": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "image/svg+xml")
			fmt.Fprint(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="4"/></svg>`)
		},
		"GET /buy/{item}": func(w http.ResponseWriter, r *http.Request) {
			request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, args[0]+"/stock/"+r.PathValue("item"), nil)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			request.Host = "backend"
			for _, name := range passedOn {
				if values, ok := r.Header[name]; ok {
					request.Header[name] = values
				}
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				_, _ = io.Copy(io.Discard, response.Body) // so that the connection can be used again
				http.Error(w, "the backend failed", http.StatusBadGateway)
				return
			}
			_, _ = io.Copy(w, response.Body) // a client that has gone is its own affair
		},
	})
}

// client is a role: a customer whose first purchase has the trace ID that is given, and who goes on until
// asked to end. The arguments are the frontend's URL and that ID.
func client(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	for trace := args[1]; ; trace = newTraceID() {
		for _, path := range []string{"/buy/teapot?size=large", "/static/logo.svg", "/buy/unicorn"} {
			if err := get(http.DefaultClient, args[0]+path, "shopper/1.0", trace); err != nil {
				return err
			}
			if !pause(ctx, 400*time.Millisecond) {
				return nil
			}
			trace = newTraceID()
		}
	}
}

// kubelet is a role: it probes the frontend from the address that is given, on a new connection each time,
// and sends no tracing header. The arguments are the frontend's URL and the address.
func kubelet(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	source, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	dialer := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))}
	probe := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	for {
		if err := get(probe, args[0]+"/healthz", "kube-probe/1.34", ""); err != nil {
			return err
		}
		if !pause(ctx, 1500*time.Millisecond) {
			return nil
		}
	}
}

// prometheus is a role: it scrapes the frontend, whose URL is the argument.
func prometheus(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	for {
		if err := get(http.DefaultClient, args[0]+"/metrics", "Prometheus/3.5.0", ""); err != nil {
			return err
		}
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

// get makes a request, in that trace if it is not empty, and reads the answer, whatever it says.
func get(from *http.Client, url, agent, trace string) error {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", agent)
	if trace != "" {
		request.Header.Set("Traceparent", "00-"+trace+"-"+parentID+"-01")
	}
	response, err := from.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// parentID is the client's own span in every traceparent that it sends, which nobody exports.
const parentID = "00f067aa0ba902b7"

// pause waits, or is false if ctx ends meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
