package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/tests/harness"
)

// tool runs a program in a namespace and returns what it prints.
func tool(t testing.TB, ns *harness.Namespace, path string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := ns.Run(ctx, path, args...)
	must(t, err)
	return out
}

// clean checks that nothing is left of an ambit that held these objects: no program or link in the kernel, nothing
// at the interfaces of the namespace, no pin and no socket.
func (s *scene) clean(t testing.TB, held []string, socket string) {
	t.Helper()
	wait(t, 10*time.Second, "the kernel has let go of everything", func() error {
		var left []string
		for _, kind := range []string{"prog", "link"} {
			var all []struct{ ID int }
			must(t, json.Unmarshal([]byte(tool(t, s.host, "bpftool", "-j", kind, "show")), &all))
			for _, o := range all {
				if name := fmt.Sprintf("%s %d", kind, o.ID); slices.Contains(held, name) {
					left = append(left, name)
				}
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
	s.unattached(t)
	if _, err := os.Stat(socket); err == nil {
		t.Errorf("%s is left", socket)
	}
}

// unattached checks that nothing is attached in the namespace and nothing pinned.
func (s *scene) unattached(t testing.TB) {
	t.Helper()
	if out := tool(t, s.pod, "tc", "qdisc", "show", "dev", "lo"); strings.Contains(out, "clsact") {
		t.Errorf("a qdisc is left: %s", out)
	}
	for _, hook := range []string{"ingress", "egress"} {
		if out := tool(t, s.pod, "tc", "filter", "show", "dev", "lo", hook); strings.TrimSpace(out) != "" {
			t.Errorf("a filter is left at %s: %s", hook, out)
		}
	}
	if out := tool(t, s.pod, "bpftool", "net", "show"); strings.Contains(out, "ambit") {
		t.Errorf("a program is left: %s", out)
	}
	err := filepath.WalkDir("/sys/fs/bpf", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.Contains(filepath.Base(path), "ambit") {
			t.Errorf("pin %s is left", path)
		}
		return err
	})
	must(t, err)
}
