package exporter

import "testing"

func TestQueryRedaction(t *testing.T) {
	cases := []struct{ what, query, want string }{
		{"every value is replaced", "a=1&b=2", "a=REDACTED&b=REDACTED"},
		{"an empty value too: that it is empty is a value", "a=", "a=REDACTED"},
		{"a key without a value stays", "debug&a=1", "debug&a=REDACTED"},
		{"a value ends at the next &, whatever is in it", "a=1=2;b=3?c&d=4", "a=REDACTED&d=REDACTED"},
		{"a value without a key", "=secret", "=REDACTED"},
		{"empty parts stay", "&&a=1&", "&&a=REDACTED&"},
		{"escapes in keys stay as they are", "a%3Db=1", "a%3Db=REDACTED"},
		{"nothing", "", ""},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			if got := string(appendQuery(nil, c.query, QueryKeys)); got != c.want {
				t.Errorf("%q became %q, not %q", c.query, got, c.want)
			}
			if got := string(appendQuery(nil, c.query, QueryValues)); got != c.query {
				t.Errorf("with values %q became %q", c.query, got)
			}
			if got := appendQuery(nil, c.query, QueryNone); len(got) != 0 {
				t.Errorf("with none %q became %q", c.query, got)
			}
		})
	}
}

func TestParseQueryCapture(t *testing.T) {
	for _, q := range []QueryCapture{QueryKeys, QueryValues, QueryNone} {
		if got, err := ParseQueryCapture(q.String()); err != nil || got != q {
			t.Errorf("%v is read as %v, %v", q, got, err)
		}
	}
	if _, err := ParseQueryCapture("all"); err == nil {
		t.Error("a word that means nothing is read")
	}
}
