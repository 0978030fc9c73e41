package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"ambit/admin"
)

// answer is what the server of HTTP/1 sends.
const answer = "forty-two"

// tracing is ambit at work.
type tracing struct {
	method string            // by which it has to attach
	loaded map[string]string // by program, once ambit traces; see held
}

// programs reports what ambit has loaded; where it has not come that far, what becomes of each program by itself.
func (t *tracing) programs() (map[string]string, error) {
	if t.loaded != nil {
		return t.loaded, nil
	}
	detail, refused, err := load()
	if err == nil {
		err = fmt.Errorf("ambit has not started; by themselves %d of %d programs are refused: %s", len(refused), len(detail), strings.Join(refused, ", "))
	}
	return detail, err
}

// traces runs ambit as it is shipped, lets it trace requests between two network namespaces, and looks
// at what it says of them and at what it leaves behind.
func (t *tracing) traces() (detail map[string]string, err error) {
	p, err := newPair("ambit", 2)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	d, err := startDaemon("--namespaces", p[0].name+","+p[1].name)
	if err != nil {
		return nil, err
	}
	detail = map[string]string{}
	defer func() {
		err = errors.Join(err, d.stop())
		detail["log"] = d.log.String()
		if err == nil {
			err = p.nothingLeft()
		}
	}()
	if err := d.tracing(); err != nil {
		return detail, err
	}
	if detail["attachments"], err = d.attached(p, t.method); err != nil {
		return detail, err
	}
	if t.loaded, err = held(); err != nil {
		return detail, err
	}
	sides := 0
	for _, talk := range []struct {
		name string
		port int
		run  func(p pair, port int) ([]exchange, error)
	}{
		{"http/1", 80, oneRequest},
		{"http/2 by Go", 8080, streams},
		{"http/2 by hand", 9090, pieces},
	} {
		start := time.Now()
		exchanges, err := talk.run(p, talk.port)
		if err != nil {
			return detail, fmt.Errorf("%s: %w", talk.name, err)
		}
		sides += 2 * len(exchanges)
		// The counters first: where they do not add up, they say why spans are missing.
		counters, err := d.counted(sides)
		detail["counters"] = counters
		var shown string
		err = errors.Join(err, d.traced(p, talk.port, exchanges, &shown))
		detail[talk.name] = fmt.Sprintf("%d exchanges, %v\n%s", len(exchanges), time.Since(start).Round(time.Millisecond), shown)
		if err != nil {
			return detail, fmt.Errorf("%s: %w", talk.name, err)
		}
	}
	return detail, nil
}

// oneRequest is what HTTP/1 is tried with.
func oneRequest(p pair, _ int) ([]exchange, error) {
	body, err := p.get(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }), "/stock?item=7")
	if err == nil && body != answer {
		err = fmt.Errorf("the server answered %q, want %q", body, answer)
	}
	return []exchange{{
		version: "1.1", method: "GET", path: "/stock", query: "item=REDACTED", authority: p[1].address,
		agent: "Go-http-client/1.1", status: http.StatusOK, received: len(answer),
	}}, err
}

// ordinary are events that are part of every conversation.
var ordinary = []string{"connections", "connections_ended", "connections_http2"}

// counted waits for counters that say the same: so many exchange sides, all exported, and nothing else happened.
func (d *daemon) counted(sides int) (string, error) {
	client, err := admin.Dial(socket)
	if err != nil {
		return "", err
	}
	var told string
	err = d.eventually(settleLimit, func() error {
		status, err := client.Status(context.Background())
		if err != nil {
			return err
		}
		e, n := status.Exchanges, uint64(sides)
		var events []string
		strange := false
		for _, name := range slices.Sorted(maps.Keys(status.Events)) {
			if count := status.Events[name]; count > 0 {
				events = append(events, fmt.Sprintf("%s %d", name, count))
				strange = strange || !slices.Contains(ordinary, name)
			}
		}
		told = fmt.Sprintf("%+v, %s", e, strings.Join(events, ", "))
		if strange || e.Seen != n || e.Submitted != n || e.Exported != n || e.Unsampled+e.InFlight+e.Queued+e.DroppedTotal() != 0 {
			return fmt.Errorf("of %d exchange sides the counters say %s", sides, told)
		}
		return nil
	})
	return told, err
}

// traced demands a trace of each of the latest exchanges, with a span of either side, and compares them field by
// field. What one of them looks like is shown.
func (d *daemon) traced(p pair, port int, exchanges []exchange, shown *string) error {
	client, err := admin.Dial(socket)
	if err != nil {
		return err
	}
	wanted := map[string]*exchange{}
	for i := range exchanges {
		wanted[exchanges[i].path] = &exchanges[i]
	}
	if len(wanted) != len(exchanges) {
		return fmt.Errorf("of %d exchanges only %d have a path of their own", len(exchanges), len(wanted))
	}
	var list []admin.TraceSummary
	if err := ask(&list, "traces", "-n", fmt.Sprint(len(exchanges))); err != nil {
		return err
	}
	var errs []error
	for i, summary := range list {
		var trace admin.TraceDetail
		var err error
		if i == 0 {
			err = ask(&trace, "traces", summary.TraceID)
		} else { // a command for each takes its time under emulation
			trace, err = client.Trace(context.Background(), summary.TraceID, 0)
		}
		if err != nil {
			return err
		}
		*shown = trace.Waterfall
		if len(trace.SpanList) != 2 {
			errs = append(errs, fmt.Errorf("a trace has %d spans, want two:\n%s", len(trace.SpanList), trace.Waterfall))
			continue
		}
		path := pathOf(trace.SpanList[0])
		e := wanted[path]
		if e == nil {
			errs = append(errs, fmt.Errorf("nobody asked once for what is traced as %q", path))
			continue
		}
		delete(wanted, path)
		errs = append(errs, e.compare(p, port, trace.SpanList))
	}
	for path := range wanted {
		errs = append(errs, fmt.Errorf("there is no trace of %q", path))
	}
	return errors.Join(few(errs)...)
}

// few keeps what is wrong everywhere from flooding the console.
func few(errs []error) []error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) <= 8 {
		return errs
	}
	return append(errs[:8:8], fmt.Errorf("%d more of the kind", len(errs)-8))
}
