package tc

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func startSleepers(b *testing.B, count int) {
	for range count {
		sleeper := exec.Command("sleep", "600")
		if err := sleeper.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() })
	}
}

// BenchmarkScan is one scan on a host with 500 processes and 100 named namespaces.
func BenchmarkScan(b *testing.B) {
	const processes, namespaces = 500, 100
	startSleepers(b, processes)
	for i := range namespaces {
		makeNetns(b, fmt.Sprintf("t%d", i))
	}
	h, err := openHome()
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	for _, all := range []bool{true, false} {
		b.Run(fmt.Sprintf("processes %t", all), func(b *testing.B) {
			f := &finder{home: h, dirs: namedDirs, log: quiet(), procs: make(map[int]process)}
			if _, err := f.scan(true, true); err != nil {
				b.Fatal(err)
			}
			var cost time.Duration
			for b.Loop() {
				found, err := f.scan(all, all)
				if err != nil || len(found.spaces) != 1+namespaces {
					b.Fatalf("found %d namespaces: %v", len(found.spaces), err)
				}
				cost += found.cost
			}
			b.ReportMetric(float64(cost.Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// BenchmarkIdle is what following 250 tapped namespaces with 300 processes costs while nothing changes.
func BenchmarkIdle(b *testing.B) {
	const processes, namespaces = 300, 250
	startSleepers(b, processes)
	for i := range namespaces {
		makeNetns(b, fmt.Sprintf("t%d", i))
	}
	// One program for all: it is attaching that is measured.
	for _, events := range []bool{true, false} {
		b.Run(fmt.Sprintf("events %t", events), func(b *testing.B) {
			taps, err := New(Config{Load: newRecorder().load, Log: quiet()})
			if err != nil {
				b.Fatal(err)
			}
			defer taps.Close()
			if !events {
				unix.Close(taps.watch.events)
				taps.watch.events = -1
			}
			began := time.Now()
			if err := taps.Start(); err != nil {
				b.Fatal(err)
			}
			started := time.Since(began)
			before := processTime(b)
			for b.Loop() {
				time.Sleep(time.Second)
			}
			used := processTime(b) - before
			b.ReportMetric(100*used.Seconds()/b.Elapsed().Seconds(), "%core")
			b.ReportMetric(float64(started.Milliseconds()), "start-ms")
			began = time.Now()
			taps.Close()
			b.ReportMetric(float64(time.Since(began).Milliseconds()), "close-ms")
		})
	}
}

func processTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
