package exporter

import "net/netip"

// memo is the last value of a text that most spans of a node have in common, such as the method or the scheme, as it
// was encoded. What follows with the same value is a comparison and a copy: it was found to be UTF-8 before.
type memo struct {
	value string
	wire  []byte // nil: no value yet
}

func (m *memo) holds(v string) bool {
	return m.value == v && m.wire != nil
}

// appendAgain appends an attribute through its memo.
func (e *encoder) appendAgain(b []byte, m *memo, key wireKey, v string) []byte {
	if !m.holds(v) {
		text := e.valid(v)
		m.wire = appendStringAttribute(m.wire[:0], key, text)
		m.value = text // which v is not where it was repaired: every such v counts
	}
	return append(b, m.wire...)
}

// addressMemo is memo for an address.
type addressMemo struct {
	addr netip.Addr
	wire []byte
}

// appendAddress appends addr, which is valid, as the attributes keys.
func (e *encoder) appendAddress(b []byte, m *addressMemo, addr netip.Addr, keys ...wireKey) []byte {
	if m.addr != addr {
		e.text = addr.AppendTo(e.text[:0])
		m.addr, m.wire = addr, m.wire[:0]
		for _, key := range keys {
			m.wire = appendStringAttribute(m.wire, key, e.text)
		}
	}
	return append(b, m.wire...)
}
