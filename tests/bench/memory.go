package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambit/admin"
	"ambit/tests/harness"
)

// memoryTarget is for everything that ambit holds, in MiB.
const memoryTarget = 64

const mib = 1 << 20

// measureMemory has many connections open in one namespace, both ends of each an application's, each with one
// exchange behind it, of which every span was sent.
func measureMemory(_ context.Context, s *settings, r *report) error {
	return inLab(func(lab *harness.Lab) error {
		ns, err := lab.Namespace("lo")
		if err != nil {
			return err
		}
		host, err := lab.Host()
		if err != nil {
			return err
		}
		receiver, err := startWorker(host, receiverRole)
		if err != nil {
			return err
		}
		a, err := startAmbit(lab, host, s.binary, receiver.ready, 1, ns)
		if err != nil {
			return err
		}
		idle, err := a.status()
		if err != nil {
			return err
		}
		idleMapped, err := mappedMaps(a.Process)
		if err != nil {
			return err
		}
		server, err := startWorker(ns, serverRole, "http", fmt.Sprint(trafficPort))
		if err != nil {
			return err
		}
		client, err := startWorker(ns, clientRole, "http", fmt.Sprintf("127.0.0.1:%d", trafficPort), fmt.Sprint(s.connections), "hold")
		if err != nil {
			return err
		}
		// The kernel's own count of map memory lags behind by batches.
		time.Sleep(time.Second)
		status, err := a.settled()
		if err != nil {
			return err
		}
		if seen := status.Exchanges.Seen; seen != 2*uint64(s.connections) {
			return fmt.Errorf("ambit saw %d exchange sides of %d connections, want two of each; it counted %v", seen, s.connections, status.Events)
		}
		mapped, err := mappedMaps(a.Process)
		if err != nil {
			return err
		}
		for _, w := range []*worker{client, server} {
			if _, err := w.stop(); err != nil {
				return err
			}
		}
		if err := a.stop(); err != nil {
			return err
		}
		if _, err := receiver.stop(); err != nil {
			return err
		}
		r.add(
			row{
				Part: "memory", Name: fmt.Sprintf("%d connections open", s.connections), Value: total(&status, mapped), Unit: "MiB",
				Bound: "<=", Target: memoryTarget, Note: memoryNote(&status, mapped),
			},
			row{Part: "memory", Name: "none open, nothing traced yet", Value: total(&idle, idleMapped), Unit: "MiB", Note: memoryNote(&idle, idleMapped)},
		)
		return nil
	})
}

// total is all that ambit holds, in MiB. What the process has mapped of its maps is among them, and counts once.
func total(s *admin.Status, mapped uint64) float64 {
	return float64(s.Memory.ProcessRSS-mapped+s.Memory.MapsBytes+s.Memory.SocketStorage) / mib
}

// memoryNote says what the sum is made of, and which maps are the largest.
func memoryNote(s *admin.Status, mapped uint64) string {
	maps := slices.Clone(s.Memory.Maps)
	slices.SortFunc(maps, func(a, b admin.MapMemory) int { return int(b.Bytes) - int(a.Bytes) })
	var largest []string
	for _, m := range maps[:min(3, len(maps))] {
		largest = append(largest, fmt.Sprintf("%s %.1f", m.Name, float64(m.Bytes)/mib))
	}
	note := fmt.Sprintf("process %.1f without %.1f of mapped maps, maps %.1f (%s), at sockets %.1f",
		float64(s.Memory.ProcessRSS-mapped)/mib, float64(mapped)/mib, float64(s.Memory.MapsBytes)/mib, strings.Join(largest, ", "), float64(s.Memory.SocketStorage)/mib)
	for reason, n := range s.Exchanges.Dropped {
		if n > 0 {
			note += fmt.Sprintf("; %d exchange sides dropped: %s", n, reason)
		}
	}
	return note
}
