package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// refusal demands that ambit ends by itself, with one line that says what is missing, and leaves nothing.
func refusal() (map[string]string, error) {
	p, err := newPair("ambit", 2)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	d, err := startDaemon("--namespaces", p[0].name+","+p[1].name)
	if err != nil {
		return nil, err
	}
	select {
	case <-d.ended:
	case <-time.After(startLimit):
		return nil, errors.Join(fmt.Errorf("ambit has not ended after %v: %s", startLimit, d.log.String()), d.process.Process.Kill())
	}
	detail := map[string]string{"log": d.log.String()}
	if !errors.As(d.result, new(*exec.ExitError)) {
		return detail, fmt.Errorf("ambit did not end with an error, but with %v", d.result)
	}
	lines := strings.Split(string(bytes.TrimSpace(d.log.Bytes())), "\n")
	detail["line"] = lines[len(lines)-1]
	if len(lines) != 1 || !strings.Contains(lines[0], "is too old: ambit needs 6.1 or newer; this one has no") {
		return detail, fmt.Errorf("ambit ended with %d lines, want one that says what is missing:\n%s", len(lines), d.log.String())
	}
	return detail, p.nothingLeft()
}
