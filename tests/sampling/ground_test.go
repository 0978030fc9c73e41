package sampling

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

const port = 8080

// ringFlag makes room for all spans of a test, where it looks at each: others may have the processors for a while, and a
// ring buffer that fills up raises thresholds.
const ringFlag = "--ring-size=64MiB"

// ground is one namespace with a server in it, traced by an ambit whose rules the test writes.
type ground struct {
	*stage.Stage
	ns   *harness.Namespace
	file string // the configuration
	home string // address and port of the server
}

// newGround starts the server and the ambit, with this configuration.
func newGround(t testing.TB, config string, flags ...string) *ground {
	t.Helper()
	lab := stage.NewLab(t)
	ns, err := lab.Namespace("ground")
	stage.Must(t, err)
	g := &ground{ns: ns, file: filepath.Join(t.TempDir(), "ambit.yaml"), home: fmt.Sprintf("127.0.0.1:%d", port)}
	startServer(t, ns, "serve", port)
	g.write(t, config)
	g.Stage = stage.Start(t, stage.Config{
		Lab: lab, Namespaces: []*harness.Namespace{ns}, Flags: append([]string{"--config", g.file, ringFlag}, flags...),
		Env: []string{"OTEL_METRIC_EXPORT_INTERVAL=300"}, // milliseconds
	})
	return g
}

// write replaces the configuration as a whole, so that no half of it is read.
func (g *ground) write(t testing.TB, config string) {
	t.Helper()
	next := g.file + ".next"
	stage.Must(t, os.WriteFile(next, []byte(config), 0o600))
	stage.Must(t, os.Rename(next, g.file))
}

// configure puts another configuration in force.
func (g *ground) configure(t testing.TB, config string) {
	t.Helper()
	g.write(t, config)
	g.Reload(t)
}
