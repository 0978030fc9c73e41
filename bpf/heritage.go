package bpf

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// A daemon hands its maps over to the next one, whose programs work on with them: connections keep their HPACK tables,
// exchanges under way their beginnings, counters their counts. Maps that the configuration alone fills are made anew.

// own are the maps that are made anew: they are read by the programs that they were made with.
var own = map[string]bool{
	"cidrs": true, "excluded_ports": true, "excluded_cgroups": true, ambitMapNoRules: true,
}

// heritageName is the map that says what the others were made by. It is kept last: without it the others are not taken.
const heritageName = "heritage"

// kept lists the maps that are handed over, the heritage last.
func kept(spec *ebpf.CollectionSpec) []string {
	var names []string
	for name, m := range spec.Maps {
		// Sections of constants are maps too; their names begin with a dot.
		if !own[name] && name[0] != '.' && name != heritageName && m.Type != ebpf.UnspecifiedMap {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return append(names, heritageName)
}

// inheritance is what an earlier daemon left.
type inheritance struct {
	maps map[string]*ebpf.Map // nil: there is none, or none that can be used
	said ambitHeritage
	// refused is why what is there can't be used, "" where it can, or nothing is there.
	refused string
	open    bool // its taps let packets be seen
}

func (h *inheritance) close() {
	for _, m := range h.maps {
		m.Close()
	}
	h.maps = nil
}

// inheritMaps takes the maps that are in the store, if they are of the form that the programs of spec want.
func inheritMaps(spec *ebpf.CollectionSpec, cfg *Config) (h inheritance, err error) {
	first, err := cfg.Keep.Map(heritageName)
	if err != nil {
		return h, err
	}
	if first == nil {
		if cfg.Keep.Left() > 0 {
			h.refused = "the earlier daemon was ended while it started"
		}
		return h, nil
	}
	h.maps = map[string]*ebpf.Map{heritageName: first}
	defer func() {
		if err != nil || h.refused != "" {
			h.close()
		}
	}()
	// Looked at first: all else may have another form in another version.
	var head [8]byte
	if first.ValueSize() < uint32(len(head)) {
		h.refused = "it left something else than ambit does"
		return h, nil
	}
	value := make([]byte, first.ValueSize())
	if err := first.Lookup(uint32(0), &value); err != nil {
		return h, fmt.Errorf("read what an earlier daemon says of its maps: %w", err)
	}
	if version := binary.NativeEndian.Uint32(value); version != uint32(ABIVersion) {
		h.refused = fmt.Sprintf("its maps are of version %d, and this ambit's of %d", version, ABIVersion)
		return h, nil
	}
	if err := spec.Maps[heritageName].Compatible(first); err != nil {
		h.refused = "its maps have another form than this version's"
		return h, nil
	}
	if err := first.Lookup(uint32(0), &h.said); err != nil {
		return h, fmt.Errorf("read what an earlier daemon says of its maps: %w", err)
	}
	for _, name := range kept(spec) {
		if name == heritageName {
			continue
		}
		m, err := cfg.Keep.Map(name)
		if err != nil {
			return h, err
		}
		if m == nil {
			h.refused = "it did not leave the map " + name
			return h, nil
		}
		h.maps[name] = m
		if err := spec.Maps[name].Compatible(m); errors.Is(err, ebpf.ErrMapIncompatible) {
			h.refused = fmt.Sprintf("its map %s is %s, which this version or configuration has otherwise", name, describeMap(m))
			return h, nil
		} else if err != nil {
			return h, fmt.Errorf("look at map %s of an earlier daemon: %w", name, err)
		}
	}
	if form, err := formOf(spec); err != nil {
		return h, err
	} else if form != h.said.Form {
		h.refused = "its maps hold another form than this version's"
		return h, nil
	}
	// A program in its place tells that nobody shut the taps.
	var id uint32
	h.open = h.maps["taps"].Lookup(uint32(ambitTapProgramTAP_PACKET), &id) == nil
	return h, nil
}

func describeMap(m *ebpf.Map) string {
	return fmt.Sprintf("of %d elements of %d bytes", m.MaxEntries(), m.ValueSize())
}

// formOf is a digest of what the maps that are handed over look like, and what the numbers in them mean: their kinds and
// sizes, the structs of their keys and values, and all enums.
func formOf(spec *ebpf.CollectionSpec) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, name := range kept(spec) {
		m := spec.Maps[name]
		fmt.Fprintln(h, "map", name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags)
		writeType(h, m.Key)
		writeType(h, m.Value)
		if m.InnerMap != nil {
			fmt.Fprintln(h, "of", m.InnerMap.Type, m.InnerMap.KeySize, m.InnerMap.ValueSize, m.InnerMap.MaxEntries, m.InnerMap.Flags)
			writeType(h, m.InnerMap.Value)
		}
	}
	var enums []*btf.Enum
	for t, err := range spec.Types.All() {
		if err != nil {
			return sum, fmt.Errorf("read the types of the embedded programs: %w", err)
		}
		if e, ok := t.(*btf.Enum); ok {
			enums = append(enums, e)
		}
	}
	slices.SortFunc(enums, func(a, b *btf.Enum) int { return cmp.Compare(a.Name, b.Name) })
	for _, e := range enums {
		fmt.Fprintln(h, "enum", e.Name, e.Size, e.Values)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// writeType writes all of a type that says where what is.
func writeType(h hash.Hash, t btf.Type) {
	switch t := btf.UnderlyingType(t).(type) {
	case nil:
	case *btf.Struct:
		writeMembers(h, "struct", t.Name, t.Size, t.Members)
	case *btf.Union:
		writeMembers(h, "union", t.Name, t.Size, t.Members)
	case *btf.Array:
		fmt.Fprintln(h, "array", t.Nelems)
		writeType(h, t.Type)
	case *btf.Int:
		fmt.Fprintln(h, "int", t.Size, t.Encoding)
	default:
		fmt.Fprintf(h, "%T\n", t)
	}
}

func writeMembers(h hash.Hash, kind, name string, size uint32, members []btf.Member) {
	fmt.Fprintln(h, kind, name, size)
	for _, m := range members {
		fmt.Fprintln(h, m.Name, m.Offset, m.BitfieldSize)
		writeType(h, m.Type)
	}
}

// keep puts all maps that are handed over into the store.
func (k *Kernel) keep(spec *ebpf.CollectionSpec, cfg *Config) error {
	form, err := formOf(spec)
	if err != nil {
		return err
	}
	k.heritage.said.Form = form
	k.heritage.said.Seed = k.seed
	k.heritage.said.Abi = uint32(ABIVersion)
	if cfg.Keep == nil {
		return nil
	}
	all := maps.Collect(k.all())
	for _, name := range kept(spec) {
		m := all[name]
		if m == nil {
			return fmt.Errorf("keep map %s for the next daemon: it is not listed", name)
		}
		if err := cfg.Keep.PutMap(name, m); err != nil {
			return nil // the store tells its trouble, and the daemon does without
		}
	}
	return nil
}

// heritage is what this daemon says of its maps, in the memory of the map of that name.
type heritage struct {
	memory []byte
	said   *ambitHeritage
	// Of the earlier daemon.
	generation uint32 // of its rules
	digest     [sha256.Size]byte
	open       bool // its taps
}

func (h *heritage) remember(m *ebpf.Map) (err error) {
	if h.memory, err = mapMemory(m); err != nil {
		return fmt.Errorf("map what is said of the maps: %w", err)
	}
	h.said = (*ambitHeritage)(unsafe.Pointer(&h.memory[0]))
	return nil
}

func (h *heritage) close() error {
	if h.memory == nil {
		return nil
	}
	memory := h.memory
	h.memory, h.said = nil, nil
	return unix.Munmap(memory)
}

// Inherited tells whether maps were taken over from an earlier daemon, and if not why what is there was refused, ""
// where nothing was.
func (k *Kernel) Inherited() (yes bool, refused string) { return k.inherited, k.refused }

// Continued tells whether an earlier daemon's programs at sockets were at work until this one's took their place, and its
// taps were open. It is known behind Attach.
func (k *Kernel) Continued() bool { return k.continued }

// InheritedRules are those that an earlier daemon had in force: their generation, 0 where there were none, and what it
// told NoteRules of them.
func (k *Kernel) InheritedRules() (generation uint32, digest [sha256.Size]byte) {
	return k.heritage.generation, k.heritage.digest
}

// NoteRules leaves a digest of the names of the rules in force for the next daemon.
func (k *Kernel) NoteRules(digest [sha256.Size]byte) { k.heritage.said.Rules = digest }

// Account is what became of the exchange sides that the kernel handed to userspace, of all daemons that worked with these
// maps. What was taken, and neither exported nor lost, is on its way.
type Account struct{ Taken, Exported, Lost uint64 }

// Account tells it. It must not be called behind Close.
func (k *Kernel) Account() Account {
	s := k.heritage.said
	return Account{atomic.LoadUint64(&s.Taken), atomic.LoadUint64(&s.Exported), atomic.LoadUint64(&s.Lost)}
}

// Taken adds exchange sides that were taken from the ring buffer.
func (k *Kernel) Taken(sides int) { atomic.AddUint64(&k.heritage.said.Taken, uint64(sides)) }

// Settle says what became of them, in all.
func (k *Kernel) Settle(exported, lost uint64) {
	atomic.StoreUint64(&k.heritage.said.Exported, exported)
	atomic.StoreUint64(&k.heritage.said.Lost, lost)
}
