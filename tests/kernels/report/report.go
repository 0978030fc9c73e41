// Package report is how a guest tells its host what it found: lines of JSON on the console, each behind
// a mark that tells it from the kernel's messages.
package report

import (
	"encoding/json"
	"fmt"
	"io"
)

const (
	// Mark stands before each line.
	Mark = "@ambit@ "
	// Verdict is the check of the last line, which passes only if all others did.
	Verdict = "verdict"
)

// Line is the outcome of one check.
type Line struct {
	Check  string            `json:"check"`
	Pass   bool              `json:"pass"`
	Error  string            `json:"error,omitempty"`
	Detail map[string]string `json:"detail,omitempty"`
}

// Write prints the line.
func (l Line) Write(to io.Writer) error {
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode the report of %s: %w", l.Check, err)
	}
	// The kernel may have left the console in the middle of a line.
	_, err = fmt.Fprintf(to, "\n%s%s\n", Mark, text)
	return err
}

// What is expected of ambit in a guest: the argument of its first process.
const (
	ByTCX    = "tcx"    // it traces, attached by tcx
	ByClsact = "clsact" // it traces, attached by filters
	Refused  = "refused"
	Memory   = "memory" // it lowers the rates of a workload that lacks memory, and no other's
)

// The checks whose details are read by the host.
const (
	Kernel   = "kernel"
	Features = "features"
	Programs = "programs"
	Refusal  = "refusal"
	Traces   = "ambit"
)
