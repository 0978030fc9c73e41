package l7

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ambit/bpf"
)

// MaxCaps is how many rules may have a cap of their own. Two sets are in the kernel while one follows the other.
const MaxCaps = (bpf.BudgetsMax - bpf.BudgetCaps) / 2

// line is what one bit of a row stands for: a rule, or a part of one. A row per segment accepts no list of whole paths,
// so a rule with several may be several lines, of the same action.
type line struct {
	rule int
	path pathPattern
}

// pathPattern accepts paths by their segments, each a list of which one must be there; an empty list is any.
type pathPattern struct {
	free     bool // it does not look at the path
	open     bool // more segments may follow
	segments [][]string
	template string
}

// Compiled is a set of rules as the kernel takes it.
type Compiled struct {
	// Rules are those that were given, and the one behind them all, which accepts everything.
	Rules []Rule
	// Table and Actions are for bpf.Kernel.SetRules. An action's Rule is the place in Rules; several actions may have
	// the same.
	Table   *bpf.Rules
	Actions []bpf.Action

	lines []line
	rows  rowStore
}

// Compile makes of rules, in the order in which they are asked, what the kernel matches by that hashes by this seed:
// bpf.Kernel.Seed. Errors that are one rule's are *RuleError. Caps are not placed yet: SetCap.
func Compile(rules []Rule, seed uint64) (*Compiled, error) {
	if err := ValidateRules(rules); err != nil {
		return nil, err
	}
	c := &Compiled{
		Rules: append(slices.Clone(rules), Rule{Name: DefaultRule}),
		Table: new(bpf.Rules),
	}
	c.rows = newRowStore(c.Table)
	caps := 0
	for i := range c.Rules {
		for _, p := range patterns(&c.Rules[i].Match) {
			c.lines = append(c.lines, line{i, p})
		}
		if c.Rules[i].Action.Cap > 0 {
			if caps++; caps > MaxCaps {
				return nil, &RuleError{i, c.Rules[i].Name, wrong("cap", -1, "", "%d rules have one; allowed: %d", caps, MaxCaps)}
			}
		}
	}
	if len(c.lines) > bpf.RulesMax {
		return nil, fmt.Errorf("the rules are %d, where those with several paths count as several; allowed: %d, with the default ones", len(c.lines), bpf.RulesMax)
	}
	t := c.Table
	t.Count, t.Words = uint32(len(c.lines)), uint32(len(c.lines)+63)/64
	if err := c.fixedRows(); err != nil {
		return nil, err
	}
	columns := c.columns()
	var cells []cell
	for _, col := range columns {
		more, free, present, err := col.cells(&c.rows)
		if err != nil {
			return nil, err
		}
		t.DefaultRow[col.field], t.PresentRow[col.field], t.Longest[col.field] = free, present, col.longest()
		cells = append(cells, more...)
		if !col.looked() {
			continue
		}
		if col.field < bpf.MatchExtension {
			t.Segments = max(t.Segments, uint32(col.field+1))
		} else {
			t.Fields |= 1 << col.field
		}
	}
	if err := place(t, cells, seed); err != nil {
		return nil, err
	}
	for i := range c.lines {
		a := c.action(&c.lines[i], seed)
		if a.Flags&bpf.ActionHTTPRoute != 0 {
			t.Templates |= 1 << (i / 64)
			t.TemplateRules[i/64] |= 1 << (i % 64)
		}
		c.Actions = append(c.Actions, a)
	}
	unknown, err := c.ServiceRow("")
	if err != nil {
		return nil, err
	}
	for i := range t.ServiceRow {
		t.ServiceRow[i] = unknown
	}
	return c, nil
}

// SetCap gives a rule the budget of this index.
func (c *Compiled) SetCap(rule int, budget uint32) {
	for i := range c.Actions {
		if int(c.Actions[i].Rule) == rule {
			c.Actions[i].Cap = budget
		}
	}
}

// Template is the template that names the route of a line, by its place among Actions; "" where there is none.
func (c *Compiled) Template(place int) string {
	if place < 0 || place >= len(c.lines) {
		return ""
	}
	return c.lines[place].path.template
}

// ServiceRow is the row of the rules that accept a service of this name; one that is not known, "", has those that look
// at no service. The row may be new in Table, which is to be put in force then. The error says that there is no room.
func (c *Compiled) ServiceRow(name string) (uint32, error) {
	return c.rowOf(func(m *Conditions, _ *pathPattern) bool {
		return len(m.Services) == 0 || name != "" && slices.ContainsFunc(m.Services, func(s string) bool {
			return MatchesService(s, name)
		})
	})
}

// MatchesService tells whether a pattern, a name or the beginning of names with * behind, accepts a service.
func MatchesService(pattern, name string) bool {
	begin, open := strings.CutSuffix(pattern, "*")
	return name == pattern || open && strings.HasPrefix(name, begin)
}

// rowOf puts the row of the lines that accept something.
func (c *Compiled) rowOf(accepts func(*Conditions, *pathPattern) bool) (uint32, error) {
	var row ruleBits
	for i := range c.lines {
		if accepts(&c.Rules[c.lines[i].rule].Match, &c.lines[i].path) {
			row.set(i)
		}
	}
	return c.rows.put(row)
}

// fixedRows fills in the rows that are found by a small number.
func (c *Compiled) fixedRows() error {
	t := c.Table
	var err error
	fill := func(into *uint32, accepts func(*Conditions, *pathPattern) bool) {
		if err == nil {
			*into, err = c.rowOf(accepts)
		}
	}
	for kind := range t.KindRow {
		fill(&t.KindRow[kind], func(m *Conditions, _ *pathPattern) bool {
			return len(m.Kinds) == 0 || slices.Contains(m.Kinds, Kind(kind))
		})
	}
	for method := range t.MethodRow {
		name := ""
		if method < len(bpf.Methods) {
			name = bpf.Methods[method]
		}
		fill(&t.MethodRow[method], func(m *Conditions, _ *pathPattern) bool {
			return len(m.Methods) == 0 || slices.Contains(m.Methods, name)
		})
	}
	for depth := range t.DepthRow {
		fill(&t.DepthRow[depth], func(_ *Conditions, p *pathPattern) bool {
			return p.free || depth == len(p.segments) || p.open && depth > len(p.segments)
		})
	}
	for grpc := range t.GrpcRow {
		fill(&t.GrpcRow[grpc], func(m *Conditions, _ *pathPattern) bool { return m.GRPC == nil || grpc == 1 })
	}
	for class := range t.StatusRow {
		fill(&t.StatusRow[class], func(m *Conditions, _ *pathPattern) bool {
			return len(m.Statuses) == 0 || slices.Contains(m.Statuses, statusClasses[class])
		})
	}
	fill(&t.AnyStatusRow, func(m *Conditions, _ *pathPattern) bool { return len(m.Statuses) == 0 })
	if slices.ContainsFunc(c.Rules, func(r Rule) bool { return len(r.Match.Statuses) > 0 }) {
		t.Statuses = 1
	}
	return err
}

// columns collects what is found by a key.
func (c *Compiled) columns() []*column {
	columns := make([]*column, bpf.MatchFields)
	for f := range columns {
		columns[f] = newColumn(f)
	}
	for i := range c.lines {
		m, p := &c.Rules[c.lines[i].rule].Match, &c.lines[i].path
		for s := range bpf.Segments {
			var values []string
			if s < len(p.segments) {
				values = p.segments[s]
			}
			columns[bpf.MatchSegment+s].add(i, values)
		}
		columns[bpf.MatchExtension].add(i, m.Extensions)
		var hosts, clients []string
		for _, h := range m.Hosts {
			// The key of *.rest is that of .rest, and that of an address of IPv6 ends before its bracket.
			hosts = append(hosts, strings.TrimSuffix(strings.TrimPrefix(h, "*"), "]"))
		}
		columns[bpf.MatchHost].add(i, hosts)
		for _, a := range m.Clients {
			b := a.As16()
			clients = append(clients, string(b[:]))
		}
		columns[bpf.MatchClient].add(i, clients)
		columns[bpf.MatchUserAgent].header(i, &m.Headers.UserAgent)
		columns[bpf.MatchRequestID].header(i, &m.Headers.RequestID)
		columns[bpf.MatchContentType].header(i, &m.Headers.ContentType)
		columns[bpf.MatchForceTrace].header(i, &m.Headers.ForceTrace)
		columns[bpf.MatchBaggage].header(i, &m.Headers.Baggage)
	}
	columns[bpf.MatchHost].include(func(h string) string {
		if at := strings.IndexByte(h, '.'); at >= 0 {
			return h[at:]
		}
		return h
	})
	columns[bpf.MatchUserAgent].include(product)
	columns[bpf.MatchBaggage].include(func(member string) string {
		key, _, _ := strings.Cut(member, "=")
		return key
	})
	return columns
}

// patterns are the lines of a rule.
func patterns(m *Conditions) []pathPattern {
	if g := m.GRPC; g != nil && len(g.Services)+len(g.Methods) > 0 {
		return []pathPattern{{segments: [][]string{g.Services, g.Methods}}}
	}
	var out []pathPattern
	for _, e := range m.Path.Exact {
		out = join(out, pathPattern{segments: single(e)})
	}
	for _, e := range m.Path.Prefixes {
		out = join(out, pathPattern{segments: single(e), open: true})
	}
	for _, template := range m.Path.Templates {
		p := pathPattern{segments: single(template), template: template}
		for i, s := range p.segments {
			if isPlaceholder(s[0]) {
				p.segments[i] = nil
			}
		}
		out = append(out, p)
	}
	if out == nil {
		out = []pathPattern{{free: true}}
	}
	return out
}

func single(path string) (segments [][]string) {
	for _, s := range strings.FieldsFunc(path, isSlash) {
		segments = append(segments, []string{s})
	}
	return segments
}

// join adds a path to the pattern that differs from it in the last segment alone, or as one of its own.
func join(patterns []pathPattern, p pathPattern) []pathPattern {
	last := len(p.segments) - 1
	for i := range patterns {
		q := &patterns[i]
		if last >= 0 && len(q.segments) == len(p.segments) && slices.EqualFunc(q.segments[:last], p.segments[:last], slices.Equal) {
			if !slices.Contains(q.segments[last], p.segments[last][0]) {
				q.segments[last] = append(q.segments[last], p.segments[last][0])
			}
			return patterns
		}
	}
	return append(patterns, p)
}

// action is what the kernel does by a line.
func (c *Compiled) action(l *line, seed uint64) bpf.Action {
	r := &c.Rules[l.rule].Action
	a := bpf.Action{
		Rule: uint16(l.rule), Class: classOf(r.Class), Parent: parentOf(r.Parent),
		SlowNs: uint64(defaultSlow), TailThreshold: bpf.Threshold(1),
	}
	if l.path.template != "" {
		a.Flags |= bpf.ActionHTTPRoute
		a.Route = hashText(seed, l.path.template)
	}
	if r.Drop {
		a.Flags |= bpf.ActionDrop
		a.TailThreshold = bpf.ThresholdNever
		return a
	}
	if r.Always {
		a.Flags, a.Threshold, a.Parent = a.Flags|bpf.ActionRate, bpf.Threshold(1), bpf.ParentIgnore
	}
	if r.Rate != nil {
		a.Flags, a.Threshold = a.Flags|bpf.ActionRate, bpf.Threshold(*r.Rate)
	}
	if r.Force {
		a.Flags |= bpf.ActionForce
	}
	if r.Slow != nil {
		if a.SlowNs = uint64(*r.Slow); a.SlowNs == 0 {
			a.SlowNs = ^uint64(0)
		}
	}
	if r.TailRate != nil {
		a.TailThreshold = bpf.Threshold(*r.TailRate)
	}
	failures(&a, r.Errors)
	return a
}

// failures says what the tail takes for failed.
func failures(a *bpf.Action, e *ErrorRule) {
	if e == nil {
		e = new(ErrorRule)
	}
	if e.Off {
		a.Flags |= bpf.ActionGRPCCodes
		return
	}
	if e.Statuses == nil {
		a.StatusClasses = 1 << 5
	}
	chosen := 0
	for _, s := range e.Statuses {
		if class := slices.Index(statusClasses[:], s); class > 0 {
			a.StatusClasses |= 1 << class
			continue
		}
		n, _ := strconv.ParseUint(s, 10, 16) // Validate has seen it
		a.Statuses[chosen] = uint16(n)
		chosen++
	}
	if e.GRPC != nil {
		a.Flags |= bpf.ActionGRPCCodes
		for _, code := range e.GRPC {
			a.GrpcCodes |= 1 << code
		}
	}
	if e.Endings == nil {
		for end := EndedByClose; int(end) < len(endings); end++ {
			a.Endings |= 1 << end
		}
	}
	for _, end := range e.Endings {
		a.Endings |= 1 << end
	}
}

func classOf(word string) uint8 {
	switch word {
	case classCritical:
		return bpf.ClassCritical
	case classBackground:
		return bpf.ClassBackground
	}
	return bpf.ClassNormal
}

func parentOf(word string) uint8 {
	switch word {
	case parentIgnore:
		return bpf.ParentIgnore
	case parentScale:
		return bpf.ParentScale
	}
	return bpf.ParentHonour
}
