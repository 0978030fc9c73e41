package http2

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// webClient is a client program: it does what a plan says and returns what it logged, by target. It may live until
// release is called.
type webClient struct {
	name string // of its service
	do   func(t *testing.T, n *network, c connection) (lines map[string]line, release func())
	// plain says that it can't give each request headers of its own.
	plain bool
	// alone says that it makes a connection for each request.
	alone bool
	// streams are how many requests it makes at once.
	streams []int
}

var webClients = []webClient{
	{name: "curl", do: curl, streams: []int{1}, alone: true},
	{name: "nghttp", do: nghttp, streams: []int{100}, plain: true},
	{name: "go-fetch", do: planned(func(t *testing.T, plan string) harness.Program { return role(t, "fetch", plan) }), streams: []int{1, 8}},
	{name: "client.js", do: planned(func(t *testing.T, plan string) harness.Program { return program(t, "node", "client.js", plan) }), streams: []int{1, 30}},
}

// planned is a client that takes a plan in JSON and lives until its standard input ends: so ambit can read who it is.
func planned(make func(t *testing.T, plan string) harness.Program) func(*testing.T, *network, connection) (map[string]line, func()) {
	return func(t *testing.T, n *network, c connection) (map[string]line, func()) {
		t.Helper()
		text, err := json.Marshal([]connection{c})
		stage.Must(t, err)
		process, written, end := hold(t, n.clientNS, make(t, string(text)))
		all := wholeLog[line](t, process, written, len(c.Requests))
		byTarget := map[string]line{}
		for _, l := range all {
			byTarget[l.Target] = l
		}
		return byTarget, end
	}
}

// hold starts a program that lives until its standard input ends.
func hold(t *testing.T, ns *harness.Namespace, p harness.Program) (process *harness.Process, written *output, end func()) {
	t.Helper()
	input, release := io.Pipe()
	written = new(output)
	p.Stdin, p.Stdout = input, written
	process, err := ns.Start(p)
	stage.Must(t, err)
	end = sync.OnceFunc(func() {
		_ = release.Close() // always nil
		select {
		case <-process.Done():
		case <-time.After(patience):
			process.Kill()
		}
		if err := process.Wait(); err != nil {
			t.Errorf("%s: %v: %s", p.Path, err, process.Log())
		}
	})
	t.Cleanup(end)
	return process, written, end
}

// wholeLog waits until a program has written n lines.
func wholeLog[T any](t *testing.T, process *harness.Process, written *output, n int) (all []T) {
	t.Helper()
	stage.Wait(t, "the client has done its plan", func() (err error) {
		select {
		case <-process.Done():
			t.Fatalf("it ended: %v: %s", process.Wait(), process.Log())
		default:
		}
		if all, err = readLog[T](written.whole()); err == nil && len(all) < n {
			err = fmt.Errorf("%d of %d requests are done: %s", len(all), n, process.Log())
		}
		return err
	})
	return all
}

// curl makes a connection for each request: the one of Debian 12 breaks one that it knows to be HTTP/2 and uses again.
func curl(t *testing.T, n *network, c connection) (map[string]line, func()) {
	t.Helper()
	lines := map[string]line{}
	for _, r := range c.Requests {
		c.Requests = []asked{r}
		one, _ := curlBy(t, n, c, "--http2-prior-knowledge")
		maps.Copy(lines, one)
	}
	return lines, func() {}
}

// curlBy makes all requests over one connection, in turn or so many at once.
func curlBy(t *testing.T, n *network, c connection, version string) (map[string]line, func()) {
	t.Helper()
	var args []string
	if c.Streams > 1 {
		args = append(args, "--parallel", "--parallel-max", fmt.Sprint(c.Streams), "--no-progress-meter")
	}
	body := filepath.Join(t.TempDir(), "body")
	byURL := map[string]asked{}
	for i, r := range c.Requests {
		if i > 0 {
			args = append(args, "--next")
		}
		url := "http://" + c.Address + r.Target
		byURL[url] = r
		args = append(args, "--silent", "--show-error", "--noproxy", "*", "--globoff", "--path-as-is", "--max-time", "10",
			"--output", "/dev/null", "--write-out", "%{json}\n", "--header", "Host: "+c.Authority, version)
		for key, value := range r.Headers {
			args = append(args, "--header", key+": "+value)
		}
		switch {
		case r.Method == "HEAD":
			args = append(args, "--head")
		case r.Method != "GET":
			args = append(args, "--request", r.Method)
		}
		if r.Body > 0 {
			file := body + strconv.Itoa(r.Body)
			stage.Must(t, os.WriteFile(file, []byte(strings.Repeat("c", r.Body)), 0o600))
			args = append(args, "--data-binary", "@"+file)
		}
		args = append(args, url)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	begun := millis()
	out, err := n.clientNS.Run(ctx, "curl", args...)
	ended := millis()
	if err != nil {
		t.Fatalf("%v: curl %q", err, args)
	}
	lines := map[string]line{}
	for _, text := range strings.Split(strings.TrimSpace(out), "\n") {
		var told struct {
			URL      string `json:"url"`
			Version  string `json:"http_version"`
			Status   int    `json:"response_code"`
			Received int64  `json:"size_download"`
			Sent     int64  `json:"size_upload"`
			Local    string `json:"local_ip"`
			Remote   string `json:"remote_ip"`
			From     uint16 `json:"local_port"`
			To       uint16 `json:"remote_port"`
		}
		if err := json.Unmarshal([]byte(text), &told); err != nil {
			t.Fatalf("curl said %q: %v", text, err)
		}
		r := byURL[told.URL]
		lines[r.Target] = line{
			Method: r.Method, Target: r.Target, Authority: c.Authority, Version: "HTTP/" + told.Version, RequestID: r.Headers["x-request-id"],
			Status: told.Status, Sent: told.Sent, Received: told.Received, Begun: begun, Ended: ended,
			Local: fmt.Sprintf("%s:%d", told.Local, told.From), Peer: fmt.Sprintf("%s:%d", told.Remote, told.To),
		}
	}
	return lines, func() {}
}

// nghttp makes all requests at once over one connection, each with the same headers.
func nghttp(t *testing.T, n *network, c connection) (map[string]line, func()) {
	t.Helper()
	return nghttpBy(t, n, c)
}

func nghttpBy(t *testing.T, n *network, c connection, more ...string) (map[string]line, func()) {
	t.Helper()
	args := append([]string{"--null-out", "--stat", "--timeout", "10", "--header", ":authority: " + c.Authority}, more...)
	for _, r := range c.Requests {
		args = append(args, "http://"+c.Address+r.Target)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	begun := millis()
	out, err := n.clientNS.Run(ctx, "nghttp", args...)
	ended := millis()
	stage.Must(t, err)
	lines := map[string]line{}
	_, table, _ := strings.Cut(out, "request path\n")
	for _, row := range strings.Split(strings.TrimSpace(table), "\n") {
		fields := strings.Fields(row)
		if len(fields) != 7 {
			t.Fatalf("nghttp said %q", out)
		}
		status, err := strconv.Atoi(fields[4])
		stage.Must(t, err)
		// The size is rounded where it has a unit.
		size, err := strconv.ParseInt(fields[5], 10, 64)
		if err != nil {
			size = -1
		}
		lines[fields[6]] = line{
			Method: "GET", Target: fields[6], Authority: c.Authority, Version: "HTTP/2", Status: status, Received: size, Begun: begun, Ended: ended,
		}
	}
	return lines, func() {}
}
