package l7

import (
	"fmt"

	"ambit/bpf"
)

// ruleBits has a bit for each line of a set of rules that accepts something. It is a row of the kernel's table.
type ruleBits [bpf.RulesMax / 64]uint64

func (b *ruleBits) set(line int) { b[line/64] |= 1 << (line % 64) }

func (b ruleBits) or(other ruleBits) ruleBits {
	for i := range b {
		b[i] |= other[i]
	}
	return b
}

// rowStore gives equal rows one index in the table.
type rowStore struct {
	table *bpf.Rules
	index map[ruleBits]uint32
}

func newRowStore(table *bpf.Rules) rowStore {
	return rowStore{table, make(map[ruleBits]uint32)}
}

func (s *rowStore) put(row ruleBits) (uint32, error) {
	if at, known := s.index[row]; known {
		return at, nil
	}
	if len(s.index) == len(s.table.Rows) {
		return 0, fmt.Errorf("the rules name too many different things: %d sets of rules that hold together are kept; name fewer values, or give rules the same ones", len(s.table.Rows))
	}
	at := uint32(len(s.index))
	s.table.Rows[at] = row
	for i, word := range row {
		if word != 0 {
			s.table.Summary[at] |= 1 << i
		}
	}
	s.index[row] = at
	return at, nil
}

// column collects which lines accept what of one field.
type column struct {
	field  int
	free   ruleBits // lines that don't look at it
	any    ruleBits // lines that any value will do for
	values map[string]ruleBits
	order  []string // of values, so that a table comes out the same each time
}

func newColumn(field int) *column {
	return &column{field: field, values: make(map[string]ruleBits)}
}

// name makes sure that a value has a row of its own.
func (c *column) name(value string, line int) {
	row, known := c.values[value]
	if !known {
		c.order = append(c.order, value)
	}
	row.set(line)
	c.values[value] = row
}

// add lets a line accept values; without values it does not look at the field.
func (c *column) add(line int, values []string) {
	if len(values) == 0 {
		c.free.set(line)
	}
	for _, v := range values {
		c.name(v, line)
	}
}

func (c *column) header(line int, h *HeaderCondition) {
	if h.Present {
		c.any.set(line)
		return
	}
	c.add(line, h.Values)
}

// include gives each value what another one, its wider form, has too.
func (c *column) include(wider func(string) string) {
	for _, v := range c.order {
		if w := wider(v); w != v {
			c.values[v] = c.values[v].or(c.values[w])
		}
	}
}

// cell is a value's row in the table.
type cell struct {
	field int
	value string
	row   uint32
}

// cells puts the column's rows, the complete ones: what is found first holds alone. free is the row of what is not there,
// present that of what has no row of its own.
func (c *column) cells(rows *rowStore) (cells []cell, free, present uint32, err error) {
	if free, err = rows.put(c.free); err != nil {
		return nil, 0, 0, err
	}
	all := c.free.or(c.any)
	if present, err = rows.put(all); err != nil {
		return nil, 0, 0, err
	}
	for _, v := range c.order {
		row, err := rows.put(c.values[v].or(all))
		if err != nil {
			return nil, 0, 0, err
		}
		cells = append(cells, cell{c.field, v, row})
	}
	return cells, free, present, nil
}

// looked tells whether some rule looks at the field.
func (c *column) looked() bool { return len(c.order) > 0 || c.any != (ruleBits{}) }

// longest is how many bytes the longest value has.
func (c *column) longest() (n uint32) {
	for _, v := range c.order {
		n = max(n, uint32(len(v)))
	}
	return n
}

// seedTries is how many seeds are tried: a set of 1,000 values finds its own within a few hundred.
const seedTries = 4096

// bucketBits are the highest ones of a key: where the kernel looks for it.
const bucketBits = bpf.MatchBucketBits

// place puts the cells into the table, under the first seed by which no bucket overflows. Values are hashed by the given one.
func place(table *bpf.Rules, cells []cell, seed uint64) error {
	most := len(table.Table) * len(table.Table[0])
	if len(cells) > most {
		return fmt.Errorf("the rules name %d values; allowed: %d", len(cells), most)
	}
	for try := range uint64(seedTries) {
		table.Seed = mix(seed, try)
		if fill(table, cells, seed) {
			return nil
		}
	}
	return fmt.Errorf("the rules name %d values, for which the kernel's table has no room; name fewer", len(cells))
}

// fill tells whether all cells have found a place.
func fill(table *bpf.Rules, cells []cell, seed uint64) bool {
	clear(table.Table[:])
cells:
	for i := range cells {
		key := matchKey(table.Seed, cells[i].field, hashText(seed, cells[i].value))
		if key>>rowBits == 0 {
			return false // a free slot looks so
		}
		bucket := &table.Table[key>>(64-bucketBits)]
		for slot := range bucket {
			switch bucket[slot] >> rowBits {
			case key >> rowBits:
				return false // two values of one hash
			case 0:
				bucket[slot] = key>>rowBits<<rowBits | uint64(cells[i].row)
				continue cells
			}
		}
		return false
	}
	return true
}
