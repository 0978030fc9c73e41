package exporter

import (
	"reflect"
	"testing"
)

func TestAnomalyIsAnEvent(t *testing.T) {
	s := exampleSpan()
	events := encodeSpan(t, s, QueryKeys).Events
	if len(events) != 1 {
		t.Fatalf("%d events, want 1", len(events))
	}
	want := map[string]any{"ambit.anomaly.kind": "latency_shift", "ambit.anomaly.value": 0.5, "ambit.anomaly.usual": 0.25}
	if e := events[0]; e.Name != "ambit.anomaly" || e.TimeUnixNano != uint64(startOfTest) || !reflect.DeepEqual(attributesOf(t, e.Attributes), want) {
		t.Errorf("got %v", e)
	}
	s.Anomaly = nil
	if events := encodeSpan(t, s, QueryKeys).Events; len(events) != 0 {
		t.Errorf("a usual route has %v", events)
	}
}
