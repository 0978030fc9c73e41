package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// webClient is a client program: it does what a plan says, and returns what it logged, by ID. It may
// live until release is called.
type webClient struct {
	name string // of its service
	do   func(t *testing.T, ns *harness.Namespace, plan []connection) (lines map[string]line, release func())
	// more are connections that only this program can make.
	more func(*webServer) []connection
}

var webClients = []webClient{
	{name: "curl", do: curl, more: curlConnections},
	{name: "go-fetch", do: planned(func(t *testing.T, plan string) harness.Program { return role(t, "fetch", plan) })},
	{name: "client.js", do: planned(func(t *testing.T, plan string) harness.Program { return program(t, "node", "client.js", plan) })},
	{name: "client.py", do: planned(func(t *testing.T, plan string) harness.Program { return program(t, python, "client.py", plan) }), more: urllibConnections},
}

// output is what a program writes, to be read while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) lines() ([]line, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	whole := o.text.Bytes()
	return parse(whole[:bytes.LastIndexByte(whole, '\n')+1])
}

// planned is a client that takes a plan in JSON and lives until its standard input ends: so ambit can read who it is.
func planned(make func(t *testing.T, plan string) harness.Program) func(*testing.T, *harness.Namespace, []connection) (map[string]line, func()) {
	return func(t *testing.T, ns *harness.Namespace, plan []connection) (map[string]line, func()) {
		t.Helper()
		text, err := json.Marshal(plan)
		stage.Must(t, err)
		p := make(t, string(text))
		input, release := io.Pipe()
		written := new(output)
		p.Stdin, p.Stdout = input, written
		process, err := ns.Start(p)
		stage.Must(t, err)
		end := sync.OnceFunc(func() {
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
		n := 0
		for _, c := range plan {
			n += len(c.Requests)
		}
		var all []line
		stage.Wait(t, "the client has done its plan", func() (err error) {
			select {
			case <-process.Done():
				t.Fatalf("it ended: %v: %s", process.Wait(), process.Log())
			default:
			}
			if all, err = written.lines(); err == nil && len(all) < n {
				err = fmt.Errorf("%d of %d requests are done: %s", len(all), n, process.Log())
			}
			return err
		})
		byID := map[string]line{}
		for _, l := range all {
			byID[l.ID] = l
		}
		return byID, end
	}
}

// curl makes a process for each connection.
func curl(t *testing.T, ns *harness.Namespace, plan []connection) (map[string]line, func()) {
	t.Helper()
	byID := map[string]line{}
	body := filepath.Join(t.TempDir(), "body")
	for _, c := range plan {
		var args []string
		for _, r := range c.Requests {
			if args != nil {
				args = append(args, "--next")
			}
			args = append(args, curlArguments(t, c, r, body)...)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		begun := millis()
		out, err := ns.Run(ctx, "curl", args...)
		ended := millis()
		cancel()
		if err != nil {
			t.Fatalf("%v: curl %q", err, args)
		}
		for i, text := range strings.Split(strings.TrimSpace(out), "\n") {
			var told struct {
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
			r := c.Requests[i]
			if r.Chunked {
				told.Sent = int64(r.Body) // curl counts the framing, too
			}
			byID[r.ID] = line{
				ID: r.ID, Method: r.Method, Target: r.Target, Status: told.Status, Sent: told.Sent, Received: told.Received,
				Begun: begun, Ended: ended, Local: told.Local, LocalPort: told.From, Peer: told.Remote, PeerPort: told.To,
			}
		}
	}
	return byID, func() {}
}

func curlArguments(t *testing.T, c connection, r asked, body string) []string {
	t.Helper()
	args := []string{
		"--silent", "--show-error", "--noproxy", "*", "--globoff", "--path-as-is", "--max-time", "5", "--output", "/dev/null",
		"--write-out", "%{json}\n", "--user-agent", r.ID, "--header", "Host: " + c.Host,
	}
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
		file := fmt.Sprintf("%s%d", body, r.Body)
		stage.Must(t, os.WriteFile(file, []byte(strings.Repeat("c", r.Body)), 0o600))
		args = append(args, "--data-binary", "@"+file)
	}
	if r.Chunked {
		args = append(args, "--header", "Transfer-Encoding: chunked")
	}
	if r.Expect {
		args = append(args, "--header", "Expect: 100-continue")
	} else {
		args = append(args, "--header", "Expect:")
	}
	if r.old {
		args = append(args, "--http1.0")
	}
	url := fmt.Sprintf("http://%s:%d", c.Address, c.Port)
	if c.Address.Is6() {
		url = fmt.Sprintf("http://[%s]:%d", c.Address, c.Port)
	}
	if strings.HasPrefix(r.Target, "/") {
		return append(args, url+r.Target)
	}
	return append(args, "--request-target", r.Target, url)
}

// curlConnections are HTTP/1.0, whose bodies end with the connection, and other forms of a target.
func curlConnections(s *webServer) []connection {
	old := want("/old?a", 200, 700, "close")
	old.old = true
	oldHead := want("/old", 200, 7, "length").by("HEAD")
	oldHead.old = true
	at := s.connections("curl old", []asked{old}, []asked{oldHead})
	if s.app == nil && !s.files { // nginx takes no asterisk, and passes a target on without its host
		at = append(at, s.connections("curl forms",
			[]asked{want("*", 200, 0, "length").by("OPTIONS")},
			[]asked{want("http://shop.example/abs?q=1", 200, 4, "length"), want("http://shop.example:81/", 404, 4, "length")})...)
		at[3].Host = "shop.example"
	}
	if s.files {
		at[0].Requests[0].Target, at[1].Requests[0].Target = "/large.bin", "/file.txt"
	}
	return at
}

// urllibConnections are requests that close their connection.
func urllibConnections(s *webServer) []connection {
	if s.files {
		return nil
	}
	at := s.connections("urllib", simple, simple)
	for i := range at {
		at[i].Urllib = true
	}
	return at
}
