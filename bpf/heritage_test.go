package bpf

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit/handover"

	"golang.org/x/sys/unix"
)

// pinned gives stores of one directory of pins, one after the other.
func pinned(t *testing.T) (dir string, open func() *handover.Store) {
	t.Helper()
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	dir = filepath.Join(mount, "ambit")
	return dir, func() *handover.Store {
		t.Helper()
		s, err := handover.Pins(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
}

// What a daemon counted, decided and made up goes on in the next one.
func TestHeritage(t *testing.T) {
	_, open := pinned(t)
	store := open()
	tab := &table{TB: t, k: load(t, Config{Rate: 0.25, Keep: store, TrustContext: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}), now: uint64(time.Hour)}
	var err error
	if tab.r, err = tab.k.Series(); err != nil {
		t.Fatal(err)
	}
	tab.route(7, 3, 1)
	e := ambitSeries{Route: 7, Service: 3, Kind: 1, Outcome: 200}
	// Three rounds, and something.
	for _, n := range []uint32{1 << 31, 5, 1 << 31, 6, 1 << 31, 7} {
		e.Latency[9] = n
		e.SumNs += 1000
		tab.put(70, e)
		tab.read(time.Second)
	}
	key := SeriesKey{Route: 7, Service: 3, Kind: 1, Outcome: 200}
	before := tab.read(time.Second)[key]
	if before == nil || before.Latency[9] != 3<<32+7 {
		t.Fatalf("before the hand-over it is %+v", before)
	}
	rules := new(Rules)
	rules.Count = 1
	generation, err := tab.k.SetRules(rules, make([]Action, 1))
	if err != nil {
		t.Fatal(err)
	}
	tab.k.NoteRules([32]byte{1, 2, 3})
	tab.k.Taken(5)
	tab.k.Settle(3, 1)
	seed := tab.k.Seed()
	tab.k.Leave()
	if err := errors.Join(tab.r.Close(), tab.k.Close(), store.Close()); err != nil {
		t.Fatal(err)
	}

	next := &table{TB: t, k: load(t, Config{Rate: 0.5, Keep: open()}), now: tab.now}
	if yes, refused := next.k.Inherited(); !yes || refused != "" {
		t.Fatalf("nothing is inherited: %q", refused)
	}
	if next.k.Seed() != seed {
		t.Error("the hashes have another seed")
	}
	if g, digest := next.k.InheritedRules(); g != generation || digest != [32]byte{1, 2, 3} {
		t.Errorf("the rules are of generation %d, %x", g, digest)
	}
	if g, err := next.k.SetRules(rules, make([]Action, 1)); err != nil || g != generation+1 {
		t.Errorf("the next rules are of generation %d, %v", g, err)
	}
	if a := next.k.Account(); a != (Account{5, 3, 1}) {
		t.Errorf("the account is %+v", a)
	}
	if rates, err := next.k.Rates(); err != nil || rates.Base != Threshold(0.25) {
		t.Errorf("the rates are %+v, %v", rates, err)
	}
	if next.r, err = next.k.Series(); err != nil {
		t.Fatal(err)
	}
	defer next.r.Close()
	e.Latency[9]++
	next.put(70, e)
	after := next.read(time.Second)[key]
	if after == nil || after.Latency[9] != 3<<32+8 || !after.Begun.Equal(before.Begun) {
		t.Errorf("behind the hand-over it is %+v, and was %+v", after, before)
	}
	// Ranges are of the configuration, which is another one.
	var flags uint8
	if err := next.k.objs.Cidrs.Lookup(cidrOf(netip.MustParsePrefix("10.0.0.0/8")), &flags); err == nil && flags != 0 {
		t.Errorf("a range of the earlier configuration has the flags %d", flags)
	}
}

// What can't be used is taken down, and the reason told.
func TestHeritageIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(k *Kernel, dir string)
		next  Config
		says  string
	}{
		"another version": {spoil: func(k *Kernel, _ string) { k.heritage.said.Abi++ }, says: "of version 2, and this ambit's of 1"},
		"another form":    {spoil: func(k *Kernel, _ string) { k.heritage.said.Form[0]++ }, says: "hold another form"},
		"another size":    {next: Config{MaxConnections: 77}, says: "map flows is of 65536 elements"},
		"a map is gone": {spoil: func(_ *Kernel, dir string) {
			if err := os.Remove(filepath.Join(dir, "m_routes")); err != nil {
				t.Fatal(err)
			}
		}, says: "did not leave the map routes"},
		"ended too soon": {spoil: func(_ *Kernel, dir string) {
			if err := os.Remove(filepath.Join(dir, "m_heritage")); err != nil {
				t.Fatal(err)
			}
		}, says: "ended while it started"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, open := pinned(t)
			store := open()
			k := load(t, Config{Keep: store})
			seed := k.Seed()
			if c.spoil != nil {
				c.spoil(k, dir)
			}
			k.Leave()
			if err := errors.Join(k.Close(), store.Close()); err != nil {
				t.Fatal(err)
			}
			c.next.Keep = open()
			next := load(t, c.next)
			if yes, refused := next.Inherited(); yes || !strings.Contains(refused, c.says) {
				t.Errorf("inherited %v, refused: %q, want %q", yes, refused, c.says)
			}
			if next.Seed() == seed {
				t.Error("it is the earlier one's seed")
			}
			if left := c.next.Keep.Left(); left > 0 {
				t.Errorf("%d of the earlier maps are left", left)
			}
		})
	}
}
