package admin

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable makes s harmless for a terminal and keeps it on its line: what is not visible is written as
// \xNN (a byte that is no UTF-8) or \u{NNNN}, controls, line breaks and changes of direction among it.
func Printable(s string) string {
	if !strings.ContainsFunc(s, hidden) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case hidden(r):
			fmt.Fprintf(&b, `\u{%04x}`, r)
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}

func hidden(r rune) bool { return !unicode.IsPrint(r) }
