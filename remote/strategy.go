// Package remote speaks Jaeger's remote sampling protocol, both ways: a Poller takes rates from an endpoint, such as an
// OpenTelemetry Collector's jaegerremotesampling extension or Jaeger itself, and a Server gives rates to SDKs.
//
//	Poller: each interval, of each service -> Client.Fetch -> Strategy     one goroutine
//	Server: GET /sampling?service=NAME, or gRPC -> Lookup -> Strategy      one port for both
package remote

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/jaegertracing/jaeger-idl/proto-gen/api_v2"
)

// Strategy is how the traces of one service are to be sampled.
type Strategy struct {
	// Default is the probability where no operation's holds, 0 to 1.
	Default float64
	// PerSecond is the most traces per second of the service, in the place of Default; 0 is no such limit.
	PerSecond float64
	// LowerBound is how many traces per second each operation is to have at the least; 0 is none.
	LowerBound float64
	// Operations are probabilities by the name of the operation, which is the name of the root span.
	Operations map[string]float64
}

// maxOperations bounds those of one service. More are refused: whose they would be is anybody's guess.
const maxOperations = 4096

// Rate is the probability for an operation that goes by any of these names. offered is the load of the operation, and all
// that of the service, both per second.
func (s *Strategy) Rate(offered, all float64, names ...string) float64 {
	rate := s.Default
	if s.PerSecond > 0 {
		rate = 1
		if all > s.PerSecond {
			rate = s.PerSecond / all
		}
	}
	for _, name := range names {
		if p, ok := s.Operations[name]; ok {
			rate = p
			break
		}
	}
	if s.LowerBound > 0 && offered > 0 {
		rate = max(rate, min(1, s.LowerBound/offered))
	}
	return rate
}

// strategyOf reads an answer, whose fields tell more than its type, as the protocol says.
func strategyOf(r *api_v2.SamplingStrategyResponse) (Strategy, error) {
	probability := func(what string, p float64) (float64, error) {
		if !(p >= 0 && p <= 1) {
			return 0, fmt.Errorf("%s is %v, which is no probability", what, p)
		}
		return p, nil
	}
	var s Strategy
	var err error
	switch {
	case r.OperationSampling != nil:
		o := r.OperationSampling
		if s.Default, err = probability("the default", o.DefaultSamplingProbability); err != nil {
			return Strategy{}, err
		}
		if b := o.DefaultLowerBoundTracesPerSecond; !(b >= 0) || math.IsInf(b, 0) {
			return Strategy{}, fmt.Errorf("the lower bound is %v traces per second", b)
		}
		s.LowerBound = o.DefaultLowerBoundTracesPerSecond
		if len(o.PerOperationStrategies) > maxOperations {
			return Strategy{}, fmt.Errorf("%d operations are too many, at most %d are taken", len(o.PerOperationStrategies), maxOperations)
		}
		s.Operations = make(map[string]float64, len(o.PerOperationStrategies))
		for _, one := range o.PerOperationStrategies {
			if one == nil || one.ProbabilisticSampling == nil {
				continue
			}
			p, err := probability(fmt.Sprintf("that of %q", one.Operation), one.ProbabilisticSampling.SamplingRate)
			if err != nil {
				return Strategy{}, err
			}
			s.Operations[one.Operation] = p
		}
	case r.RateLimitingSampling != nil && (r.ProbabilisticSampling == nil || r.StrategyType == api_v2.SamplingStrategyType_RATE_LIMITING):
		n := r.RateLimitingSampling.MaxTracesPerSecond
		if n < 0 {
			return Strategy{}, fmt.Errorf("the limit is %d traces per second", n)
		}
		s.PerSecond = float64(n) // 0 keeps none: Default is 0
	case r.ProbabilisticSampling != nil:
		if s.Default, err = probability("it", r.ProbabilisticSampling.SamplingRate); err != nil {
			return Strategy{}, err
		}
	default:
		return Strategy{}, fmt.Errorf("the answer has no strategy")
	}
	return s, nil
}

// response is the answer for a strategy.
func (s *Strategy) response() *api_v2.SamplingStrategyResponse {
	o := &api_v2.PerOperationSamplingStrategies{
		DefaultSamplingProbability: s.Default, DefaultLowerBoundTracesPerSecond: s.LowerBound,
	}
	for _, name := range slices.Sorted(maps.Keys(s.Operations)) {
		o.PerOperationStrategies = append(o.PerOperationStrategies, &api_v2.OperationSamplingStrategy{
			Operation: name, ProbabilisticSampling: &api_v2.ProbabilisticSamplingStrategy{SamplingRate: s.Operations[name]},
		})
	}
	return &api_v2.SamplingStrategyResponse{
		StrategyType: api_v2.SamplingStrategyType_PROBABILISTIC, OperationSampling: o,
	}
}
