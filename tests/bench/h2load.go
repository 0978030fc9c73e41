package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit/tests/harness"
)

// How many connections h2load keeps busy, by one thread, and with how many streams each.
const (
	h2loadConnections = 8
	h2loadStreams     = 10
)

// h2load asks for url over HTTP/2, from the namespace, for a number of whole seconds.
func h2load(ctx context.Context, lab *harness.Lab, ns *harness.Namespace, url string, duration time.Duration) (load, error) {
	dir, err := lab.Dir()
	if err != nil {
		return load{}, err
	}
	log := filepath.Join(dir, "h2load")
	if err := os.RemoveAll(log); err != nil {
		return load{}, fmt.Errorf("remove the log of the run before: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, duration+20*time.Second)
	defer cancel()
	text, err := ns.Run(ctx, "h2load", "-t1", fmt.Sprintf("-c%d", h2loadConnections), fmt.Sprintf("-m%d", h2loadStreams),
		fmt.Sprintf("-D%d", int(duration.Seconds())), "--log-file="+log, url)
	if err != nil {
		return load{}, err
	}
	requests, err := os.ReadFile(log)
	if err != nil {
		return load{}, fmt.Errorf("read the log of h2load: %w", err)
	}
	return parseH2load(text, string(requests))
}

var (
	h2loadPerSec   = regexp.MustCompile(`finished in .*?, ([0-9.]+) req/s`)
	h2loadRequests = regexp.MustCompile(`requests: .* (\d+) done, (\d+) succeeded`)
)

// parseH2load takes what h2load prints and its log of requests, which has the only percentiles.
func parseH2load(text, log string) (load, error) {
	var l load
	perSec, requests := h2loadPerSec.FindStringSubmatch(text), h2loadRequests.FindStringSubmatch(text)
	if perSec == nil || requests == nil {
		return l, fmt.Errorf("h2load's output has nothing like %q and %q:\n%s", h2loadPerSec, h2loadRequests, text)
	}
	if requests[1] != requests[2] {
		return l, fmt.Errorf("h2load met errors, so its figures mean nothing: %s", requests[0])
	}
	if err := float(&l.perSec)(perSec[1]); err != nil {
		return l, fmt.Errorf("read h2load's output: %w", err)
	}
	if err := float(&l.requests)(requests[2]); err != nil {
		return l, fmt.Errorf("read h2load's output: %w", err)
	}
	var took []time.Duration
	for line := range strings.Lines(log) {
		columns := strings.Fields(line)
		if len(columns) < 3 {
			return l, fmt.Errorf("h2load's log has the line %q", line)
		}
		micros, err := strconv.ParseInt(columns[2], 10, 64)
		if err != nil {
			return l, fmt.Errorf("read h2load's log: %w", err)
		}
		took = append(took, time.Duration(micros)*time.Microsecond)
	}
	if float64(len(took)) < l.requests {
		return l, fmt.Errorf("h2load's log has %d requests of %.0f", len(took), l.requests)
	}
	l.p50, l.p99 = percentiles(took)
	return l, nil
}

// percentiles sorts what it is given.
func percentiles(took []time.Duration) (p50, p99 time.Duration) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}
