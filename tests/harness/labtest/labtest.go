// Package labtest ties labs to tests: they end with the test, and a lab that leaves something fails it.
package labtest

import (
	"testing"

	"ambit/tests/harness"
)

// New makes a lab that is closed when the test ends.
func New(tb testing.TB) *harness.Lab {
	tb.Helper()
	lab, err := harness.New(harness.Config{Prefix: "h"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := lab.Close(); err != nil {
			tb.Errorf("close the lab: %v", err)
		}
	})
	return lab
}
