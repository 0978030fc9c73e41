package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Service is what a set of counters belongs to. The zero Service is "other": what the table had no room for.
type Service struct {
	NetNS  uint64 // network namespace cookie
	Cgroup uint64 // cgroup v2 id
	Comm   string // name of the process that made the socket
}

// Services tells whose index, party.service, is whose. Index 0 is "other", the zero Service.
func (k *Kernel) Services() (map[uint16]Service, error) {
	return services(k.objs.Services)
}

// services reads every service that has had traffic, by its index. An index is never given to another service.
func services(m *ebpf.Map) (map[uint16]Service, error) {
	out := map[uint16]Service{0: {}}
	var key ambitServiceKey
	var index uint32
	it := m.Iterate()
	for it.Next(&key, &index) {
		out[uint16(index)] = Service{NetNS: key.Netns, Cgroup: key.Cgroup, Comm: commString(&key.Comm)}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read the services: %w", err)
	}
	return out, nil
}
