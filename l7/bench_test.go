package l7

import (
	"testing"

	"ambit/bpf"
)

// BenchmarkAssemble is one record of both sides.
func BenchmarkAssemble(b *testing.B) {
	r := record(map[int]string{
		bpf.FieldRequestLine: "GET /api/v1/users/10000?fields=name HTTP/1.1",
		bpf.FieldHost:        "backend.shop.svc.cluster.local:8080", bpf.FieldUserAgent: "bench/1.0",
	})
	r.Flags = bpf.FlagOpenerTraced
	withThreshold(r)
	a := NewAssembler()
	var out [bpf.Sides]Span
	b.ReportAllocs()
	for b.Loop() {
		a.Assemble(r, 0, &out)
	}
}
