package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestGap(t *testing.T) {
	dir := t.TempDir()
	state, file := filepath.Join(dir, "rates.json"), filepath.Join(dir, "alive")
	now := time.Now()
	begin := func(booted time.Time) gap {
		t.Helper()
		g, err := newGap(state, booted)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g := begin(now.Add(-time.Hour))
	if err := g.over(now, false); err != nil || g.length != 0 {
		t.Errorf("the first daemon: %v, %v", g.length, err)
	}
	if err := g.alive(now.Add(-20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	g = begin(now.Add(-time.Hour))
	if err := g.over(now, false); err != nil || g.length < 19*time.Second || g.length > 21*time.Second {
		t.Errorf("the second one: %v, %v", g.length, err)
	}
	if info, err := os.Stat(file); err != nil || now.Sub(info.ModTime()) > time.Second || info.Mode().Perm() != 0o600 {
		t.Errorf("its file: %v, %v", info, err)
	}
	// Before the machine started there was nothing to trace.
	g = begin(now.Add(time.Second))
	if err := g.over(now, false); err != nil || g.length != 0 {
		t.Errorf("behind a start of the machine: %v, %v", g.length, err)
	}
	if g, err := newGap("", now); err != nil || g.over(now, false) != nil || g.alive(now) != nil || g.length != 0 {
		t.Errorf("without a state: %+v, %v", g, err)
	}
}
