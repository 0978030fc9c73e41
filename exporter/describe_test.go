package exporter

import (
	"reflect"
	"testing"

	"ambit/l7"
)

func TestDescriptionIsWhatIsSent(t *testing.T) {
	s := exampleSpan()
	s.Status, s.Joined, s.Cut = 404, true, l7.CutHost
	got, err := Describe(s, Capture{Query: QueryNone})
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "GET" || got.Error != "404" || got.TraceState != "ot=th:8" {
		t.Errorf("it is %+v", got)
	}
	want := attributesOf(t, encodeSpan(t, s, QueryNone).Attributes)
	want["ambit.cut"] = []any{"host"}
	want["http.request.header.x-request-id"] = []any{s.RequestID}
	if !reflect.DeepEqual(got.Attributes, want) {
		t.Errorf("attributes are\n%v\nnot\n%v", got.Attributes, want)
	}
}
