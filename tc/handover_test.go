package tc

import (
	"path/filepath"
	"slices"
	"testing"

	"ambit/handover"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// What is left is attached until the next daemon comes, which puts its programs in the place of the earlier one's, among
// those of others. Filters are not left: nobody would take them off if none came.
func TestLeave(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	}()
	open := func() *handover.Store {
		s, err := handover.Pins(filepath.Join(mount, "ambit"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, clsact := range []bool{false, true} {
		method, name := native, native
		if clsact {
			method, name = methodClsact, "forced clsact"
		}
		t.Run(name, func(t *testing.T) {
			makeNetns(t, "t1")
			makeNetns(t, "t2")
			begin := func(store *handover.Store) *Taps {
				taps := newRecorder().make(t, Config{Select: []string{"t1", "t2"}, ForceClsact: clsact, Keep: store})
				if err := taps.Start(); err != nil {
					t.Fatal(err)
				}
				return taps
			}
			store := open()
			earlier := begin(store)
			want := []string{"lo egress tcx ambit_lo"}
			if method == methodTCX {
				// Somebody comes behind.
				foreign, err := newCounter("foreign", next)
				if err != nil {
					t.Fatal(err)
				}
				inside(t, "t1", func() {
					l, err := link.AttachTCX(link.TCXOptions{Interface: 1, Program: foreign.Program, Attach: ebpf.AttachTCXEgress, Anchor: link.Tail()})
					if err != nil {
						t.Error(err)
						return
					}
					t.Cleanup(func() { l.Close() })
				})
				want = append(want, "lo egress tcx foreign")
			} else {
				want = nil
			}
			if err := earlier.Leave(); err != nil {
				t.Fatal(err)
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			if got := inventory(t, "t1"); !slices.Equal(got, want) {
				t.Errorf("left is %q, want %q", got, want)
			}
			removeNetns(t, "t2")
			store = open()
			taps := newRecorder().make(t, Config{Select: []string{"t1"}, ForceClsact: clsact, Keep: store})
			if err := taps.Start(); err != nil {
				t.Fatal(err)
			}
			taken, anew := taps.Taken()
			if method == methodTCX {
				if taken != 1 || anew != 0 || store.Left() != 1 {
					t.Errorf("%d links are taken, %d attached anew, %d left", taken, anew, store.Left())
				}
				if got := inventory(t, "t1"); !slices.Equal(got, want) {
					t.Errorf("taken over is %q, want %q", got, want)
				}
			} else if taken != 0 || anew != 1 {
				t.Errorf("%d filters are taken, %d attached anew", taken, anew)
			}
			// The link of the namespace that ended.
			if err := store.Discard(); err != nil {
				t.Error(err)
			}
			if err := taps.Close(); err != nil {
				t.Error(err)
			}
			if n := store.Kept(); n != 0 {
				t.Errorf("%d links are kept behind the end", n)
			}
			if err := store.Close(); err != nil {
				t.Error(err)
			}
			if got := inventory(t, "t1"); len(got) != max(0, len(want)-1) {
				t.Errorf("behind the end is %q", got)
			}
		})
	}
}
