package remote

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// maxServices bounds the services that are asked for.
const maxServices = 1024

// Poller asks for the strategies of services each interval, and remembers the latest of each for as long as the service is
// wanted: what an endpoint said holds on while it is away, as it does in SDKs.
type Poller struct {
	client   *Client
	interval time.Duration
	log      *slog.Logger
	wake     chan struct{}

	mu         sync.Mutex
	wanted     []string
	strategies map[string]Strategy
	stats      Stats
}

// Stats count since the start.
type Stats struct {
	Fetched, Failed uint64
	Services        int // that have a strategy
	LastError       string
	LastErrorAt     time.Time
}

// NewPoller makes a poller; Run does the work.
func NewPoller(client *Client, interval time.Duration, log *slog.Logger) *Poller {
	return &Poller{client: client, interval: interval, log: log, wake: make(chan struct{}, 1), strategies: make(map[string]Strategy)}
}

// Want says which services there are. New ones are asked for soon.
func (p *Poller) Want(services []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(services) > maxServices {
		services = services[:maxServices]
	}
	known := make(map[string]bool, len(services))
	fresh := false
	for _, s := range services {
		known[s] = true
		fresh = fresh || !slices.Contains(p.wanted, s)
	}
	for s := range p.strategies {
		if !known[s] {
			delete(p.strategies, s)
		}
	}
	if len(p.wanted) != len(services) || fresh {
		p.wanted = slices.Clone(services)
	}
	if fresh {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// Of is the latest strategy of a service; false where none is known.
func (p *Poller) Of(service string) (Strategy, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.strategies[service]
	return s, ok
}

// Stats tells how it fares.
func (p *Poller) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Services = len(p.strategies)
	return s
}

// Run asks until ctx ends.
func (p *Poller) Run(ctx context.Context) {
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	failing := false
	for {
		anew := true
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			anew = false // the others have their turn at the next tick
		case <-tick.C:
		}
		err := p.round(ctx, anew)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			p.log.Warn("remote sampling strategies are not told: those that are known hold on", "error", err)
		} else if err == nil && failing {
			p.log.Info("remote sampling strategies are told again")
		}
		failing = err != nil
	}
}

// round asks for the strategy of each service, of those alone that have none where all is false. The first error ends it:
// who does not answer for one will not for the others.
func (p *Poller) round(ctx context.Context, all bool) error {
	p.mu.Lock()
	var due []string
	for _, s := range p.wanted {
		if _, known := p.strategies[s]; all || !known {
			due = append(due, s)
		}
	}
	p.mu.Unlock()
	for _, service := range due {
		strategy, err := p.client.Fetch(ctx, service)
		p.mu.Lock()
		if err != nil {
			p.stats.Failed++
			p.stats.LastError, p.stats.LastErrorAt = err.Error(), time.Now()
			p.mu.Unlock()
			return err
		}
		p.stats.Fetched++
		if slices.Contains(p.wanted, service) {
			p.strategies[service] = strategy
		}
		p.mu.Unlock()
	}
	return nil
}
