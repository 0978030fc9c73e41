// Package sampling holds the sampling engine to real traffic: what it keeps counts back to what was sent, what it counts
// is what was sent, its budgets hold when everything fails, and its rules change while requests are under way.
package sampling

import (
	"os"
	"testing"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

func TestMain(m *testing.M) {
	harness.Roles{
		"serve": serve, "serve-next": serve, "serve-h2": serveH2,
		"load": load,
	}.Dispatch()
	os.Exit(stage.Main(m))
}
