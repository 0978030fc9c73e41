package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/gogo/protobuf/jsonpb"
	"github.com/jaegertracing/jaeger-idl/proto-gen/api_v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// fetchTimeout bounds one question.
	fetchTimeout = 5 * time.Second
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 1 << 20
)

// Client asks one endpoint.
type Client struct {
	endpoint string
	http     *http.Client // nil: gRPC
	conn     *grpc.ClientConn
}

// Schemes are those that an endpoint may have.
const Schemes = "http://HOST:PORT/PATH, https://HOST:PORT/PATH, grpc://HOST:PORT or grpcs://HOST:PORT"

// CheckEndpoint tells what is wrong with an endpoint.
func CheckEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return err
	case u.Host == "":
		return fmt.Errorf("%q has no host", endpoint)
	case u.User != nil:
		return fmt.Errorf("%q has a user", u.Redacted())
	}
	switch u.Scheme {
	case "http", "https":
		return nil
	case "grpc", "grpcs":
		if u.Port() == "" || u.Path != "" || u.RawQuery != "" {
			return fmt.Errorf("%q is no scheme, host and port alone", endpoint)
		}
		return nil
	}
	return fmt.Errorf("%q has the scheme %q", endpoint, u.Scheme)
}

// NewClient makes a client; nothing is asked yet. The path of an http endpoint without one is /sampling.
func NewClient(endpoint string) (*Client, error) {
	if err := CheckEndpoint(endpoint); err != nil {
		return nil, err
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	c := &Client{endpoint: endpoint}
	if u.Scheme == "http" || u.Scheme == "https" {
		if u.Path == "" || u.Path == "/" {
			u.Path = "/sampling"
		}
		c.endpoint = u.String()
		c.http = &http.Client{Timeout: fetchTimeout}
		return c, nil
	}
	transport := insecure.NewCredentials()
	if u.Scheme == "grpcs" {
		transport = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	c.conn, err = grpc.NewClient("dns:///"+u.Host, grpc.WithTransportCredentials(transport), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("prepare to ask %s for sampling strategies: %w", endpoint, err)
	}
	return c, nil
}

// Close lets go of the connection.
func (c *Client) Close() error {
	if c.conn != nil {
		return c.conn.Close()
	}
	c.http.CloseIdleConnections()
	return nil
}

// Fetch asks for the strategy of a service.
func (c *Client) Fetch(ctx context.Context, service string) (Strategy, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	ask := c.askGRPC
	if c.http != nil {
		ask = c.askHTTP
	}
	answer, err := ask(ctx, service)
	if err == nil {
		var s Strategy
		if s, err = strategyOf(answer); err == nil {
			return s, nil
		}
	}
	return Strategy{}, fmt.Errorf("ask %s for the sampling strategy of %q: %w", c.endpoint, service, err)
}

func (c *Client) askGRPC(ctx context.Context, service string) (*api_v2.SamplingStrategyResponse, error) {
	return api_v2.NewSamplingManagerClient(c.conn).GetSamplingStrategy(ctx, &api_v2.SamplingStrategyParameters{ServiceName: service})
}

func (c *Client) askHTTP(ctx context.Context, service string) (*api_v2.SamplingStrategyResponse, error) {
	u, err := url.Parse(c.endpoint)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	query.Set("service", service)
	u.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the answer is %s: %.200q", answer.Status, body)
	}
	var out api_v2.SamplingStrategyResponse
	// Enums come as names or as numbers; fields of later versions are nobody's business.
	decoder := jsonpb.Unmarshaler{AllowUnknownFields: true}
	if err := decoder.Unmarshal(bytes.NewReader(body), &out); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	return &out, nil
}
