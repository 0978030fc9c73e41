package meta

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"ambit/l7"
)

func pairs(kv ...string) []l7.Attribute {
	var list []l7.Attribute
	for i := 0; i < len(kv); i += 2 {
		list = append(list, l7.Attribute{Key: kv[i], Str: kv[i+1]})
	}
	return list
}

func TestParseAttributes(t *testing.T) {
	for _, test := range []struct {
		about, list string
		want        []l7.Attribute
	}{
		{"nothing", "", nil},
		{"one", "a=b", pairs("a", "b")},
		{"spaces and empty members", " a = b ,, c=d, ", pairs("a", "b", "c", "d")},
		{"percent-encoding in both", "a%2Cb=c%3Dd%20%C3%A4", pairs("a,b", "c=d ä")},
		{"a plus is a plus", "a=b+c", pairs("a", "b+c")},
		{"a value may hold =", "a=b=c", pairs("a", "b=c")},
		{"an empty value", "a=", pairs("a", "")},
		{"the last of two counts", "a=1,b=2,a=3", pairs("a", "3", "b", "2")},
	} {
		got, err := parseAttributes(test.list)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %v, %v, want %v", test.about, got, err, test.want)
		}
	}
	for _, list := range []string{"a", "=b", "a=b,c", "a=%zz", "a=%2", "%=b", "a=b,=c"} {
		if got, err := parseAttributes(list); err == nil {
			t.Errorf("%q gives %v, want an error", list, got)
		}
	}
}

// readEnviron reads an environment from a file, as from /proc.
func readEnviron(t testing.TB, contents string) (environment, Stats) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "environ"), []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	var count counters
	env, err := newReader("/", &count).environ(fd)
	if err != nil {
		t.Fatal(err)
	}
	return env, Stats{Malformed: count.malformed.Load(), Cut: count.cut.Load(), Repaired: count.repaired.Load()}
}

func TestEnviron(t *testing.T) {
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("k%d=v", i)
	}
	ballast := strings.Repeat("SHOP_SERVICE_HOST=10.0.0.1\x00", 5000)
	for _, test := range []struct {
		about, contents string
		want            environment
		count           Stats
	}{
		{about: "nothing"},
		{about: "other variables only", contents: "A=b\x00XOTEL_SERVICE_NAME=no\x00"},
		{about: "a name", contents: "A=b\x00OTEL_SERVICE_NAME= shop \x00C=d\x00", want: environment{serviceName: "shop"}},
		{about: "without a zero at the end", contents: "A=b\x00OTEL_SERVICE_NAME=shop", want: environment{serviceName: "shop"}},
		{about: "the first of two counts", contents: "OTEL_SERVICE_NAME=a\x00OTEL_SERVICE_NAME=b\x00", want: environment{serviceName: "a"}},
		{about: "both", contents: "OTEL_RESOURCE_ATTRIBUTES=x=y\x00OTEL_SERVICE_NAME=a\x00", want: environment{"a", pairs("x", "y")}},
		{about: "behind 135 KB of other variables", contents: ballast + "OTEL_SERVICE_NAME=a\x00", want: environment{serviceName: "a"}},
		{about: "behind a variable longer than the buffer", contents: "A=" + strings.Repeat("b", 50_000) + "\x00OTEL_SERVICE_NAME=a\x00", want: environment{serviceName: "a"}},
		{about: "beyond what is read", contents: ballast + ballast + ballast + "OTEL_SERVICE_NAME=a\x00", count: Stats{Cut: 1}},
		{about: "longer than the buffer itself", contents: "OTEL_RESOURCE_ATTRIBUTES=a=" + strings.Repeat("b", 50_000) + "\x00OTEL_SERVICE_NAME=a\x00", want: environment{serviceName: "a"}, count: Stats{Malformed: 1}},
		{about: "malformed", contents: "OTEL_RESOURCE_ATTRIBUTES=a=b,c\x00OTEL_SERVICE_NAME=a\x00", want: environment{serviceName: "a"}, count: Stats{Malformed: 1}},
		{about: "bytes that are no UTF-8, and control characters", contents: "OTEL_SERVICE_NAME=a\xff\x1b[2J\x00OTEL_RESOURCE_ATTRIBUTES=k=%00%0a%ff\x00", want: environment{"a\ufffd\ufffd[2J", pairs("k", "\ufffd\ufffd\ufffd")}, count: Stats{Repaired: 2}},
		{about: "an overlong value is cut between characters", contents: "OTEL_SERVICE_NAME=" + strings.Repeat("ä", 200) + "x\x00", want: environment{serviceName: strings.Repeat("ä", 128)}, count: Stats{Cut: 1}},
		{about: "an overlong value is cut before a character that would not fit", contents: "OTEL_SERVICE_NAME=x" + strings.Repeat("ä", 200) + "\x00", want: environment{serviceName: "x" + strings.Repeat("ä", 127)}, count: Stats{Cut: 1}},
	} {
		got, count := readEnviron(t, test.contents)
		if !reflect.DeepEqual(got, test.want) || count != test.count {
			t.Errorf("%s: got %+v, %+v, want %+v, %+v", test.about, got, count, test.want, test.count)
		}
	}
	got, count := readEnviron(t, "OTEL_RESOURCE_ATTRIBUTES="+strings.Join(many, ",")+"\x00")
	if len(got.attributes) != maxAttributes || count.Cut != 1 {
		t.Errorf("of 40 attributes %d are kept, cut %d, want %d and 1", len(got.attributes), count.Cut, maxAttributes)
	}
	long := strings.Repeat("v", maxValue)
	got, count = readEnviron(t, fmt.Sprintf("OTEL_RESOURCE_ATTRIBUTES=a=%[1]s,b=%[1]s,c=%[1]s,d=%[1]s,e=%[1]s,f=%[1]s,g=%[1]s,h=%[1]s,i=%[1]s\x00", long))
	if len(got.attributes) != 7 || count.Cut != 1 {
		t.Errorf("of 9 attributes of 257 bytes %d are kept, cut %d, want 7 and 1", len(got.attributes), count.Cut)
	}
}

func FuzzEnviron(f *testing.F) {
	f.Add("A=b\x00OTEL_SERVICE_NAME=a\x00OTEL_RESOURCE_ATTRIBUTES=a=b,c=%ff\x00")
	f.Add("OTEL_RESOURCE_ATTRIBUTES=\xff=\xe4,b=\xc3")
	f.Fuzz(func(t *testing.T, contents string) {
		env, _ := readEnviron(t, contents)
		size := 0
		for _, a := range append(env.attributes, l7.Attribute{Str: env.serviceName}) {
			size += len(a.Key) + len(a.Str)
			if !printable(a.Key) || !printable(a.Str) || !utf8.ValidString(a.Key+a.Str) {
				t.Errorf("%q=%q is not clean", a.Key, a.Str)
			}
		}
		if size > maxAttributeBytes+maxValue || len(env.attributes) > maxAttributes {
			t.Errorf("%d attributes of %d bytes", len(env.attributes), size)
		}
	})
}

func TestCleanEveryByte(t *testing.T) {
	var count counters
	for b := range 256 {
		s := "a" + string([]byte{byte(b)}) + "z"
		got := count.clean(s, maxValue)
		want := s
		if b < 0x20 || b >= 0x7f {
			want = "a\ufffdz"
		}
		if got != want {
			t.Errorf("byte %#x becomes %q, want %q", b, got, want)
		}
	}
	if got := count.repaired.Load(); got != 0x20+0x81 {
		t.Errorf("%d strings counted as repaired, want %d", got, 0x20+0x81)
	}
	if got := count.clean(strings.Repeat("\xff", maxValue), maxValue); len(got) > maxValue || !utf8.ValidString(got) {
		t.Errorf("%d bytes, %q", len(got), got)
	}
}
