package parser

import (
	"bytes"
	"math/rand/v2"
	"slices"

	"golang.org/x/net/http2/hpack"
)

// headerEncoder writes the header blocks of one direction.
type headerEncoder interface {
	// resize changes the table; the next block says so.
	resize(size uint32)
	block(fields []hpack.HeaderField) []byte
}

// netEncoder is golang.org/x/net's.
type netEncoder struct {
	out bytes.Buffer
	*hpack.Encoder
}

func newNetEncoder() *netEncoder {
	e := new(netEncoder)
	e.Encoder = hpack.NewEncoder(&e.out)
	e.SetMaxDynamicTableSizeLimit(1 << 20)
	return e
}

func (e *netEncoder) resize(size uint32) { e.SetMaxDynamicTableSize(size) }

func (e *netEncoder) block(fields []hpack.HeaderField) []byte {
	e.out.Reset()
	for _, f := range fields {
		if err := e.WriteField(f); err != nil {
			panic(err)
		}
	}
	return bytes.Clone(e.out.Bytes())
}

// randomEncoder chooses among all that RFC 7541 allows for a field, whether it is of any use or not.
type randomEncoder struct {
	rng     *rand.Rand
	table   []hpack.HeaderField // the newest first
	size    uint32
	max     uint32
	updates []uint32
}

func newRandomEncoder(rng *rand.Rand) *randomEncoder { return &randomEncoder{rng: rng, max: 4096} }

// staticFields are index 1 and up.
var staticFields = func() []hpack.HeaderField {
	var out []hpack.HeaderField
	d := hpack.NewDecoder(0, func(f hpack.HeaderField) { out = append(out, f) })
	for i := range 61 {
		if _, err := d.Write([]byte{0x80 | byte(i+1)}); err != nil {
			panic(err)
		}
	}
	return out
}()

// resize may be told the smallest size of several too, or take a detour by another one.
func (e *randomEncoder) resize(size uint32) {
	if e.rng.IntN(3) == 0 {
		e.updates = append(e.updates, uint32(e.rng.IntN(int(size)+1)))
	}
	e.updates = append(e.updates, size)
}

func (e *randomEncoder) block(fields []hpack.HeaderField) []byte {
	var b []byte
	for _, size := range e.updates {
		e.max = size
		e.evict(0)
		b = e.integer(b, 0x20, 5, uint64(size))
	}
	e.updates = nil
	for _, f := range fields {
		b = e.field(b, f)
	}
	return b
}

func (e *randomEncoder) evict(room uint32) {
	for len(e.table) > 0 && e.size+room > e.max {
		last := len(e.table) - 1
		e.size -= e.table[last].Size()
		e.table = e.table[:last]
	}
}

func (e *randomEncoder) insert(f hpack.HeaderField) {
	e.evict(f.Size())
	if f.Size() <= e.max {
		e.table = slices.Insert(e.table, 0, f)
		e.size += f.Size()
	}
}

// indexes are where fields are that match.
func (e *randomEncoder) indexes(match func(hpack.HeaderField) bool) []int {
	var out []int
	for i, f := range slices.Concat(staticFields, e.table) {
		if match(f) {
			out = append(out, i+1)
		}
	}
	return out
}

func (e *randomEncoder) field(b []byte, f hpack.HeaderField) []byte {
	f.Sensitive = false
	whole := e.indexes(func(g hpack.HeaderField) bool { return f.Name == g.Name && f.Value == g.Value })
	if len(whole) > 0 && e.rng.IntN(4) > 0 {
		return e.integer(b, 0x80, 7, uint64(whole[e.rng.IntN(len(whole))]))
	}
	names := e.indexes(func(g hpack.HeaderField) bool { return f.Name == g.Name })
	name := 0
	if len(names) > 0 && e.rng.IntN(3) > 0 {
		name = names[e.rng.IntN(len(names))]
	}
	form := e.rng.IntN(5)
	switch form {
	case 0:
		b = e.integer(b, 0x00, 4, uint64(name))
	case 1:
		b = e.integer(b, 0x10, 4, uint64(name))
	default:
		b = e.integer(b, 0x40, 6, uint64(name))
	}
	if name == 0 {
		b = e.text(b, f.Name)
	}
	b = e.text(b, f.Value)
	if form > 1 {
		e.insert(f)
	}
	return b
}

func (e *randomEncoder) text(b []byte, s string) []byte {
	if e.rng.IntN(2) == 0 {
		return append(e.integer(b, 0, 7, uint64(len(s))), s...)
	}
	return hpack.AppendHuffmanString(e.integer(b, 0x80, 7, hpack.HuffmanEncodeLength(s)), s)
}

// integer writes v with a prefix of so many bits, seldom with zeros behind that nobody needs.
func (e *randomEncoder) integer(b []byte, pattern byte, bits int, v uint64) []byte {
	full := uint64(1)<<bits - 1
	if v < full {
		return append(b, pattern|byte(v))
	}
	b = append(b, pattern|byte(full))
	v -= full
	more := 0
	if e.rng.IntN(20) == 0 {
		more = 1 + e.rng.IntN(2)
	}
	for v >= 128 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	if more > 0 {
		b = append(b, byte(v)|0x80)
		for range more - 1 {
			b = append(b, 0x80)
		}
		v = 0
	}
	return append(b, byte(v))
}
