package exporter

import (
	"os"
	"strings"
	"testing"

	"ambit/l7"
)

func TestDocumentNamesEveryAttribute(t *testing.T) {
	text, err := os.ReadFile("../docs/spans.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	full := exampleSpan()
	full.MethodOriginal, full.RequestBody, full.Status, full.Cut, full.Joined = "get", 1, 500, l7.CutHost, true
	server := *full
	server.Kind = l7.Server
	said := []string{SemconvVersion, SchemaURL}
	for _, s := range []*l7.Span{full, &server} {
		for key := range attributesOf(t, encodeSpan(t, s, QueryKeys).Attributes) {
			said = append(said, "`"+key+"`")
		}
	}
	for _, cut := range cutNames {
		said = append(said, "`"+cut+"`")
	}
	for _, reason := range dropReasons {
		said = append(said, "`"+reason+"`")
	}
	for _, s := range []l7.Span{{Ending: l7.EndedByClose}, {Ending: l7.EndedByReset}, {Ending: l7.EndedByIdle}} {
		said = append(said, "`"+failureOf(&s)+"`")
	}
	for _, s := range said {
		if !strings.Contains(doc, s) {
			t.Errorf("docs/spans.md does not tell of %s", s)
		}
	}
	for _, q := range []QueryCapture{QueryKeys, QueryValues, QueryNone} {
		shown := string(appendQuery(nil, "user=jo&page=2&debug", q))
		if shown == "" {
			shown = "not at all"
		}
		if !strings.Contains(doc, "| `"+q.String()+"`") || !strings.Contains(doc, shown) {
			t.Errorf("docs/spans.md does not show a query under %s as %s", q, shown)
		}
	}
}
