package stage

import (
	"context"
	"testing"
	"time"

	"ambit/tests/harness"
)

// StartRole starts a role of the test's program in the namespace, as a service of its name and in a cgroup, which is the
// namespace's own where it is nil. Where the role is to listen on a port, which is not 0, it waits until it does.
func StartRole(t testing.TB, ns *harness.Namespace, cgroup *harness.Cgroup, port uint16, role string, args ...string) *harness.Process {
	t.Helper()
	p, err := harness.RoleProgram(role, args...)
	Must(t, err)
	p.Cgroup, p.Env = cgroup, []string{"OTEL_SERVICE_NAME=" + role}
	process, err := ns.Start(p)
	Must(t, err)
	if port == 0 {
		return process
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := ns.WaitListen(ctx, port); err != nil {
		t.Fatalf("%v: %s", err, process.Log())
	}
	return process
}
