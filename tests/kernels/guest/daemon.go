package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ambit/admin"
)

const (
	ambit  = "/ambit"
	socket = "/run/ambit/ambit.sock"
	// startLimit is how long ambit may take until it traces: the verifier runs under emulation.
	startLimit = 2 * time.Minute
	// settleLimit is how long anything else may take that follows by itself.
	settleLimit = 15 * time.Second
)

// ambitTraces runs ambit as it is shipped, lets it trace one request between two network namespaces, and looks
// at what it says of it and at what it leaves behind.
func ambitTraces() (detail map[string]string, err error) {
	p, err := newPair("ambit", 2)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	d, err := startDaemon(p)
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
	if detail["attachments"], err = d.attached(p); err != nil {
		return detail, err
	}
	body, err := p.get(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }), "/stock?item=7")
	if err != nil {
		return detail, err
	}
	if body != answer {
		return detail, fmt.Errorf("the server answered %q, want %q", body, answer)
	}
	if detail["trace"], err = d.spans(p); err != nil {
		return detail, err
	}
	return detail, d.counted()
}

// answer is what the server sends.
const answer = "forty-two"

// daemon is ambit as a process. The command's output is its log.
type daemon struct {
	process *exec.Cmd
	log     bytes.Buffer
	ended   chan struct{} // closed when the process has ended, with result
	result  error
}

func startDaemon(p pair) (*daemon, error) {
	d := &daemon{ended: make(chan struct{})}
	d.process = exec.Command(ambit, "run", "--namespaces", p[0].name+","+p[1].name, "--socket", socket, "--live", "off")
	d.process.Stdout, d.process.Stderr = &d.log, &d.log
	if err := d.process.Start(); err != nil {
		return nil, fmt.Errorf("start ambit: %w", err)
	}
	go func() {
		d.result = d.process.Wait()
		close(d.ended)
	}()
	return d, nil
}

// ask runs one of ambit's commands and decodes its answer.
func ask(into any, command ...string) error {
	c := exec.Command(ambit, append(command, "--json", "--socket", socket)...)
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("ambit %s: %w: %s", strings.Join(command, " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("ambit %s: %w in %q", strings.Join(command, " "), err, out)
	}
	return nil
}

// eventually calls f until it succeeds, the time is over or ambit ends; then f's last error counts.
func (d *daemon) eventually(limit time.Duration, f func() error) error {
	for deadline := time.Now().Add(limit); ; {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-d.ended:
			return fmt.Errorf("ambit has ended: %w: %s", d.result, d.log.String())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (d *daemon) tracing() error {
	return d.eventually(startLimit, func() error {
		var status admin.Status
		if err := ask(&status, "status"); err != nil {
			return err
		}
		if status.State != admin.Tracing {
			return fmt.Errorf("ambit is %s", status.State)
		}
		return nil
	})
}

// attached demands the taps of both namespaces, by clsact, and the qdisc that they need.
func (d *daemon) attached(p pair) (string, error) {
	var status admin.Status
	if err := ask(&status, "status"); err != nil {
		return "", err
	}
	var got, want []string
	for _, a := range status.Attachments {
		got = append(got, strings.Join([]string{a.Namespace, a.Interface, a.Hook, a.Method, a.Program}, " "))
	}
	for _, program := range []string{"sockops link established", "cgroup link sock_create", "cgroup link bound4", "cgroup link bound6"} {
		want = append(want, "  "+program)
	}
	for _, e := range p {
		want = append(want,
			e.name+" lo egress clsact ambit_lo",
			e.name+" "+e.name+" egress clsact ambit_egress",
			e.name+" "+e.name+" ingress clsact ambit_ingress")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return "", fmt.Errorf("attached are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, e := range p {
		n, err := e.clsacts()
		if err != nil {
			return "", err
		}
		if n != 2 {
			return "", fmt.Errorf("network namespace %s has %d clsact qdiscs, want one on lo and one on %s", e.name, n, e.name)
		}
	}
	return strings.Join(got, "\n"), nil
}

// spans waits for the request's trace and compares it, field by field.
func (d *daemon) spans(p pair) (string, error) {
	var list []admin.TraceSummary
	if err := d.eventually(settleLimit, func() error {
		if err := ask(&list, "traces"); err != nil {
			return err
		}
		if len(list) == 0 || list[0].Spans < 2 {
			return fmt.Errorf("of the request there are %d traces: %+v", len(list), list)
		}
		return nil
	}); err != nil {
		return "", err
	}
	var trace admin.TraceDetail
	if err := ask(&trace, "traces", list[0].TraceID); err != nil {
		return "", err
	}
	if len(list) != 1 || len(trace.SpanList) != 2 {
		return trace.Waterfall, fmt.Errorf("one request gave %d traces, the newest with %d spans; want one with two", len(list), len(trace.SpanList))
	}
	client, server := trace.SpanList[0], trace.SpanList[1]
	if client.Kind != "CLIENT" {
		client, server = server, client
	}
	if client.Kind != "CLIENT" || server.Kind != "SERVER" {
		return trace.Waterfall, fmt.Errorf("the spans are %s and %s", client.Kind, server.Kind)
	}
	if client.ParentID != "" || server.ParentID != client.SpanID {
		return trace.Waterfall, fmt.Errorf("span %s of the client has parent %q, the server's has %q", client.SpanID, client.ParentID, server.ParentID)
	}
	var errs []error
	for _, span := range []admin.Span{client, server} {
		errs = append(errs, fields(span, p))
	}
	// Times are the wall clock's, and the server is inside of what the client saw or at most as long.
	for _, span := range []admin.Span{client, server} {
		if age := time.Since(span.Start); age < 0 || age > startLimit || span.DurationNS <= 0 {
			errs = append(errs, fmt.Errorf("%s began at %v and took %d ns", span.Kind, span.Start, span.DurationNS))
		}
	}
	if server.Start.Before(client.Start) {
		errs = append(errs, fmt.Errorf("the server began at %v, before the client at %v", server.Start, client.Start))
	}
	return trace.Waterfall, errors.Join(errs...)
}

// fields compares a span with what was sent.
func fields(span admin.Span, p pair) error {
	want := map[string]any{
		"http.request.method":       "GET",
		"http.response.status_code": float64(http.StatusOK),
		"http.response.body.size":   float64(len(answer)),
		"url.scheme":                "http",
		"server.address":            p[1].address,
		"server.port":               float64(80),
		"network.protocol.name":     "http",
		"network.protocol.version":  "1.1",
		"network.transport":         "tcp",
		"network.type":              "ipv4",
		"user_agent.original":       "Go-http-client/1.1",
	}
	switch span.Kind {
	case "CLIENT":
		want["url.full"] = "http://" + p[1].address + "/stock?item=REDACTED"
		want["network.peer.address"] = p[1].address
		want["network.peer.port"] = float64(80)
	case "SERVER":
		want["url.path"] = "/stock"
		want["url.query"] = "item=REDACTED"
		want["network.peer.address"] = p[0].address
		want["client.address"] = p[0].address
	}
	var errs []error
	if span.Name != "GET" || span.Error != "" {
		errs = append(errs, fmt.Errorf("the %s span is named %q, with error %q", span.Kind, span.Name, span.Error))
	}
	for key, value := range want {
		if got := span.Attributes[key]; got != value {
			errs = append(errs, fmt.Errorf("%s of the %s span is %v, want %v", key, span.Kind, got, value))
		}
	}
	return errors.Join(errs...)
}

// counted demands counters that say the same: two exchange sides, both exported.
func (d *daemon) counted() error {
	return d.eventually(settleLimit, func() error {
		var status admin.Status
		if err := ask(&status, "status"); err != nil {
			return err
		}
		e := status.Exchanges
		if e.Seen != 2 || e.Submitted != 2 || e.Exported != 2 || e.Unsampled+e.InFlight+e.Queued+e.DroppedTotal() != 0 {
			return fmt.Errorf("of two exchange sides the counters say %+v", e)
		}
		return nil
	})
}

// stop ends ambit as a service manager would.
func (d *daemon) stop() error {
	if err := d.process.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop ambit: %w", err)
	}
	select {
	case <-d.ended:
	case <-time.After(settleLimit):
		return errors.Join(fmt.Errorf("stop ambit: no end after %v", settleLimit), d.process.Process.Kill())
	}
	if d.result != nil {
		return fmt.Errorf("ambit ended: %w: %s", d.result, d.log.String())
	}
	return nil
}

// nothingLeft demands a kernel as it was before: no program, link or pin, and no qdisc in the namespaces.
func (p pair) nothingLeft() error {
	var err error
	// The kernel frees what nobody holds any more a moment later.
	for deadline := time.Now().Add(settleLimit); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if err = noPrograms(); err == nil {
			break
		}
	}
	errs := []error{err}
	if pins, err := os.ReadDir("/sys/fs/bpf"); err != nil || len(pins) > 0 {
		errs = append(errs, fmt.Errorf("ambit left %v in /sys/fs/bpf (%w)", pins, err))
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("ambit left its socket %s (%w)", socket, err))
	}
	for _, e := range p {
		n, err := e.clsacts()
		if err == nil && n > 0 {
			err = fmt.Errorf("ambit left %d clsact qdiscs in network namespace %s", n, e.name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func noPrograms() error {
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list the kernel's programs: %w", err)
		}
		program, err := ebpf.NewProgramFromID(next)
		if errors.Is(err, os.ErrNotExist) { // gone meanwhile
			id = next
			continue
		}
		if err != nil {
			return fmt.Errorf("look at program %d: %w", next, err)
		}
		defer program.Close()
		return fmt.Errorf("ambit left a program: %v", program)
	}
}

// clsacts counts the qdiscs of that kind in the namespace.
func (e *end) clsacts() (n int, err error) {
	err = e.run(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return fmt.Errorf("list the interfaces of %s: %w", e.name, err)
		}
		for _, link := range links {
			qdiscs, err := netlink.QdiscList(link)
			if err != nil {
				return fmt.Errorf("list the qdiscs of %s: %w", link.Attrs().Name, err)
			}
			for _, q := range qdiscs {
				if q.Type() == "clsact" {
					n++
				}
			}
		}
		return nil
	})
	return n, err
}
