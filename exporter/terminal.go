package exporter

import (
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/text/width"
)

// Text that comes from the network must not steer a terminal: it is written through appendSafe, which lets
// through only what is visible. All else is written as \xNN (a byte) or \u{NNNN} (a character); that
// includes the C1 controls, and what changes the direction of writing.

const (
	hexDigits = "0123456789abcdef"
	ellipsis  = "…"
)

// cells is the number of columns that a terminal gives r: 2 for the wide characters of East Asian scripts,
// 0 for what is not shown as itself.
func cells(r rune) int {
	if r >= 0x20 && r < 0x7f {
		return 1
	}
	// Marks join the character before them, however many there are.
	if r < 0xa0 || !unicode.IsPrint(r) || unicode.In(r, unicode.M) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// appendSafe appends s as visible text of at most limit columns, ending it with an ellipsis where it is
// longer; a limit below 0 is none. It returns the columns used too.
func appendSafe(b []byte, s string, limit int) ([]byte, int) {
	used := 0
	cut, cutUsed := len(b), 0 // as far as there is room for the ellipsis behind it
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		n := cells(r)
		switch {
		case r == utf8.RuneError && size == 1, n == 0 && r < utf8.RuneSelf:
			b = append(b, '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
			n = 4
		case n == 0:
			from := len(b)
			b = append(b, `\u{`...)
			b = strconv.AppendUint(b, uint64(r), 16)
			b = append(b, '}')
			n = len(b) - from
		default:
			b = append(b, s[i:i+size]...)
		}
		if limit >= 0 && used+n > limit {
			if limit == 0 {
				return b[:cut], 0
			}
			return append(b[:cut], ellipsis...), cutUsed + 1
		}
		used += n
		i += size
		if used < limit {
			cut, cutUsed = len(b), used
		}
	}
	return b, used
}

// printable is s on one line of at most limit columns, as appendSafe has it.
func printable(s string, limit int) string {
	b, _ := appendSafe(nil, strings.Join(strings.Fields(s), " "), limit)
	return string(b)
}

// appendColumn appends s in exactly columns columns: cut, or filled up with spaces, to its left if right
// is set. Without a limit (cut unset) longer text stays whole.
func appendColumn(b []byte, s string, columns int, right, cut bool) []byte {
	limit := columns
	if !cut {
		limit = -1
	}
	from := len(b)
	b, used := appendSafe(b, s, limit)
	pad := columns - used
	if pad <= 0 {
		return b
	}
	const spaces = "                                                                "
	for n := pad; n > 0; n -= len(spaces) {
		b = append(b, spaces[:min(n, len(spaces))]...)
	}
	if right {
		copy(b[from+pad:], b[from:len(b)-pad])
		for i := from; i < from+pad; i++ {
			b[i] = ' '
		}
	}
	return b
}

// Style is how text for people is laid out. The zero value is for files and pipes: no colour, nothing cut.
type Style struct {
	// Width is the number of columns; 0 is no limit.
	Width int
	// Color adds escape sequences of ambit's own.
	Color bool
	// Query says what is shown of queries.
	Query QueryCapture
}

// The colours, as SGR parameters.
const (
	colorError  = "31"
	colorWarn   = "33"
	colorClient = "36"
	colorServer = "32"
	colorDim    = "2"
)

// begin and end enclose what is coloured.
func (st Style) begin(b []byte, color string) []byte {
	if !st.Color || color == "" {
		return b
	}
	b = append(b, "\x1b["...)
	b = append(b, color...)
	return append(b, 'm')
}

func (st Style) end(b []byte, color string) []byte {
	if !st.Color || color == "" {
		return b
	}
	return append(b, "\x1b[0m"...)
}

// IsTerminal tells whether f is one.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// TerminalStyle is the style for f: of its width, and coloured unless NO_COLOR or TERM=dumb forbid it, if it
// is a terminal; else that for files.
func TerminalStyle(f *os.File, query QueryCapture) Style {
	st := Style{Query: query}
	if !IsTerminal(f) {
		return st
	}
	st.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	st.Width = terminalWidth(f)
	return st
}

// terminalWidth is 0 for a terminal that does not know.
func terminalWidth(f *os.File) int {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(ws.Col)
}
