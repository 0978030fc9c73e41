// Package steer holds the controller of rates to real traffic through the kernel: a budget is spent and not exceeded while
// the load changes tenfold, a hog costs its own workload its spans and nobody else's, and rates survive a restart.
package steer

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	harness.Roles{"front": serve, "back": serve, "hog": hog, "ask": ask}.Dispatch()
	os.Exit(stage.Main(m))
}

// pin keeps this process on one processor; "" leaves it everywhere.
func pin(cpu string) error {
	if cpu == "" {
		return nil
	}
	n, err := strconv.Atoi(cpu)
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(n)
	// Each thread has its own: those that there are, and what they start has theirs.
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil {
			return fmt.Errorf("pin thread %d to processor %d: %w", id, n, err)
		}
	}
	return nil
}

// serve is the role of a server: its port, and the processor that it is to stay on. The path /slow/DURATION takes that long.
func serve(args []string) error {
	if err := pin(args[1]); err != nil {
		return err
	}
	return http.ListenAndServe(":"+args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, slow := strings.CutPrefix(r.URL.Path, "/slow/"); slow {
			if d, err := time.ParseDuration(text); err == nil {
				time.Sleep(d)
			}
		}
		fmt.Fprint(w, "ok")
	}))
}

// hog is the role of a process whose threads all want the processor that it is pinned to.
func hog(args []string) error {
	if err := pin(args[0]); err != nil {
		return err
	}
	var turns [3]atomic.Uint64
	for i := range turns {
		go func() {
			for {
				turns[i].Add(1)
			}
		}()
	}
	select {}
}

// ask is the role of a client: an address, and how many requests a second it sends until it is killed.
func ask(args []string) error {
	rate, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4, DialContext: (&net.Dialer{}).DialContext}}
	for range time.Tick(time.Second / time.Duration(rate)) {
		answer, err := client.Get("http://" + args[0] + "/work")
		if err != nil {
			return err
		}
		answer.Body.Close()
	}
	return nil
}
