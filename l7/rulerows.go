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

// cell is a value's row in the table, and what its key is made of.
type cell struct {
	field    int
	value    string
	presence bool // of any value; there is no value
	row      uint32
}

func (c *cell) key(seed uint64) uint64 {
	if c.presence {
		return presenceKey(seed, c.field)
	}
	return valueKey(seed, c.field, c.value)
}

// cells puts the column's rows, the complete ones: what is found first holds alone.
func (c *column) cells(rows *rowStore) (cells []cell, free uint32, err error) {
	if free, err = rows.put(c.free); err != nil {
		return nil, 0, err
	}
	present := c.free.or(c.any)
	if c.any != (ruleBits{}) {
		row, err := rows.put(present)
		if err != nil {
			return nil, 0, err
		}
		cells = append(cells, cell{field: c.field, presence: true, row: row})
	}
	for _, v := range c.order {
		row, err := rows.put(c.values[v].or(present))
		if err != nil {
			return nil, 0, err
		}
		cells = append(cells, cell{field: c.field, value: v, row: row})
	}
	return cells, free, nil
}

// seedTries is how many seeds are tried: a set of 1,000 values finds its own within a few hundred.
const seedTries = 4096

// bucketOf is where the kernel looks for a key.
func bucketOf(key uint64) int {
	return int(key >> 1 % uint64(len(bpf.Rules{}.Table))) // the lowest bit is always set
}

// place puts the cells into the table, under the first seed from the given one on by which no bucket overflows.
func place(table *bpf.Rules, cells []cell, seed uint64) error {
	most := len(table.Table) * len(table.Table[0])
	if len(cells) > most {
		return fmt.Errorf("the rules name %d values; allowed: %d", len(cells), most)
	}
	for try := range uint64(seedTries) {
		table.Seed = mix(seed, try)
		if fill(table, cells) {
			return nil
		}
	}
	return fmt.Errorf("the rules name %d values, for which the kernel's table has no room; name fewer", len(cells))
}

// fill tells whether all cells have found a place.
func fill(table *bpf.Rules, cells []cell) bool {
	clear(table.Table[:])
cells:
	for i := range cells {
		key := cells[i].key(table.Seed)
		bucket := &table.Table[bucketOf(key)]
		for slot := range bucket {
			if bucket[slot].Key == key {
				return false // two values of one hash
			}
			if bucket[slot].Key == 0 {
				bucket[slot].Key, bucket[slot].Row = key, uint64(cells[i].row)
				continue cells
			}
		}
		return false
	}
	return true
}
