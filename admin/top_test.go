package admin

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestTop(t *testing.T) {
	b := &stage{state: Tracing}
	_, path := serve(t, b)
	c := dial(t, path)
	if _, _, text := ask(t, over("unix", path), "GET", "/v1/top", ""); !strings.Contains(text, `"rows":[]`) {
		t.Errorf("without routes: %s", text)
	}
	b.top = Top{SinceSeconds: 2.5, Rows: []TopRow{
		{Service: "a", Kind: "SERVER", Method: "GET", Route: "/\x1b[2J", Rate: 0.5, KeptShare: 0.0001},
		{Service: "b", Kind: "CLIENT", Method: "GET", Route: "/x", Host: "shop", Rate: 12345.6, ErrorShare: 0.123, P50: 0.0042, P99: 61, KeptShare: 0.9999, Rule: "r", Reason: "slow"},
		{Service: "a", Kind: "SERVER", Method: "_OTHER", Other: true, Rate: 50, KeptShare: 1},
	}}
	top, err := c.Top(t.Context())
	if err != nil || len(top.Rows) != 3 || top.Rows[1] != b.top.Rows[1] {
		t.Fatalf("%v %+v", err, top)
	}
	var out strings.Builder
	if err := WriteTop(&out, top); err != nil {
		t.Fatal(err)
	}
	want := `ROUTES  over the last 2.5s
  SERVICE  KIND    METHOD  ROUTE         RATE/S  ERRORS     P50    P99    KEPT  DECIDED BY
  b        CLIENT  GET     shop/x        12,346   12.3%  4.2 ms  1m1s  >99.9%  r slow
  a        SERVER  _OTHER  (other)         50.0      0%   <1 us  <1 us    100%
  a        SERVER  GET     /\u{001b}[2J    0.50      0%   <1 us  <1 us   <0.1%
`
	if squeeze(out.String()) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := WriteTop(&out, Top{}); err != nil || out.String() != "nothing was counted yet\n" {
		t.Errorf("%v %q", err, out.String())
	}
	b.err = errStage
	if _, err := c.Top(t.Context()); err == nil || err.Error() != errStage.Error() {
		t.Errorf("%v", err)
	}
}

// Every field has its definition, by its JSON name.
func TestTopIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []reflect.Type{reflect.TypeFor[Top](), reflect.TypeFor[TopRow]()} {
		for i := range shown.NumField() {
			name, _, _ := strings.Cut(shown.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("docs/metrics.md does not define %s of %s", name, shown.Name())
			}
		}
	}
}

func TestSortingOfRoutes(t *testing.T) {
	rows := []TopRow{{Service: "b", Rate: 1}, {Service: "a", Rate: 2}, {Service: "c", Rate: 2, Route: "/z"}, {Service: "c", Rate: 2, Route: "/y"}}
	order := func() string {
		var names []string
		for _, r := range rows {
			names = append(names, r.Service+r.Route)
		}
		return strings.Join(names, " ")
	}
	SortTop(rows, RateColumn, true)
	if got := order(); got != "a c/y c/z b" {
		t.Error(got)
	}
	SortTop(rows, RateColumn, false)
	if got := order(); got != "b a c/y c/z" {
		t.Error(got)
	}
	for i := range TopColumns {
		SortTop(rows, i, false) // none of them fails on empty cells
	}
}
