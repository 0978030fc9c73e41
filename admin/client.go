package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// maxAnswer bounds what a client reads: 64 MiB.
	maxAnswer = 64 << 20
)

// Client talks to a daemon through its socket. Errors are one line that says what to do.
type Client struct {
	path string
	http *http.Client
}

// Dial finds the daemon at the socket.
func Dial(path string) (*Client, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	dial := func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
	conn, err := dial(context.Background())
	if err != nil {
		return nil, unreachable(path, err)
	}
	conn.Close()
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true,
	}}}, nil
}

func unreachable(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf(`the daemon is not running: there is no socket %s: start it with "ambit run", or name its socket with --socket`, path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf(`the daemon is not running: nobody listens on the socket %s: start it with "ambit run", or name its socket with --socket`, path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("permission denied on the socket %s: it is for root: run this as root", path)
	}
	var number syscall.Errno
	if errors.As(err, &number) {
		err = number
	}
	return fmt.Errorf("connect to the socket %s: %w", path, err)
}

// Status returns the daemon's state and counters.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Rates returns the rates in force.
func (c *Client) Rates(ctx context.Context, q RatesQuery) (r Rates, err error) {
	values := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	for name, v := range map[string]string{"service": q.Service, "route": q.Route} {
		if v != "" {
			values.Set(name, v)
		}
	}
	return r, c.call(ctx, http.MethodGet, "/v1/rates?"+values.Encode(), nil, &r)
}

// SetRates puts a share of traces, 0 to 1, above the rates of all rules in the running kernel.
func (c *Client) SetRates(ctx context.Context, share float64) (r Rates, err error) {
	return r, c.call(ctx, http.MethodPut, "/v1/rates", rateChange{&share}, &r)
}

// ClearRates takes away what SetRates put there.
func (c *Client) ClearRates(ctx context.Context) (r Rates, err error) {
	return r, c.call(ctx, http.MethodDelete, "/v1/rates", nil, &r)
}

// Rules returns the rules in force.
func (c *Client) Rules(ctx context.Context) (r RuleSet, err error) {
	return r, c.call(ctx, http.MethodGet, "/v1/rules", nil, &r)
}

// Reload lets the daemon read its configuration anew and returns the rules in force then.
func (c *Client) Reload(ctx context.Context) (r RuleSet, err error) {
	return r, c.call(ctx, http.MethodPost, "/v1/reload", nil, &r)
}

// Force keeps the spans of some requests for a while.
func (c *Client) Force(ctx context.Context, request ForceRequest) (f Forcing, err error) {
	return f, c.call(ctx, http.MethodPost, "/v1/forced", request, &f)
}

// Forcing tells how that fares.
func (c *Client) Forcing(ctx context.Context, id string) (f Forcing, err error) {
	return f, c.call(ctx, http.MethodGet, "/v1/forced/"+url.PathEscape(id), nil, &f)
}

// Unforce ends it.
func (c *Client) Unforce(ctx context.Context, id string) (f Forcing, err error) {
	return f, c.call(ctx, http.MethodDelete, "/v1/forced/"+url.PathEscape(id), nil, &f)
}

// Pause detaches everything and returns the state then.
func (c *Client) Pause(ctx context.Context) (State, error) { return c.change(ctx, "/v1/pause") }

// Resume attaches everything again and returns the state then.
func (c *Client) Resume(ctx context.Context) (State, error) { return c.change(ctx, "/v1/resume") }

// HandOver has the daemon leave everything to the caller, which is another daemon, and returns the state then.
func (c *Client) HandOver(ctx context.Context) (State, error) { return c.change(ctx, "/v1/handover") }

func (c *Client) change(ctx context.Context, path string) (State, error) {
	var a stateAnswer
	err := c.call(ctx, http.MethodPost, path, nil, &a)
	return a.State, err
}

// Top returns the routes; it may take a second.
func (c *Client) Top(ctx context.Context) (t Top, err error) {
	return t, c.call(ctx, http.MethodGet, "/v1/top", nil, &t)
}

// Traces returns the latest n traces, 1 to MaxTraces, newest first.
func (c *Client) Traces(ctx context.Context, n int) (t []TraceSummary, err error) {
	return t, c.call(ctx, http.MethodGet, "/v1/traces?n="+strconv.Itoa(n), nil, &t)
}

// Trace returns one trace with its spans, by its ID or the first digits of it. width is the columns of its waterfall, from 0, which leaves them
// to the daemon, to 1000.
func (c *Client) Trace(ctx context.Context, id string, width int) (t TraceDetail, err error) {
	return t, c.call(ctx, http.MethodGet, fmt.Sprintf("/v1/traces/%s?width=%d", url.PathEscape(id), width), nil, &t)
}

// call decodes the answer into result. An answer that is no success becomes an *Error.
func (c *Client) call(ctx context.Context, method, path string, body, result any) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout+dialTimeout)
	defer cancel()
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("ask the daemon: %w", err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://ambit"+path, content)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.broken(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return c.broken(err)
	case len(text) > maxAnswer:
		return fmt.Errorf("the answer on the socket %s has more than %d bytes", c.path, maxAnswer)
	case response.StatusCode != http.StatusOK:
		var e errorAnswer
		if json.Unmarshal(text, &e) != nil || e.Error == "" {
			e.Error = fmt.Sprintf("the daemon at the socket %s answered %s %s with %d: is it ambit, and of this version?", c.path, method, path, response.StatusCode)
		}
		return &Error{response.StatusCode, e.Error}
	}
	if err := json.Unmarshal(text, result); err != nil {
		return fmt.Errorf("the answer on the socket %s cannot be read, is the daemon of this version? %w", c.path, err)
	}
	return nil
}

// broken words an error in the middle of a call.
func (c *Client) broken(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return unreachable(c.path, err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the daemon at the socket %s does not answer: its log may say why", c.path)
	}
	var request *url.Error // would repeat an address that is none
	if errors.As(err, &request) {
		err = request.Err
	}
	return fmt.Errorf("the daemon at the socket %s broke off: %w", c.path, err)
}
