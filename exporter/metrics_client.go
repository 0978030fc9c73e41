package exporter

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// metricsClient is one of OpenTelemetry's exporters. Their retries are off: what was not delivered goes with the next
// export.
type metricsClient struct {
	exporter interface {
		Export(context.Context, *metricdata.ResourceMetrics) error
		Shutdown(context.Context) error
	}
	idle func() // closes idle connections
}

func newMetricsClient(ctx context.Context, set settings) (metricsClient, error) {
	if set.protocol == protocolGRPC {
		return newMetricsGRPC(ctx, set)
	}
	return newMetricsHTTP(ctx, set)
}

func newMetricsGRPC(ctx context.Context, set settings) (metricsClient, error) {
	opts := []otlpmetricgrpc.Option{
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: false}),
		otlpmetricgrpc.WithTimeout(set.timeout),
		otlpmetricgrpc.WithDialOption(grpc.WithChainUnaryInterceptor(readGRPCAnswer), connectOptions(), keepaliveOptions()),
	}
	if u := set.endpoint; u != nil {
		opts = append(opts, otlpmetricgrpc.WithEndpointURL(u.String()))
		if u.Scheme == "http" {
			// Certificates in the environment would turn TLS on against the URL's word.
			opts = append(opts, otlpmetricgrpc.WithTLSCredentials(insecure.NewCredentials()))
		}
	}
	e, err := otlpmetricgrpc.New(ctx, opts...)
	return metricsClient{e, func() {}}, err
}

func newMetricsHTTP(ctx context.Context, set settings) (metricsClient, error) {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = set.tls
	opts := []otlpmetrichttp.Option{
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: false}),
		otlpmetrichttp.WithHTTPClient(&http.Client{Transport: answerTransport{base}, Timeout: set.timeout}),
	}
	if u := set.endpoint; u != nil {
		opts = append(opts,
			otlpmetrichttp.WithEndpointURL(u.String()),
			otlpmetrichttp.WithURLPath(metricsPath(u.Path)))
		if u.Scheme == "http" {
			opts = append(opts, otlpmetrichttp.WithTLSClientConfig(nil))
		}
	}
	e, err := otlpmetrichttp.New(ctx, opts...)
	return metricsClient{e, base.CloseIdleConnections}, err
}

// export sends once. It returns how many data points of those the collector did not take, though it took the request.
func (c metricsClient) export(ctx context.Context, m *metricdata.ResourceMetrics) (rejected int64, err error) {
	var a answer
	err = c.exporter.Export(withAnswer(ctx, &a), m)
	if a.verdict == delivered {
		return a.rejected, nil // the exporters make an error of a partial success
	}
	if err == nil {
		return 0, errors.New("no answer was seen")
	}
	return 0, fmt.Errorf("send metrics: %w", err)
}

func (c metricsClient) close(ctx context.Context) error {
	err := c.exporter.Shutdown(ctx)
	c.idle()
	if err != nil {
		return fmt.Errorf("close the connection of metrics: %w", err)
	}
	return nil
}
