package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"ambit/tests/harness"
)

// wrkConnections is how many connections wrk keeps busy, by one thread: the server needs the other processor.
const wrkConnections = 16

// load is what one run of a client shows.
type load struct {
	requests float64 // answered
	perSec   float64
	p50, p99 time.Duration
}

func wrkFrom(ns *harness.Namespace, url string) func(context.Context, time.Duration) (load, error) {
	return func(ctx context.Context, duration time.Duration) (load, error) { return wrk(ctx, ns, url, duration) }
}

// wrk asks for url, from the namespace, for a number of whole seconds.
func wrk(ctx context.Context, ns *harness.Namespace, url string, duration time.Duration) (load, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+20*time.Second)
	defer cancel()
	text, err := ns.Run(ctx, "wrk", "-t1", fmt.Sprintf("-c%d", wrkConnections), fmt.Sprintf("-d%ds", int(duration.Seconds())), "--latency", url)
	if err != nil {
		return load{}, err
	}
	return parseWrk(text)
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in `)
	wrkPerSec   = regexp.MustCompile(`Requests/sec: +([0-9.]+)`)
	wrkP50      = regexp.MustCompile(`\n +50% +([0-9.]+[a-z]+)`)
	wrkP99      = regexp.MustCompile(`\n +99% +([0-9.]+[a-z]+)`)
	wrkTrouble  = regexp.MustCompile(`(?:Socket errors|Non-2xx).*`)
)

func parseWrk(text string) (load, error) {
	if trouble := wrkTrouble.FindString(text); trouble != "" {
		return load{}, fmt.Errorf("wrk met errors, so its figures mean nothing: %s", trouble)
	}
	var l load
	for _, f := range []struct {
		pattern *regexp.Regexp
		read    func(string) error
	}{
		{wrkRequests, float(&l.requests)}, {wrkPerSec, float(&l.perSec)},
		{wrkP50, span(&l.p50)}, {wrkP99, span(&l.p99)},
	} {
		found := f.pattern.FindStringSubmatch(text)
		if found == nil {
			return l, fmt.Errorf("wrk's output has nothing like %q:\n%s", f.pattern, text)
		}
		if err := f.read(found[1]); err != nil {
			return l, fmt.Errorf("read wrk's output: %w", err)
		}
	}
	return l, nil
}

func float(to *float64) func(string) error {
	return func(text string) (err error) {
		*to, err = strconv.ParseFloat(text, 64)
		return err
	}
}

func span(to *time.Duration) func(string) error {
	return func(text string) (err error) {
		*to, err = time.ParseDuration(text)
		return err
	}
}
