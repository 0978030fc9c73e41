package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"net/netip"
	"os"
	"sync"
	"time"

	"ambit/handover"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Config is what the programs are loaded with; rules, rates and budgets alone can change afterwards.
type Config struct {
	// Rate is the base sampling rate, 0 to 1.
	Rate float64
	// IDKey is the key of derived trace and span IDs.
	IDKey [16]byte
	// IdleLimit is how long an exchange waits for its next byte.
	IdleLimit time.Duration
	// MaxConnections bounds the table of connections; each takes about 2 KiB while it is open.
	MaxConnections uint32
	// MaxHTTP2Connections bounds the table of what HTTP/2 needs beside; each takes about 15 KiB while it is open.
	MaxHTTP2Connections uint32
	// RingBytes is the size of the ring buffer: a power of two, at least a page.
	RingBytes uint32
	// TrustContext has the addresses whose tracing headers are believed; empty believes nobody.
	TrustContext []netip.Prefix
	// ForceContext has the addresses that may force a span by a header, where SetForceHeader says so; empty is nobody.
	ForceContext []netip.Prefix
	// Peers has the addresses of traced clients outside of this kernel that share IDKey.
	Peers []netip.Prefix
	// ExcludePorts lists ports, of either end, whose connections are not traced; 256 at most.
	ExcludePorts []uint16
	// ExcludeCgroups lists cgroups whose sockets, and those of their descendants, have no spans; 256 at most.
	ExcludeCgroups []Cgroup
	// Keep has what an earlier daemon left, and keeps maps and links for the next one; nil does neither.
	Keep *handover.Store
}

// Cgroup names a cgroup v2 by its id and its depth; the root has depth 0.
type Cgroup struct {
	ID    uint64
	Depth int
}

// wakeParts is how many times the kernel wakes the reader while the ring buffer fills up.
const wakeParts = 8

// CgroupDepths is the number of depths at which a cgroup can be excluded.
const CgroupDepths = 16

// UnsupportedError says what the kernel, or the way in which ambit was started, does not give.
type UnsupportedError struct {
	// What is missing, and what to do about it.
	What string
	Err  error
}

func (e *UnsupportedError) Error() string {
	if e.Err == nil {
		return e.What
	}
	return fmt.Sprintf("%s: %v", e.What, e.Err)
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// Kernel owns the loaded programs and maps, and what of them is attached to the cgroup hierarchy.
type Kernel struct {
	objs    ambitObjects
	links   cgroupLinks
	rules   ruleSets
	budgets budgetTable
	ratesMu sync.Mutex
	seed    uint64

	store     *handover.Store
	inherited bool
	refused   string // why what an earlier daemon left was not taken over
	continued bool
	leaving   bool // for the next daemon
	heritage  heritage
}

// Seed is that of the kernel's hashes, of connections, routes and what rules name: nobody can foresee it.
func (k *Kernel) Seed() uint64 { return k.seed }

// Load checks what the kernel gives and loads the programs; nothing is attached yet. The error is an
// *UnsupportedError where the kernel or a privilege is in the way.
func Load(cfg Config) (*Kernel, error) {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); errors.Is(err, fs.ErrNotExist) {
		return nil, &UnsupportedError{What: "this kernel has no BTF (/sys/kernel/btf/vmlinux): ambit needs one built with CONFIG_DEBUG_INFO_BTF=y"}
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, privilege(fmt.Errorf("raise the limit of locked memory: %w", err))
	}
	spec, err := loadAmbit()
	if err != nil {
		return nil, fmt.Errorf("read the embedded programs: %w", err)
	}
	k := &Kernel{store: cfg.Keep}
	if err := binary.Read(rand.Reader, binary.NativeEndian, &k.seed); err != nil {
		return nil, fmt.Errorf("choose the seed of the hashes: %w", err)
	}
	size(spec, &cfg)
	left, err := inheritMaps(spec, &cfg)
	if err != nil {
		return nil, err
	}
	defer left.close()
	if k.inherited, k.refused = left.maps != nil, left.refused; k.inherited {
		k.seed = left.said.Seed
		k.heritage.digest, k.heritage.open = left.said.Rules, left.open
		spec.Maps["rule_sets"].Contents = nil // those in force stay
	}
	if err := configure(spec, &cfg, k.seed); err != nil {
		return nil, err
	}
	k.rules.inner = spec.Maps[ambitMapNoRules].Copy()
	if err := spec.LoadAndAssign(&k.objs, &ebpf.CollectionOptions{MapReplacements: left.maps}); err != nil {
		if err = privilege(fmt.Errorf("load the programs: %w", err)); errors.As(err, new(*UnsupportedError)) {
			return nil, err
		}
		return nil, tooOld(spec, err)
	}
	if err := k.take(spec, &cfg); err != nil {
		k.leaving = k.inherited // for the next try
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// take makes the maps fit for use.
func (k *Kernel) take(spec *ebpf.CollectionSpec, cfg *Config) error {
	if err := k.heritage.remember(k.objs.Heritage); err != nil {
		return err
	}
	if _, err := k.objs.WhoAmI.Run(&ebpf.RunOptions{}); err != nil {
		return fmt.Errorf("find out the PID of ambit itself: %w", err)
	}
	if !k.inherited {
		// Only now, as the programs that see packets meanwhile are those of an earlier daemon.
		if err := cfg.Keep.Discard(); err != nil {
			return err
		}
		if err := k.keep(spec, cfg); err != nil {
			return err
		}
	}
	return k.fill(cfg)
}

// privilege turns a refusal into the capabilities that are missing.
func privilege(err error) error {
	var verdict *ebpf.VerifierError
	if errors.Is(err, os.ErrPermission) && !errors.As(err, &verdict) {
		return &UnsupportedError{
			What: "no permission for eBPF: run ambit as root, or give it CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN and CAP_SYS_PTRACE",
			Err:  err,
		}
	}
	return err
}

// size gives the maps the form that the configuration wants.
func size(spec *ebpf.CollectionSpec, cfg *Config) {
	if cfg.MaxConnections > 0 {
		spec.Maps["flows"].MaxEntries = cfg.MaxConnections
	}
	if cfg.MaxHTTP2Connections > 0 {
		spec.Maps["http2s"].MaxEntries = cfg.MaxHTTP2Connections
	}
	if cfg.RingBytes > 0 {
		spec.Maps["records"].MaxEntries = cfg.RingBytes
	}
	// A budget's limit changes while the kernel counts in it, which a map's update would undo.
	spec.Maps[ambitMapBudgets].Flags |= unix.BPF_F_MMAPABLE
}

// configure sets the constants of the programs.
func configure(spec *ebpf.CollectionSpec, cfg *Config, seed uint64) error {
	var depths uint32
	for _, c := range cfg.ExcludeCgroups {
		if c.Depth < 0 || c.Depth >= CgroupDepths {
			return fmt.Errorf("exclude cgroup %d: it is %d levels deep, and ambit looks at the first %d", c.ID, c.Depth, CgroupDepths)
		}
		depths |= 1 << c.Depth
	}
	settings := map[string]any{
		"id_key": [2]uint64{
			binary.LittleEndian.Uint64(cfg.IDKey[:8]),
			binary.LittleEndian.Uint64(cfg.IDKey[8:]),
		},
		"flow_seed":              seed,
		"wake_bytes":             uint64(spec.Maps["records"].MaxEntries / wakeParts),
		"idle_limit_ns":          uint64(cfg.IdleLimit),
		"trust_all":              trustsAll(cfg.TrustContext),
		"have_peers":             len(cfg.Peers) > 0,
		"have_forcers":           len(cfg.ForceContext) > 0,
		"netns_from_packet":      features.HaveProgramHelper(ebpf.SchedCLS, asm.FnGetNetnsCookie) == nil,
		"excluded_cgroup_depths": depths,
		"have_excluded_ports":    len(cfg.ExcludePorts) > 0,
	}
	for name, value := range settings {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s of the programs: %w", name, err)
		}
	}
	return nil
}

// trustsAll tells a list that leaves nobody out.
func trustsAll(list []netip.Prefix) bool {
	v4, v6 := false, false
	for _, p := range list {
		if p.Bits() == 0 {
			v4 = v4 || p.Addr().Is4()
			v6 = v6 || p.Addr().Is6()
		}
	}
	return v4 && v6
}

// fill writes what the maps hold from the start.
func (k *Kernel) fill(cfg *Config) error {
	flags := make(map[ambitCidr]uint8)
	for _, p := range cfg.TrustContext {
		flags[cidrOf(p)] |= uint8(ambitCidrFlagsCIDR_TRUSTED)
	}
	for _, p := range cfg.ForceContext {
		flags[cidrOf(p)] |= uint8(ambitCidrFlagsCIDR_FORCE)
	}
	for _, p := range cfg.Peers {
		flags[cidrOf(p)] |= uint8(ambitCidrFlagsCIDR_PEER)
	}
	// IPv4 is mapped into a range of IPv6, but a range of IPv6 says nothing of it: without this, "::/0" would.
	if _, ok := flags[mapped]; !ok {
		flags[mapped] = 0
	}
	inherit(flags)
	for cidr, f := range flags {
		if err := k.objs.Cidrs.Put(cidr, f); err != nil {
			return fmt.Errorf("set the address ranges of trust_context, forced.from and peers: %w", err)
		}
	}
	for _, port := range cfg.ExcludePorts {
		if err := k.objs.ExcludedPorts.Put(port, uint8(1)); err != nil {
			return fmt.Errorf("exclude port %d: %w", port, err)
		}
	}
	for _, c := range cfg.ExcludeCgroups {
		if err := k.objs.ExcludedCgroups.Put(c.ID, uint8(1)); err != nil {
			return fmt.Errorf("exclude cgroup %d: %w", c.ID, err)
		}
	}
	if err := k.objs.Taps.Put(uint32(ambitTapProgramTAP_TAKE_UP), k.objs.TapUnknown); err != nil {
		return fmt.Errorf("set the program that takes connections up: %w", err)
	}
	if err := k.objs.Taps.Put(uint32(ambitTapProgramTAP_HTTP2), k.objs.TapHttp2); err != nil {
		return fmt.Errorf("set the program that reads HTTP/2: %w", err)
	}
	if err := k.rules.open(k.objs.Actions, k.objs.RuleSets); err != nil {
		return err
	}
	k.heritage.generation = k.rules.generation
	if err := k.budgets.open(k.objs.Budgets); err != nil {
		return err
	}
	if err := k.openRates(cfg.Rate); err != nil {
		return err
	}
	return k.fillCounters()
}

// cidrOf maps IPv4 into IPv6, as the kernel side does with every address.
func cidrOf(p netip.Prefix) ambitCidr {
	p = p.Masked()
	prefix := uint32(p.Bits())
	if p.Addr().Is4() {
		prefix += 96
	}
	return ambitCidr{Prefix: prefix, Addr: p.Addr().As16()}
}

// mapped is all of IPv4.
var mapped = cidrOf(netip.MustParsePrefix("0.0.0.0/0"))

// isIPv4 tells an IPv4 range from one of IPv6.
func (c *ambitCidr) isIPv4() bool {
	return c.Prefix >= mapped.Prefix && commonBits(c.Addr, mapped.Addr) >= mapped.Prefix
}

// inherit gives each range the flags of the ranges of its family that contain it: a look-up finds the longest alone.
func inherit(flags map[ambitCidr]uint8) {
	for inner := range flags {
		for outer, f := range flags {
			if outer.isIPv4() == inner.isIPv4() && outer.Prefix < inner.Prefix && commonBits(inner.Addr, outer.Addr) >= outer.Prefix {
				flags[inner] |= f
			}
		}
	}
}

func commonBits(a, b [16]byte) uint32 {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return uint32(i*8 + bits.LeadingZeros8(x))
		}
	}
	return 128
}

// Close detaches what is attached to cgroups and lets go of programs and maps. Taps that others attached
// keep their stubs until they are closed too.
func (k *Kernel) Close() error {
	return errors.Join(k.Detach(), k.rules.close(), k.budgets.close(), k.heritage.close(), k.objs.Close())
}

// Leave has Detach and Close leave what is attached and kept to the next daemon.
func (k *Kernel) Leave() { k.leaving = true }
