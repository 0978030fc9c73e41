package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// Service is what a set of RED counters belongs to. The zero Service is "other": what the table had no room for.
type Service struct {
	NetNS  uint64 // network namespace cookie
	Cgroup uint64 // cgroup v2 id
	Comm   string // name of the process that made the socket
}

// RED counts the exchanges of one service, kind and class, kept or not.
type RED struct {
	Service Service
	Kind    int // SideOpener or SideAcceptor
	Class   int // first digit of the status; 0 is none
	Count   uint64
	Errors  uint64
	Sum     time.Duration
	// Octaves counts latencies below 2^i microseconds and not below half of it; the last has no upper end.
	Octaves []uint64
}

// REDOctaves is the length of RED.Octaves.
const REDOctaves = 27

// Services tells whose index, party.service, is whose. Index 0 is "other", the zero Service.
func (k *Kernel) Services() (map[uint32]Service, error) {
	services := map[uint32]Service{0: {}}
	var key ambitServiceKey
	var index uint32
	it := k.objs.Services.Iterate()
	for it.Next(&key, &index) {
		services[index] = Service{NetNS: key.Netns, Cgroup: key.Cgroup, Comm: commString(&key.Comm)}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read the services: %w", err)
	}
	return services, nil
}

// REDs reads the counters of every service that has had traffic.
func (k *Kernel) REDs() ([]RED, error) {
	services, err := k.Services()
	if err != nil {
		return nil, err
	}
	const classes = 6
	var out []RED
	var r ambitRed
	for index, service := range services {
		for kind := range Sides {
			for class := range classes {
				at := (index*uint32(Sides)+uint32(kind))*classes + uint32(class)
				if err := k.objs.Reds.Lookup(at, &r); err != nil {
					return nil, fmt.Errorf("read the counters of service %d: %w", index, err)
				}
				var count uint64
				for _, n := range r.Buckets {
					count += n
				}
				if count == 0 {
					continue
				}
				out = append(out, RED{
					Service: service, Kind: kind, Class: class,
					Count: count, Errors: r.Errors, Sum: time.Duration(r.SumNs),
					Octaves: octaves(r.Buckets[:]),
				})
			}
		}
	}
	return out, nil
}

// octaves sums the two steps of each octave: bucket 0 is below 1 us, bucket 1+2i+s of octave i.
func octaves(buckets []uint64) []uint64 {
	out := make([]uint64, REDOctaves)
	out[0] = buckets[0]
	for i, n := range buckets[1:] {
		out[min(i/2+1, REDOctaves-1)] += n
	}
	return out
}
