package daemon

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// codec reads and writes a value of one type as text. parse's errors say what is wrong with the text;
// allowed, which is added to them, says what would be right.
type codec[T any] struct {
	noun    string
	allowed string
	numeric bool
	literal bool
	parse   func(string) (T, error)
	show    func(T) string
	plain   func(T) any // nil: the text
}

func (c codec[T]) plainValue(v T) any {
	if c.plain == nil {
		return c.show(v)
	}
	return c.plain(v)
}

func showFloat(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func numberIn(low, high float64) codec[float64] {
	return codec[float64]{
		noun: "number", numeric: true,
		allowed: "a number from " + showFloat(low) + " to " + showFloat(high),
		parse: func(text string) (float64, error) {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil && !errors.Is(err, strconv.ErrRange) {
				return 0, fmt.Errorf("%q is not a number", text)
			}
			if !(v >= low && v <= high) { // NaN is neither
				return 0, fmt.Errorf("%s is out of range", text)
			}
			return v, nil
		},
		show:  showFloat,
		plain: func(v float64) any { return v },
	}
}

func countIn(low, high int) codec[int] {
	return codec[int]{
		noun: "whole number", numeric: true,
		allowed: fmt.Sprintf("a whole number from %d to %d", low, high),
		parse: func(text string) (int, error) {
			v, err := strconv.Atoi(text)
			if err != nil && !errors.Is(err, strconv.ErrRange) {
				return 0, fmt.Errorf("%q is not a whole number", text)
			}
			if err != nil || v < low || v > high {
				return 0, fmt.Errorf("%s is out of range", text)
			}
			return v, nil
		},
		show:  strconv.Itoa,
		plain: func(v int) any { return v },
	}
}

var port = func() codec[uint16] {
	count := countIn(1, 65535)
	return codec[uint16]{
		noun: "port", numeric: true, allowed: "ports from 1 to 65535",
		parse: func(text string) (uint16, error) {
			v, err := count.parse(text)
			return uint16(v), err
		},
		show:  func(v uint16) string { return count.show(int(v)) },
		plain: func(v uint16) any { return v },
	}
}()

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", gib}, {"MiB", mib}, {"KiB", kib}, {"B", 1}, {"", 1}}

func parseSize(text string) (int64, error) {
	for _, u := range sizeUnits {
		digits, found := strings.CutSuffix(text, u.suffix)
		if !found {
			continue
		}
		v, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if errors.Is(err, strconv.ErrRange) || err == nil && (v > (1<<62)/u.bytes || v < 0) {
			return 0, fmt.Errorf("%s is out of range", text)
		}
		if err == nil {
			return v * u.bytes, nil
		}
		break
	}
	return 0, fmt.Errorf("%q is not a size", text)
}

func showSize(v int64) string {
	for _, u := range sizeUnits {
		if v != 0 && v%u.bytes == 0 && u.bytes > 1 {
			return strconv.FormatInt(v/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(v, 10)
}

func sizeIn(low, high int64) codec[int64] {
	return codec[int64]{
		noun:    "size",
		allowed: fmt.Sprintf("bytes from %s to %s, or with KiB, MiB or GiB", showSize(low), showSize(high)),
		parse: func(text string) (int64, error) {
			v, err := parseSize(text)
			if err == nil && (v < low || v > high) {
				err = fmt.Errorf("%s is out of range", text)
			}
			return v, err
		},
		show:  showSize,
		plain: func(v int64) any { return v },
	}
}

func powerOfTwoIn(low, high int64) codec[int64] {
	c := sizeIn(low, high)
	parse := c.parse
	c.allowed = "a power of two of " + c.allowed
	c.parse = func(text string) (int64, error) {
		v, err := parse(text)
		if err == nil && bits.OnesCount64(uint64(v)) != 1 {
			err = fmt.Errorf("%s is no power of two", text)
		}
		return v, err
	}
	return c
}

func durationIn(low, high time.Duration) codec[time.Duration] {
	return codec[time.Duration]{
		noun:    "duration",
		allowed: fmt.Sprintf("a duration from %s to %s, with its unit (ms, s, m, h)", showDuration(low), showDuration(high)),
		parse: func(text string) (time.Duration, error) {
			v, err := time.ParseDuration(text)
			if err != nil {
				if _, number := strconv.ParseFloat(text, 64); number == nil {
					return 0, fmt.Errorf("%s has no unit", text)
				}
				return 0, fmt.Errorf("%q is not a duration", text)
			}
			if v < low || v > high {
				return 0, fmt.Errorf("%s is out of range", text)
			}
			return v, nil
		},
		show: showDuration,
	}
}

// showDuration leaves out the zeros that time.Duration adds: 1m, not 1m0s.
func showDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func oneOf(values ...string) codec[string] {
	return codec[string]{
		noun: "word", allowed: strings.Join(values, ", "),
		parse: func(text string) (string, error) {
			for _, v := range values {
				if text == v {
					return v, nil
				}
			}
			if near := Closest(text, values); near != "" {
				return "", fmt.Errorf("%q is unknown (did you mean %s?)", text, near)
			}
			return "", fmt.Errorf("%q is unknown", text)
		},
		show: func(v string) string { return v },
	}
}

var trueOrFalse = func() codec[bool] {
	words := oneOf("true", "false")
	return codec[bool]{
		noun: "truth value", literal: true, allowed: words.allowed,
		parse: func(text string) (bool, error) {
			word, err := words.parse(text)
			return word == "true", err
		},
		show:  strconv.FormatBool,
		plain: func(v bool) any { return v },
	}
}()

func logLevel(c *Config) *slog.Level { return &c.Log.Level }

var level = func() codec[slog.Level] {
	words := oneOf("debug", "info", "warn", "error")
	return codec[slog.Level]{
		noun: words.noun, allowed: words.allowed,
		parse: func(text string) (slog.Level, error) {
			word, err := words.parse(text)
			if err != nil {
				return 0, err
			}
			var l slog.Level
			return l, l.UnmarshalText([]byte(word))
		},
		show: func(l slog.Level) string { return strings.ToLower(l.String()) },
	}
}()

var hexKey = codec[IDKey]{
	noun: "key", allowed: "32 hex digits",
	parse: func(text string) (IDKey, error) {
		var k IDKey
		// The error must not repeat a secret.
		if len(text) != 2*len(k) {
			return k, fmt.Errorf("the key has %d characters", len(text))
		}
		if _, err := hex.Decode(k[:], []byte(text)); err != nil {
			return IDKey{}, errors.New("the key has characters that are no hex digits")
		}
		return k, nil
	},
	show: func(k IDKey) string { return hex.EncodeToString(k[:]) },
}

var prefix = codec[netip.Prefix]{
	noun: "CIDR", allowed: "CIDRs such as 10.0.0.0/8 and fd00::/8, or addresses",
	parse: func(text string) (netip.Prefix, error) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil || addr.Zone() != "" {
				return netip.Prefix{}, fmt.Errorf("%q is not a CIDR", text)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		if p.Addr().Is4In6() {
			return netip.Prefix{}, fmt.Errorf("%s is v4-mapped, write it as IPv4", text)
		}
		if p != p.Masked() {
			return netip.Prefix{}, fmt.Errorf("%s has bits set behind its prefix (did you mean %s?)", text, p.Masked())
		}
		return p, nil
	},
	show: netip.Prefix.String,
}
