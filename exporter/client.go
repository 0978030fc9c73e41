package exporter

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	colmetricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The clients tell the number of rejected spans, and a time to wait, in types that only they can read. So the
// collector's answer is read one layer below them, in a gRPC interceptor and an HTTP transport, and reaches
// the sender through the attempt's context. Their own retries are off: each attempt is seen and counted.

type verdict uint8

const (
	// unanswered: no connection, no answer in time, or given up. Worth another attempt.
	unanswered verdict = iota
	delivered
	retryable
	refused
)

// answer is what the collector said to one attempt.
type answer struct {
	verdict  verdict
	throttle time.Duration // it asks to wait so long before the next attempt; 0 is nothing asked
	rejected int64         // spans or data points, of a request delivered in part
	text     string        // its message, "" is none
}

type answerKey struct{}

func withAnswer(ctx context.Context, a *answer) context.Context {
	return context.WithValue(ctx, answerKey{}, a)
}

func answerOf(ctx context.Context) *answer {
	a, _ := ctx.Value(answerKey{}).(*answer)
	return a
}

func (a *answer) partial(r *coltracepb.ExportTraceServiceResponse) {
	p := r.GetPartialSuccess()
	a.rejected, a.text = p.GetRejectedSpans(), p.GetErrorMessage()
}

const (
	// reconnectDelay bounds gRPC's own waiting between two connections, which is minutes otherwise: attempts
	// of ours that fall into it fail at once.
	reconnectDelay = 2 * time.Second
	connectTimeout = 10 * time.Second
	// unackedTimeout ends a connection whose peer vanished without a word, as a deleted pod does, after data
	// went unacknowledged for so long; TCP alone takes a quarter of an hour.
	unackedTimeout = 20 * time.Second
	// pingInterval is what collectors allow at the most. It only turns unackedTimeout on.
	pingInterval = 6 * time.Minute
	// maxAnswer bounds what is read of an HTTP answer.
	maxAnswer = 64 << 10
)

// newClient makes the client for set, not started, and what closes its idle connections.
func newClient(set settings) (otlptrace.Client, func()) {
	if set.protocol == protocolGRPC {
		return newGRPCClient(set), func() {}
	}
	return newHTTPClient(set)
}

func newGRPCClient(set settings) otlptrace.Client {
	opts := []otlptracegrpc.Option{
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: false}),
		otlptracegrpc.WithTimeout(set.timeout),
		otlptracegrpc.WithDialOption(
			grpc.WithChainUnaryInterceptor(sendPayload, readGRPCAnswer),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newPayloadCodec())),
			connectOptions(),
			keepaliveOptions(),
		),
	}
	if u := set.endpoint; u != nil {
		opts = append(opts, otlptracegrpc.WithEndpointURL(u.String()))
		if u.Scheme == "http" {
			// Certificates in the environment would turn TLS on against the URL's word.
			opts = append(opts, otlptracegrpc.WithTLSCredentials(insecure.NewCredentials()))
		}
	}
	return otlptracegrpc.NewClient(opts...)
}

func connectOptions() grpc.DialOption {
	connect := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}
	connect.Backoff.MaxDelay = reconnectDelay
	return grpc.WithConnectParams(connect)
}

func keepaliveOptions() grpc.DialOption {
	return grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: unackedTimeout})
}

// sendPayload puts the payload in the place of the client's message.
func sendPayload(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if p := payloadOf(ctx); p != nil {
		req = p
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// readGRPCAnswer notes the answer.
func readGRPCAnswer(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	a := answerOf(ctx)
	if a == nil {
		return err
	}
	if err == nil {
		a.verdict = delivered
		switch r := reply.(type) {
		case *coltracepb.ExportTraceServiceResponse:
			a.partial(r)
		case *colmetricspb.ExportMetricsServiceResponse:
			a.rejected, a.text = r.GetPartialSuccess().GetRejectedDataPoints(), r.GetPartialSuccess().GetErrorMessage()
		}
		return nil
	}
	st := status.Convert(err)
	a.text = fmt.Sprintf("%s: %s", st.Code(), st.Message())
	var told bool
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			told, a.throttle = true, info.GetRetryDelay().AsDuration()
		}
	}
	// The list is OTLP's own.
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		a.verdict = retryable
	case codes.ResourceExhausted:
		a.verdict = refused
		if told {
			a.verdict = retryable
		}
	default:
		a.verdict = refused
	}
	return err
}

func newHTTPClient(set settings) (otlptrace.Client, func()) {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = set.tls
	opts := []otlptracehttp.Option{
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}),
		otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: answerTransport{base}, Timeout: set.timeout}),
	}
	if u := set.endpoint; u != nil {
		opts = append(opts,
			otlptracehttp.WithEndpointURL(u.String()),
			otlptracehttp.WithURLPath(tracesPath(u.Path)))
		if u.Scheme == "http" {
			opts = append(opts, otlptracehttp.WithTLSClientConfig(nil))
		}
	}
	return otlptracehttp.NewClient(opts...), base.CloseIdleConnections
}

// answerTransport reads the collector's answers on their way to the client.
type answerTransport struct{ base http.RoundTripper }

func (t answerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	a := answerOf(req.Context())
	if err != nil || a == nil {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read the collector's answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	*a = answer{}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		a.verdict = retryable
		a.throttle = retryAfter(resp.Header.Get("Retry-After"), time.Now())
		return resp, nil
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		a.verdict = refused
		return resp, nil
	}
	a.verdict = delivered
	// On the wire the answer to metrics is the same message.
	var r coltracepb.ExportTraceServiceResponse
	if resp.Header.Get("Content-Type") == "application/json" {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, &r)
	} else {
		err = proto.Unmarshal(body, &r)
	}
	if err == nil {
		a.partial(&r)
	}
	return resp, nil
}

// retryAfter reads the header's seconds or date; 0 is none.
func retryAfter(v string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
