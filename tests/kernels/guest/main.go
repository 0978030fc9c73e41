// Command guest is process 1 of a kernel booted by package kernels. It runs its checks, reports each as a
// line of JSON and powers off.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/kernels/report"
)

// check is one thing to find out. An error fails it; the details are reported either way.
type check struct {
	name string
	run  func() (detail map[string]string, err error)
}

// A check that hangs must not keep the others from being reported. Emulation is slow.
const checkLimit = 6 * time.Minute

// checksFor are run in this order. The first ones set up what the others need.
func checksFor(expectation string) ([]check, error) {
	checks := []check{
		{report.Kernel, kernel},
		{"mounts", mounts},
		{"modules", modules},
		{"loopback", loopback},
		{report.Features, kernelFeatures},
		{"veth", veth},
	}
	switch expectation {
	case report.Memory:
		return append(checks[:4:4], check{"memory", memoryPressure}), nil
	case report.Refused:
		return append(checks, check{report.Programs, refusedPrograms}, check{report.Refusal, refusal}, check{"doctor", doctor(expectation)}), nil
	case report.ByTCX, report.ByClsact:
		t := &tracing{method: expectation}
		return append(checks, check{report.Traces, t.traces}, check{report.Programs, t.programs}, check{"doctor", doctor(expectation)}), nil
	}
	return nil, fmt.Errorf("what is expected is %q, want %s, %s or %s", expectation, report.ByTCX, report.ByClsact, report.Refused)
}

func main() {
	if os.Getpid() != 1 && len(os.Args) > 1 && roles[os.Args[1]] != nil {
		if err := roles[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is the first process of a test's kernel, and powers it off; run the tests of tests/kernels instead")
		os.Exit(1)
	}
	checks, err := checksFor(strings.Join(os.Args[1:], " "))
	if err != nil {
		checks = []check{{"expectation", func() (map[string]string, error) { return nil, err }}}
	}
	pass := true
	for _, c := range checks {
		line := outcome(c)
		pass = pass && line.Pass
		tell(line)
	}
	tell(report.Line{Check: report.Verdict, Pass: pass})
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		panic(err) // which makes the kernel panic, and ends the emulator
	}
}

func outcome(c check) report.Line {
	done := make(chan report.Line, 1)
	go func() {
		line := report.Line{Check: c.name}
		defer func() {
			if p := recover(); p != nil {
				line.Pass, line.Error = false, fmt.Sprintf("panic: %v", p)
			}
			done <- line
		}()
		detail, err := c.run()
		line.Detail, line.Pass = detail, err == nil
		if err != nil {
			line.Error = err.Error()
		}
	}()
	select {
	case line := <-done:
		return line
	case <-time.After(checkLimit):
		return report.Line{Check: c.name, Error: fmt.Sprintf("no end after %v", checkLimit)}
	}
}

func tell(line report.Line) {
	if err := line.Write(os.Stdout); err != nil {
		panic(err) // without a console nothing can be told
	}
}
