package tc

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
)

// A selector that nothing meets may be misspelt: it is told at the start, and for as long as it is so.
func TestUnmatchedSelectors(t *testing.T) {
	makeNetns(t, "t1")
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	taps := newRecorder().make(t, Config{Select: []string{"ambient", "host", "t1", "t9", file, file + "x"}})
	taps.log = slog.New(slog.NewTextHandler(&log, nil))
	if err := taps.Start(); err != nil {
		t.Fatal(err)
	}
	missing := func() (all []string) {
		for _, u := range taps.Unmatched() {
			all = append(all, u.Selector+": "+u.Reason)
		}
		return all
	}
	want := []string{
		"ambient: ztunnel listens in none", "t9: no file of that name under /run/netns or /run/docker/netns",
		file + ": it is no network namespace", file + "x: no such file or directory",
	}
	if got := missing(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	line := fmt.Sprintf(`missing="t9 (no file of that name under /run/netns or /run/docker/netns), %s (it is no network namespace), %sx (no such file or directory)"`, file, file)
	if strings.Count(log.String(), "level=WARN") != 1 || !strings.Contains(log.String(), line) || !strings.Contains(log.String(), "--namespaces") {
		t.Errorf("want %s in\n%s", line, log.String())
	}
	makeNetns(t, "t9")
	waitFor(t, "t9 is there", func() bool { return !contains(missing(), "t9") })
	removeNetns(t, "t1")
	waitFor(t, "t1 is not", func() bool { return contains(missing(), "t1:") })
}
