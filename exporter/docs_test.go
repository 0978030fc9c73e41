package exporter

import (
	"os"
	"strconv"
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
	ruled := server
	ruled.RouteFromRule = true
	call := exampleCall()
	call.Path, call.Status, call.RequestUnknown, call.Ending = "/health", 503, true, l7.EndedByStreamReset
	said := []string{SemconvVersion, SchemaURL}
	for _, s := range []*l7.Span{full, &server, &ruled, call} {
		for key := range attributesOf(t, encodeCaptured(t, s, everything).Attributes) {
			said = append(said, "`"+key+"`")
		}
	}
	for _, event := range encodeSpan(t, full, QueryKeys).Events {
		said = append(said, "`"+event.Name+"`")
		for key := range attributesOf(t, event.Attributes) {
			said = append(said, "`"+key+"`")
		}
	}
	for status := 400; status < 600; status++ {
		if code := l7.GRPCOfHTTP(status); code != l7.GRPCUnknown {
			said = append(said, strconv.Itoa(status), "`"+code.String()+"`")
		}
	}
	for code := range l7.ErrorCode(14) {
		if means := code.GRPC(); means != l7.GRPCInternal {
			said = append(said, "`"+code.String()+"`", "`"+means.String()+"`")
		}
	}
	for r := l7.ReasonHead; r <= l7.ReasonAnomaly; r++ {
		said = append(said, "`"+r.String()+"`")
	}
	for _, cut := range cutNames {
		said = append(said, "`"+cut.name+"`")
	}
	for _, reason := range dropReasons {
		said = append(said, "`"+reason+"`")
	}
	for _, s := range []l7.Span{{Ending: l7.EndedByClose}, {Ending: l7.EndedByReset}, {Ending: l7.EndedByIdle},
		{Ending: l7.EndedByStreamReset}, {Ending: l7.EndedByStreamReset, ErrorCode: 0x1f}, {Ending: l7.EndedByRefusal}} {
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
