package main

import (
	"errors"
	"strings"
	"testing"

	"ambit/admin"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
)

func exampleTop() admin.Top {
	return admin.Top{SinceSeconds: 3, Unnamed: 2, Rows: []admin.TopRow{
		{Service: "frontend", Kind: "SERVER", Method: "GET", Route: "/users/{number}", Count: 100, Rate: 50, ErrorShare: 0.5, P50: 0.001, P99: 0.02, KeptShare: 0.1, Reason: "head"},
		{Service: "backend", Kind: "SERVER", Method: "GET", Route: "/stock/{number}", Count: 1000, Rate: 500, P50: 0.0005, P99: 2, KeptShare: 1, Rule: "slow ones", Reason: "slow"},
		{Service: "client", Kind: "CLIENT", Method: "GET", Route: "/\x1b[2J\u009bx\u202e", Host: "shop:81\x1b]0;t\a", Count: 1, Rate: 0.25},
		{Service: "frontend", Kind: "SERVER", Method: "_OTHER", Other: true, Count: 7},
	}}
}

// screen is a model that a test steers.
type screen struct {
	*testing.T
	m *topModel
}

func newScreen(t *testing.T) *screen {
	s := &screen{t, newTopModel(func() (admin.Top, error) { return exampleTop(), nil })}
	s.send(tea.WindowSizeMsg{Width: 120, Height: 12})
	s.send(s.m.Init()())
	return s
}

func (s *screen) send(msg tea.Msg) tea.Cmd {
	s.Helper()
	_, cmd := s.m.Update(msg)
	return cmd
}

// press types keys: a name in angle brackets is one key.
func (s *screen) press(keys ...string) (cmd tea.Cmd) {
	s.Helper()
	named := map[string]tea.KeyType{"enter": tea.KeyEnter, "esc": tea.KeyEsc, "backspace": tea.KeyBackspace, "down": tea.KeyDown, "ctrl+c": tea.KeyCtrlC}
	for _, k := range keys {
		key := tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)}
		if special, ok := named[k]; ok {
			key = tea.KeyMsg{Type: special}
		}
		cmd = s.send(key)
	}
	return cmd
}

// lines are what the screen shows, without what steers colours.
func (s *screen) lines() []string { return strings.Split(ansi.Strip(s.m.View()), "\n") }

// services are the first column of the rows that are shown.
func (s *screen) services() string {
	var list []string
	for _, line := range s.lines()[2:] {
		if name, _, _ := strings.Cut(line, " "); name == "frontend" || name == "backend" || name == "client" {
			list = append(list, name)
		}
	}
	return strings.Join(list, " ")
}

func TestTopShowsTheBusiestRoutesFirst(t *testing.T) {
	s := newScreen(t)
	lines := s.lines()
	if want := "ambit top  4 of 4 routes, over the last 3 s, 2 without a name yet"; lines[0] != want {
		t.Errorf("got  %s\nwant %s", lines[0], want)
	}
	if !strings.Contains(lines[1], "SERVICE") || !strings.Contains(lines[1], "RATE/S▼") {
		t.Errorf("titles %q", lines[1])
	}
	for _, want := range []string{"backend", "/stock/{number}", "500", "0%", "500 us", "2s", "100%", "slow ones slow"} {
		if !strings.Contains(lines[2], want) {
			t.Errorf("no %q in %q", want, lines[2])
		}
	}
	if got := s.services(); got != "backend frontend client frontend" {
		t.Error(got)
	}
	if !strings.Contains(s.m.View(), "(other)") {
		t.Error("other is not shown")
	}
	if len(lines) != 12 {
		t.Errorf("%d lines on a screen of 12", len(lines))
	}
}

func TestTopSorts(t *testing.T) {
	for _, c := range []struct {
		what string
		keys []string
		want string
	}{
		{"the other direction", []string{"r"}, "frontend client frontend backend"},
		{"and back", []string{"r", "r"}, "backend frontend client frontend"},
		{"the next column, errors", []string{"s"}, "frontend backend client frontend"},
		{"the first column, from A on", []string{"1"}, "backend client frontend frontend"},
		{"the same from Z on", []string{"1", "r"}, "frontend frontend client backend"},
		{"the eighth, p99", []string{"8"}, "backend frontend client frontend"},
		{"the tenth is 0", []string{"0"}, "client frontend frontend backend"},
		{"behind the last comes the first", []string{"0", "s"}, "backend client frontend frontend"},
	} {
		s := newScreen(t)
		s.press(c.keys...)
		if got := s.services(); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func TestTopFilters(t *testing.T) {
	for _, c := range []struct {
		what       string
		keys       []string
		want, foot string
	}{
		{"by the route", []string{"/", "S", "t", "o", "c", "k"}, "backend", "/Stock_"},
		{"the keys of commands are letters then", []string{"/", "q", "s", "r", "1"}, "", "/qsr1_"},
		{"what is typed quickly is the same", []string{"/stock"}, "backend", "/stock_"},
		{"enter ends the typing", []string{"/", "client", "enter", "r"}, "client", "/client  (esc: all)"},
		{"backspace takes a letter", []string{"/", "frontendx", "backspace"}, "frontend frontend", "/frontend_"},
		{"esc shows all again", []string{"/", "stock", "esc"}, "backend frontend client frontend", "s column  r direction  / filter  q end"},
		{"behind enter too", []string{"/", "stock", "enter", "esc"}, "backend frontend client frontend", "s column  r direction  / filter  q end"},
		{"controls that are pasted are left out", []string{"/", "st\x1b[2Jock"}, "", "/st[2Jock_"},
		{"and not more than is shown", []string{"/", strings.Repeat("x", 500)}, "", "/" + strings.Repeat("x", maxFilter) + "_"},
	} {
		s := newScreen(t)
		s.press(c.keys...)
		lines := s.lines()
		if got, foot := s.services(), lines[len(lines)-1]; got != c.want || foot != c.foot {
			t.Errorf("%s: %q %q", c.what, got, foot)
		}
	}
}

func TestTopEnds(t *testing.T) {
	for _, keys := range [][]string{{"q"}, {"ctrl+c"}, {"/", "q", "ctrl+c"}} {
		cmd := newScreen(t).press(keys...)
		if cmd == nil {
			t.Errorf("%q does nothing", keys)
		} else if _, ok := cmd().(tea.QuitMsg); !ok {
			t.Errorf("%q does not end it", keys)
		}
	}
}

// Nothing that a request carried steers the terminal, whatever the size of the screen.
func TestTopLetsNoControlsThrough(t *testing.T) {
	for width := range 150 {
		s := newScreen(t)
		s.send(tea.WindowSizeMsg{Width: width, Height: 10})
		s.send(topAnswer{err: errors.New("the daemon\x1b[2J\nbroke off")})
		for _, view := range []string{s.m.View(), func() string { s.send(topAnswer{top: exampleTop()}); return s.m.View() }()} {
			plain := ansi.Strip(view)
			for _, bad := range []string{"\x1b", "\u009b", "\a", "\u202e", "\r"} {
				if strings.Contains(plain, bad) {
					t.Fatalf("at a width of %d there is %q in %q", width, bad, plain)
				}
			}
			// The only sequences are those of the table's style.
			if strings.Contains(view, "\x1b[2J") || strings.Contains(view, "\x1b]") {
				t.Fatalf("at a width of %d: %q", width, view)
			}
		}
	}
}

func TestTopGoesOnAfterAnError(t *testing.T) {
	s := newScreen(t)
	if cmd := s.send(topAnswer{err: errors.New("the socket\nis away")}); cmd == nil {
		t.Error("it does not ask again")
	}
	if line := s.lines()[0]; line != `no answer: the socket\u{000a}is away` {
		t.Error(line)
	}
	if got := s.services(); got != "backend frontend client frontend" {
		t.Errorf("what was known is not shown: %s", got)
	}
	if cmd := s.send(topTick{}); cmd == nil {
		t.Error("a tick does not ask")
	} else {
		s.send(cmd())
	}
	if line := s.lines()[0]; !strings.HasPrefix(line, "ambit top  4 of 4") {
		t.Error(line)
	}
}

// A narrow screen cuts routes first, and keeps the place of the cursor.
func TestTopOnANarrowScreen(t *testing.T) {
	s := newScreen(t)
	s.press("down", "down")
	s.send(tea.WindowSizeMsg{Width: 84, Height: 10})
	if c := s.m.table.Cursor(); c != 2 {
		t.Errorf("the cursor is at %d", c)
	}
	lines := s.lines()
	if len(lines) != 10 || strings.Contains(lines[2], "/stock/{number}") || !strings.Contains(lines[2], "/stock/") {
		t.Errorf("%d lines: %q", len(lines), lines[2])
	}
	s.send(topAnswer{top: admin.Top{}})
	if c := s.m.table.Cursor(); c > 0 {
		t.Errorf("without rows the cursor is at %d", c)
	}
}
