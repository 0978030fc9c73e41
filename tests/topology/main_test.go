// Package topology tests ambit, as the program that is shipped, over the ways that requests take: inside one
// namespace, between two, behind service addresses and through the ambient pair. It counts exactly: every request
// is one span on each side or it is told why not.
package topology

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
	harness.Roles{
		harness.ZtunnelRole: harness.Ztunnel,
		serveRole:           serve,
		loadRole:            load,
	}.Dispatch()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ambit-topology-")
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
