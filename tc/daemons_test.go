package tc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOverlap(t *testing.T) {
	makeNetns(t, "t1")
	makeNetns(t, "t2")
	makeNetns(t, "t3")
	first := startChild(t, "t1,t2", false)
	if first.first != "ready" {
		t.Fatalf("first daemon: %s", first.first)
	}

	r := newRecorder()
	taps := r.make(t, Config{})
	err := taps.Start()
	var overlap *OverlapError
	if !errors.As(err, &overlap) {
		t.Fatalf("a second daemon started over the first one: %v", err)
	}
	for _, want := range []string{fmt.Sprintf("pid %d", first.Process.Pid), "t1, t2"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "t3") {
		t.Errorf("not one line about t1 and t2: %q", err)
	}
	if left := append(inventory(t, "t3"), inventory(t, "")...); left != nil || r.loads > 0 {
		t.Errorf("a daemon that was refused attached %q", left)
	}
	if err := taps.Close(); err != nil {
		t.Errorf("close: %v", err)
	}

	// Disjoint sets are fine, and "all" is refused to the other side too.
	taps = newRecorder().start(t, Config{Select: []string{"t3", "t4"}})
	if all := startChild(t, "all", false); !strings.Contains(all.first, "t3") || !strings.Contains(all.first, "t1, t2") {
		t.Errorf("a daemon for all: %s", all.first)
	}

	// A namespace of both selections that appears later goes to one of them, and to the other when that
	// one ends.
	other := startChild(t, "t4", false)
	if other.first != "ready" {
		t.Fatalf("a daemon for what does not exist yet: %s", other.first)
	}
	makeNetns(t, "t4")
	waitFor(t, "one daemon has t4", func() bool { return contains(inventory(t, "t4"), "lo egress") })
	got := slices.DeleteFunc(inventory(t, "t4"), func(line string) bool { return line == "lo qdisc clsact" })
	if len(got) != 1 {
		t.Errorf("not attached by one daemon: %q", got)
	}
	// Which of the two came first, this one learns a moment after the programs are there.
	waitFor(t, "t4 is taken or skipped", func() bool {
		return len(taps.Skipped()) > 0 || slices.Contains(lines(taps.Attachments()), "t4 lo egress "+native)
	})
	if skipped := taps.Skipped(); len(skipped) > 0 {
		if len(skipped) != 1 || skipped[0].PID != other.Process.Pid || skipped[0].NetNS.Name != "t4" {
			t.Errorf("skipped: %+v", skipped)
		}
	}
	other.end()
	first.end()
	wantSoon(t, taps, "t4 lo egress "+native)
}

// wantSoon allows for the second after which a held namespace is tried again.
func wantSoon(t *testing.T, taps *Taps, line string) {
	t.Helper()
	time.Sleep(retryHeld)
	waitFor(t, line, func() bool { return slices.Contains(lines(taps.Attachments()), line) })
}

func TestKilledDaemon(t *testing.T) {
	for _, clsactThen := range []bool{false, true} {
		for _, clsactNow := range []bool{false, true} {
			t.Run(fmt.Sprintf("clsact before %t and after %t", clsactThen, clsactNow), func(t *testing.T) {
				makeNetns(t, "t1")
				makeNetns(t, "t2")
				makeVeth(t, "t1", "eth0", "10.9.0.1/24", "t2", "eth0", "10.9.0.2/24")
				dead := startChild(t, "t1,t2", clsactThen)
				if dead.first != "ready" {
					t.Fatal(dead.first)
				}
				dead.kill()
				if got := inventory(t, "t1"); contains(got, filterName) != (clsactThen || native == methodClsact) {
					t.Errorf("after the kill: %q", got)
				}

				// t1 is tapped anew; t2 is not, and is cleaned all the same.
				taps := newRecorder().start(t, Config{Select: []string{"t1"}, ForceClsact: clsactNow})
				attached := []string{"lo egress tcx ambit_lo", "eth0 egress tcx ambit_out", "eth0 ingress tcx ambit_in"}
				if clsactNow || native == methodClsact {
					attached = []string{"lo qdisc clsact", "lo egress filter ambit",
						"eth0 qdisc clsact", "eth0 egress filter ambit", "eth0 ingress filter ambit"}
				}
				got := inventory(t, "t1")
				slices.Sort(got)
				slices.Sort(attached)
				if !slices.Equal(got, attached) {
					t.Errorf("after the restart: %q, want %q", got, attached)
				}
				if got := inventory(t, "t2"); got != nil {
					t.Errorf("left in the other namespace: %q", got)
				}
				if err := taps.Close(); err != nil {
					t.Error(err)
				}
				if got := inventory(t, "t1"); got != nil {
					t.Errorf("left behind: %q", got)
				}
			})
		}
	}
}

// What a dead daemon left in the lock directory holds nobody up and is removed.
func TestStaleLocks(t *testing.T) {
	makeNetns(t, "t1")
	dead := startChild(t, "t1,host", false)
	dead.kill()
	if left, _ := os.ReadDir(DefaultLocks); len(left) != 2 {
		t.Fatalf("a daemon with two namespaces left %d locks", len(left))
	}
	taps := newRecorder().start(t, Config{Select: []string{"t1"}})
	if left, _ := os.ReadDir(DefaultLocks); len(left) != 1 {
		t.Errorf("%d locks for one namespace", len(left))
	}
	text, err := os.ReadFile(fmt.Sprintf("%s/%d", DefaultLocks, taps.Attachments()[0].NetNS.Cookie))
	if err != nil || !strings.HasPrefix(string(text), fmt.Sprintf("pid %d\nnamespace t1\n", os.Getpid())) {
		t.Errorf("the lock says %q, %v", text, err)
	}
}

func TestMissingPrivilege(t *testing.T) {
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), roleVariable+"="+roleNobody)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := "tap network namespaces: operation not permitted: it needs CAP_NET_ADMIN and CAP_SYS_ADMIN, run as root or grant it\n"
	if string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}
