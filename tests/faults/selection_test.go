package faults

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ambit/admin"
)

// A selector that nothing meets is warned of and shown, and waited for: what it names may come, or be misspelt.
func TestSelectorThatNothingMeets(t *testing.T) {
	s := newScene(t)
	c := newCollector(t)
	missing := s.pod.Name() + "x"
	d := s.trace(t, c, "--namespaces", s.pod.Name()+","+missing)
	const reason = "no file of that name under /run/netns or /run/docker/netns"
	if got := d.status(t).Unmatched; len(got) != 1 || got[0] != (admin.Unmatched{Selector: missing, Reason: reason}) {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(d.Log(), "level=WARN") || !strings.Contains(d.Log(), missing+" ("+reason+")") {
		t.Errorf("the log does not tell:\n%s", d.Log())
	}
	must(t, exec.Command("ip", "netns", "add", missing).Run())
	defer exec.Command("ip", "netns", "del", missing).Run()
	wait(t, 5*time.Second, "the namespace is taken", func() error {
		if now := d.status(t); len(now.Unmatched)+len(now.Untapped) > 0 {
			return fmt.Errorf("%+v, %+v", now.Unmatched, now.Untapped)
		}
		return nil
	})
}
