package meta

import (
	"fmt"
	"os"
	"testing"

	"ambit/l7"
)

func BenchmarkEnrichHit(b *testing.B) {
	m := live(b, Config{})
	for _, owners := range []uint64{1, 1000} {
		b.Run(fmt.Sprint(owners), func(b *testing.B) {
			spans := make([]l7.Span, owners)
			for i := range spans {
				spans[i].Owner = owner(b, os.Getpid())
				spans[i].Owner.NetNS = uint64(i)
				m.Enrich(&spans[i])
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m.Enrich(&spans[uint64(i)%owners])
			}
		})
	}
}

func BenchmarkEnrichMiss(b *testing.B) {
	f := live(b, Config{})
	r := <-f.readers
	o := owner(b, os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		s, _ := f.look(r, o)
		f.build(s)
	}
}

func TestEnrichDoesNotAllocateOnAHit(t *testing.T) {
	m := live(t, Config{})
	span := l7.Span{Owner: owner(t, os.Getpid())}
	m.Enrich(&span)
	if allocations := testing.AllocsPerRun(1000, func() { m.Enrich(&span) }); allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}
