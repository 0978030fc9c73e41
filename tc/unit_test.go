package tc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseSelection(t *testing.T) {
	for _, c := range []struct{ selected, excluded, wrong string }{
		{"", "", ""},
		{"all", "host,/run/netns/x", ""},
		{"ambient,t1,/proc/1/ns/net", "", ""},
		{"t1,,t2", "", `"" is no name`},
		{" t1", "", `" t1" is no name`},
		{"run/netns/t1", "", "no absolute path"},
		{"", "all", `"all" is neither a name nor a path`},
		{"", "ambient", `"ambient" is neither a name nor a path`},
	} {
		_, err := parseSelection(words(c.selected), words(c.excluded))
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("select %q, exclude %q: %v, want %q", c.selected, c.excluded, err, c.wrong)
		}
	}
}

func words(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func TestSelectionPicks(t *testing.T) {
	host := &sighting{home: true, names: []string{"host", "default"}}
	named := &sighting{names: []string{"t1"}, paths: []string{"/elsewhere/t1"}}
	anonymous := &sighting{pids: []int{7}}
	for _, c := range []struct {
		selected, excluded string
		picked             []*sighting
	}{
		{"", "", []*sighting{host, named, anonymous}},
		{"all", "default", []*sighting{named, anonymous}},
		{"host", "", []*sighting{host}},
		{"/elsewhere/t1", "", []*sighting{named}},
		{"all", "/elsewhere/t1", []*sighting{host, anonymous}},
		{"t1,t2", "t1", nil},
		{"ambient", "", nil},
	} {
		s, err := parseSelection(words(c.selected), words(c.excluded))
		if err != nil {
			t.Fatal(err)
		}
		for _, seen := range []*sighting{host, named, anonymous} {
			want := false
			for _, p := range c.picked {
				want = want || p == seen
			}
			if got := s.picks(seen) && !s.excludes(seen); got != want {
				t.Errorf("select %q, exclude %q: %v picked %t", c.selected, c.excluded, seen.names, got)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		seen      sighting
		was, want string
	}{
		{sighting{home: true, names: []string{"host", "default"}}, "", "host"},
		{sighting{names: []string{"t1"}, files: []string{"/run/netns/t1"}, pids: []int{1}}, "pid:1 (x)", "t1"},
		{sighting{files: []string{"/run/netns/host"}}, "", "/run/netns/host"},
		{sighting{pids: []int{1 << 30}}, "pid:5 (curl)", "pid:5 (curl)"},
		{sighting{pids: []int{1 << 30}}, "t1", fmt.Sprintf("pid:%d", 1<<30)},
		{sighting{paths: []string{"/elsewhere"}}, "", "/elsewhere"},
		{sighting{}, "t1", "t1"},
	} {
		if got := c.seen.name(c.was); got != c.want {
			t.Errorf("%+v is called %q, want %q", c.seen, got, c.want)
		}
	}
	if got := printable("a\x1b[31m\xff\nb"); got != "a?[31m??b" {
		t.Errorf("control bytes: %q", got)
	}
}

func TestOverlapErrorIsOneLine(t *testing.T) {
	err := &OverlapError{}
	for i := range 20 {
		err.Held = append(err.Held, Overlap{NetNS: NetNS{Name: fmt.Sprintf("t%d", i)}, PID: 12})
	}
	err.Held = append(err.Held, Overlap{NetNS: NetNS{Name: "web"}}, Overlap{NetNS: NetNS{Name: "db"}, Stranger: "sleep (pid 7)"})
	want := "network namespaces are already tapped: pid 12 taps t0, t1, t2, t3, t4, t5, t6, t7 and 12 more; " +
		"another daemon taps web; sleep (pid 7), which is no ambit daemon, holds the lock of db; stop it, or select or exclude so that the sets do not overlap"
	if err.Error() != want {
		t.Errorf("got %q", err)
	}
}

// The kernel's messages are read without trust in their lengths.
func TestShortMessages(t *testing.T) {
	whole := make([]byte, unix.SizeofNlMsghdr+4+unix.SizeofRtAttr+4)
	binary.NativeEndian.PutUint16(whole[4:], unix.RTM_DELNSID)
	binary.NativeEndian.PutUint16(whole[unix.SizeofNlMsghdr+4+2:], unix.NETNSA_NSID)
	binary.NativeEndian.PutUint32(whole[unix.SizeofNlMsghdr+4+4:], 7)
	for n := range len(whole) + 1 {
		c := changes{links: make(map[int]bool), ended: make(map[int]bool)}
		c.add(whole[:n], nil)
		if got, want := c.ended[7], n == len(whole); got != want {
			t.Errorf("%d of %d bytes: ended %t", n, len(whole), got)
		}
	}
	if _, ok := sender([]byte{1, 2, 3}); ok {
		t.Error("a sender was read from nothing")
	}
	if err := netlinkError(nil); err == nil {
		t.Error("an error message without a code passes for an acknowledgement")
	}
}

// The kernel gives the inode of a namespace that has ended to the next one.
func TestInodeIsUsedAgain(t *testing.T) {
	r := newRecorder()
	taps := r.start(t, Config{Exclude: []string{"host"}})
	seen := make(map[uint64]uint64) // cookie of each inode
	again := 0
	for range 40 {
		makeNetns(t, "t1")
		var now recorded
		waitFor(t, "the new one is taken", func() bool { now, _ = r.of("t1"); return now.Cookie != 0 && len(lines(taps.Attachments())) == 1 })
		if before, known := seen[now.Inode]; known && before != now.Cookie {
			again++
		}
		seen[now.Inode] = now.Cookie
		removeNetns(t, "t1")
		waitFor(t, "it is released", func() bool { _, live := r.of("t1"); return !live })
	}
	if again == 0 {
		t.Errorf("no inode was used twice in %d namespaces", r.loads)
	}
}

// A stop does not wait for a start that has much to attach.
func TestCloseDuringStart(t *testing.T) {
	const namespaces = 40
	for i := range namespaces {
		makeNetns(t, fmt.Sprintf("t%d", i))
	}
	r := newRecorder()
	taps := r.make(t, Config{Select: []string{"all"}})
	started := make(chan error)
	go func() { started <- taps.Start() }()
	waitFor(t, "loading is under way", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.loads > namespaces/2 })
	began := time.Now()
	if err := taps.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-started; err != nil && !errors.Is(err, errStopping) {
		t.Errorf("start: %v", err)
	}
	t.Logf("closed after %v", time.Since(began))
	for i := range namespaces {
		if left := inventory(t, fmt.Sprintf("t%d", i)); left != nil {
			t.Errorf("left behind: %q", left)
		}
	}
}
