package bpf

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Rules is a set of rules in the form in which the kernel matches them: struct rules in sampling_abi.h.
type Rules = ambitRules

// Action is what one of them does: struct action in sampling_abi.h.
type Action = ambitAction

// Sizes of Rules.
const (
	// RulesMax is the number of bits of a row.
	RulesMax = len(Rules{}.TemplateRules) * 64
	// Segments is how many segments of a path are looked up.
	Segments = int(ambitMatchFieldMATCH_EXTENSION - ambitMatchFieldMATCH_SEGMENT)
	// MatchBucketBits are the highest bits of a key in Rules.Table: its bucket.
	MatchBucketBits = 12 // MATCH_BUCKET_BITS
	// BaggageRows is how many members of baggage that some rule names are looked at in one request.
	BaggageRows = 3 // BAGGAGE_ROWS
	// BaggageMembers is how many members are looked at.
	BaggageMembers = 16 // BAGGAGE_MEMBERS
)

// What rules look at, the index of Rules.DefaultRow and part of the keys of Rules.Table. MatchSegment is the first of Segments.
const (
	MatchSegment     = int(ambitMatchFieldMATCH_SEGMENT)
	MatchExtension   = int(ambitMatchFieldMATCH_EXTENSION)
	MatchHost        = int(ambitMatchFieldMATCH_HOST)
	MatchClient      = int(ambitMatchFieldMATCH_CLIENT)
	MatchUserAgent   = int(ambitMatchFieldMATCH_USER_AGENT)
	MatchRequestID   = int(ambitMatchFieldMATCH_REQUEST_ID)
	MatchContentType = int(ambitMatchFieldMATCH_CONTENT_TYPE)
	MatchForceTrace  = int(ambitMatchFieldMATCH_FORCE_TRACE)
	MatchBaggage     = int(ambitMatchFieldMATCH_BAGGAGE)
	MatchFields      = int(ambitMatchFieldMATCH_FIELDS)
)

// Methods are the known ones by their index in Rules.MethodRow; index 0 is any other.
var Methods = [...]string{
	ambitMethodMETHOD_GET: "GET", ambitMethodMETHOD_HEAD: "HEAD", ambitMethodMETHOD_POST: "POST", ambitMethodMETHOD_PUT: "PUT",
	ambitMethodMETHOD_DELETE: "DELETE", ambitMethodMETHOD_CONNECT: "CONNECT", ambitMethodMETHOD_OPTIONS: "OPTIONS",
	ambitMethodMETHOD_TRACE: "TRACE", ambitMethodMETHOD_PATCH: "PATCH", ambitMethodMETHOD_QUERY: "QUERY",
}

// Bits of Action.Flags.
const (
	ActionDrop      = uint32(ambitActionFlagsACTION_DROP)
	ActionRate      = uint32(ambitActionFlagsACTION_RATE)
	ActionForce     = uint32(ambitActionFlagsACTION_FORCE)
	ActionGRPCCodes = uint32(ambitActionFlagsACTION_GRPC_CODES)
	ActionHTTPRoute = uint32(ambitActionFlagsACTION_HTTP_ROUTE)
)

// Values of Action.Class and Action.Parent.
const (
	ClassCritical   = uint8(ambitTrafficClassCLASS_CRITICAL)
	ClassNormal     = uint8(ambitTrafficClassCLASS_NORMAL)
	ClassBackground = uint8(ambitTrafficClassCLASS_BACKGROUND)
	TrafficClasses  = int(ambitTrafficClassTRAFFIC_CLASSES)
	ParentHonour    = uint8(ambitParentRulePARENT_HONOUR)
	ParentIgnore    = uint8(ambitParentRulePARENT_IGNORE)
	ParentScale     = uint8(ambitParentRulePARENT_SCALE)
)

// ruleSets is what putting rules in force needs, and remembers.
type ruleSets struct {
	mu         sync.Mutex
	inner      *ebpf.MapSpec // of a set
	actions    []Action      // the ring, as the kernel has it
	memory     []byte        // the same
	generation uint32        // of the set in force, 0: none
	place      uint32        // in the ring, of its first action
	count      uint32        // of its actions
	bytes      uint64        // that the set in force takes
}

// mapMemory maps the whole of a mmapable array, whose values are a multiple of 8 bytes.
func mapMemory(m *ebpf.Map) ([]byte, error) {
	page := os.Getpagesize()
	size := (int(m.MaxEntries())*int(m.ValueSize()) + page - 1) / page * page
	return unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func (s *ruleSets) open(actions, sets *ebpf.Map) error {
	memory, err := mapMemory(actions)
	if err != nil {
		return fmt.Errorf("map the actions of rules: %w", err)
	}
	s.memory = memory
	s.actions = unsafe.Slice((*Action)(unsafe.Pointer(&memory[0])), int(actions.MaxEntries()))
	return s.resume(sets)
}

// resume goes on behind the set that an earlier daemon put in force, if there is one.
func (s *ruleSets) resume(sets *ebpf.Map) error {
	var set *ebpf.Map
	if err := sets.Lookup(uint32(0), &set); err != nil {
		return fmt.Errorf("look for the rules in force: %w", err)
	}
	defer set.Close()
	table := new(Rules)
	if err := set.Lookup(uint32(0), table); err != nil {
		return fmt.Errorf("read the rules in force: %w", err)
	}
	s.generation, s.place, s.count = table.Generation, table.Actions, table.Count
	return nil
}

func (s *ruleSets) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.memory == nil {
		return nil
	}
	memory := s.memory
	s.memory, s.actions = nil, nil
	return unix.Munmap(memory)
}

// write puts an action into the ring. Whoever reads it sees a generation that is not its own, or all of it.
func (s *ruleSets) write(at uint32, a *Action, generation uint32) {
	slot := &s.actions[at%uint32(len(s.actions))]
	atomic.StoreUint32(&slot.Generation, 0)
	// Plain stores between atomic ones stay between them: those of Go order everything.
	next := *a
	next.Generation = 0
	*slot = next
	atomic.StoreUint32(&slot.Generation, generation)
}

// SetRules puts rules in force, all at once: no request is decided by a part of them. It fills in the table's
// Generation and Actions, and the actions' Generation; actions has one for each of the table's rules, Count in all. What
// an older set decided keeps its actions until the ring has come round. It returns the new generation, which counts
// from 1; on an error the older set is in force.
func (k *Kernel) SetRules(table *Rules, actions []Action) (generation uint32, err error) {
	s := &k.rules
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.memory == nil {
		return 0, errors.New("set the rules: the kernel side is closed")
	}
	if len(actions) == 0 || len(actions) > RulesMax || int(table.Count) != len(actions) {
		return 0, fmt.Errorf("set the rules: %d rules and %d actions; allowed: as many of both, from 1 to %d", table.Count, len(actions), RulesMax)
	}
	generation = s.generation + 1
	if generation == 0 { // which is no set
		generation = 1
	}
	place := (s.place + s.count) % uint32(len(s.actions))
	for i := range actions {
		actions[i].Generation = generation
		s.write(place+uint32(i), &actions[i], generation)
	}
	before := [2]uint32{table.Generation, table.Actions}
	table.Generation, table.Actions = generation, place
	if err := k.putRules(table); err != nil {
		table.Generation, table.Actions = before[0], before[1]
		return 0, err
	}
	s.generation, s.place, s.count = generation, place, uint32(len(actions))
	return generation, nil
}

// SetServiceRows puts the set in force anew, all at once, for the rows of services that the table has got since
// SetRules, which it must come from. Generation and actions stay.
func (k *Kernel) SetServiceRows(table *Rules) error {
	s := &k.rules
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.memory == nil {
		return errors.New("set the services' rules: the kernel side is closed")
	}
	if s.generation == 0 || table.Generation != s.generation {
		return fmt.Errorf("set the services' rules: of generation %d, and %d is in force", table.Generation, s.generation)
	}
	return k.putRules(table)
}

// putRules replaces the set in force. A map's update waits until no program uses the old one any more.
func (k *Kernel) putRules(table *Rules) error {
	set, err := ebpf.NewMap(k.rules.inner)
	if err != nil {
		return fmt.Errorf("make a set of rules: %w", err)
	}
	defer set.Close() // the outer map holds it
	if err := set.Put(uint32(0), table); err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	info, err := set.Info()
	if err != nil {
		return fmt.Errorf("ask for the set of rules: %w", err)
	}
	if err := k.objs.RuleSets.Put(uint32(0), set); err != nil {
		return fmt.Errorf("put the rules in force: %w", err)
	}
	k.rules.bytes, _ = info.Memlock()
	return nil
}

// RulesGeneration is that of the rules in force, 0 where there are none.
func (k *Kernel) RulesGeneration() uint32 {
	k.rules.mu.Lock()
	defer k.rules.mu.Unlock()
	return k.rules.generation
}

// rulesBytes is the memory of the set in force, which is a map within another.
func (k *Kernel) rulesBytes() uint64 {
	k.rules.mu.Lock()
	defer k.rules.mu.Unlock()
	return k.rules.bytes
}
