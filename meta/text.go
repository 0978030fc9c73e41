package meta

import (
	"strings"
	"unicode/utf8"
)

// clean returns s as valid UTF-8 without control characters, of at most limit bytes, in memory of its
// own. What is replaced becomes U+FFFD.
func (c *counters) clean(s string, limit int) string {
	if len(s) > limit {
		c.cut.Add(1)
		s = s[:limit]
		for i := 1; i < utf8.UTFMax && i <= len(s); i++ { // do not leave half a character at the end
			if b := s[len(s)-i]; b < utf8.RuneSelf {
				break
			} else if utf8.RuneStart(b) {
				if !utf8.FullRuneInString(s[len(s)-i:]) {
					s = s[:len(s)-i]
				}
				break
			}
		}
	}
	if printable(s) {
		return strings.Clone(s)
	}
	c.repaired.Add(1)
	var b strings.Builder
	for _, r := range s {
		if control(r) {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if control(r) {
			return false
		}
	}
	return true
}

func control(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }

// base is the last part of a path.
func base(path string) string {
	return path[strings.LastIndexByte(path, '/')+1:]
}
