package tc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// findUnmatched notes which selectors no namespace meets. Namespaces come and go, so it is no error.
func (t *Taps) findUnmatched(now time.Time) {
	if len(t.selection.names)+len(t.selection.paths) == 0 && !t.selection.ambient {
		return
	}
	met := make(map[string]bool)
	for _, s := range t.spaces {
		for _, name := range s.seen.names {
			met[name] = true
		}
		for _, path := range s.seen.paths {
			met[path] = true
		}
		met[selectAmbient] = met[selectAmbient] || now.Sub(s.ambient) < stayAmbient
	}
	var unmatched []Unmatched
	if t.selection.ambient && !met[selectAmbient] {
		unmatched = append(unmatched, Unmatched{selectAmbient, "ztunnel listens in none"})
	}
	for _, name := range t.selection.names {
		if !met[name] {
			unmatched = append(unmatched, Unmatched{name, "no file of that name under /run/netns or /run/docker/netns"})
		}
	}
	for _, path := range t.selection.paths {
		if met[path] {
			continue
		}
		reason := "it is no network namespace"
		var failed *fs.PathError
		if _, err := os.Stat(path); errors.As(err, &failed) {
			reason = failed.Err.Error()
		}
		unmatched = append(unmatched, Unmatched{path, reason})
	}
	t.shown.Lock()
	defer t.shown.Unlock()
	t.unmatched = unmatched
}

// warnUnmatched tells at the start of names and paths that may be misspelt. That there is no ambient pod yet
// is nothing to warn of.
func (t *Taps) warnUnmatched() {
	const told = 8 // more would hide the rest of the line
	var missing []string
	for _, u := range t.Unmatched() {
		if u.Selector == selectAmbient {
			t.log.Info("no ambient network namespace yet, waiting for one", "reason", u.Reason)
			continue
		}
		missing = append(missing, fmt.Sprintf("%s (%s)", u.Selector, u.Reason))
	}
	if len(missing) > told {
		missing = append(missing[:told], fmt.Sprintf("%d more", len(missing)-told))
	}
	if missing != nil {
		t.log.Warn("selected network namespaces are not there, waiting for them: correct --namespaces if they are misspelt",
			"missing", strings.Join(missing, ", "))
	}
}
