package stage

import (
	"context"
	"fmt"
	"sync"

	colmetricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
)

// Histogram is a data point of an exponential histogram as it came over OTLP: bucket i holds values above
// 2^((Offset+i)/2^Scale) and up to 2^((Offset+i+1)/2^Scale).
type Histogram struct {
	Name       string
	Attributes map[string]any
	Resource   map[string]any
	Count      uint64
	Zero       uint64
	Scale      int32
	Offset     int32
	Buckets    []uint64
}

// metrics is a receiver that keeps the latest of each data point.
type metrics struct {
	colmetricspb.UnimplementedMetricsServiceServer

	mu     sync.Mutex
	latest map[string]Histogram // by name, resource and attributes
}

// Export takes a batch.
func (m *metrics) Export(_ context.Context, req *colmetricspb.ExportMetricsServiceRequest) (*colmetricspb.ExportMetricsServiceResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.latest == nil {
		m.latest = make(map[string]Histogram)
	}
	for _, rm := range req.ResourceMetrics {
		resource := values(rm.Resource.GetAttributes())
		for _, sm := range rm.ScopeMetrics {
			for _, metric := range sm.Metrics {
				for _, p := range metric.GetExponentialHistogram().GetDataPoints() {
					h := Histogram{
						Name: metric.Name, Attributes: values(p.Attributes), Resource: resource, Count: p.Count, Zero: p.ZeroCount,
						Scale: p.Scale, Offset: p.Positive.GetOffset(), Buckets: p.Positive.GetBucketCounts(),
					}
					m.latest[fmt.Sprint(h.Name, h.Resource, h.Attributes)] = h // maps are printed in order
				}
			}
		}
	}
	return &colmetricspb.ExportMetricsServiceResponse{}, nil
}

// Histograms are the latest exponential histograms that came over OTLP.
func (s *Stage) Histograms() (all []Histogram) {
	m := &s.collector.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.latest {
		all = append(all, h)
	}
	return all
}
