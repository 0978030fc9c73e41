// Package faults tests what ambit does when something is wrong: with the collector, with the machine, with the way
// in which it is started or ended. It runs the program that is shipped, as root, with a real OTLP receiver and
// real traffic over the loopback of network namespaces of its own.
package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ambit/tests/harness"
)

// binary is the path of the ambit under test.
var binary string

func TestMain(m *testing.M) {
	harness.Roles{serveRole: serve, loadRole: load}.Dispatch()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ambit-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ambit")
	build := exec.Command("go", "build", "-o", binary, "ambit/cmd/ambit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build ambit: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
