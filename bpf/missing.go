package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Oldest is the oldest Linux that ambit is tested on. It has everything that the programs call for.
const Oldest = "6.1"

// missing lists what the programs call for and this kernel does not have: kinds of maps, kinds of programs and
// helpers, sorted. What cannot be probed is taken to be there.
func missing(spec *ebpf.CollectionSpec) []string {
	lacks := map[string]bool{}
	for _, m := range spec.Maps {
		if errors.Is(features.HaveMapType(m.Type), ebpf.ErrNotSupported) {
			lacks[fmt.Sprintf("maps of type %s", m.Type)] = true
		}
	}
	for _, p := range spec.Programs {
		if errors.Is(features.HaveProgramType(p.Type), ebpf.ErrNotSupported) {
			lacks[fmt.Sprintf("programs of type %s", p.Type)] = true
			continue
		}
		for _, ins := range p.Instructions {
			if !ins.IsBuiltinCall() {
				continue
			}
			helper := asm.BuiltinFunc(ins.Constant)
			if helper == asm.FnGetNetnsCookie && p.Type == ebpf.SchedCLS {
				continue // called where it is there: netns_from_packet
			}
			if errors.Is(features.HaveProgramHelper(p.Type, helper), ebpf.ErrNotSupported) {
				lacks[fmt.Sprintf("%s for %s", helperName(helper), p.Type)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(lacks))
}

// Lacks lists what the embedded programs call for and this kernel does not have.
func Lacks() ([]string, error) {
	spec, err := loadAmbit()
	if err != nil {
		return nil, fmt.Errorf("read the embedded programs: %w", err)
	}
	return missing(spec), nil
}

// helperName is the name of a helper in the kernel's documentation, e.g. bpf_loop.
func helperName(f asm.BuiltinFunc) string {
	var name strings.Builder
	name.WriteString("bpf")
	for _, r := range strings.TrimPrefix(f.String(), "Fn") {
		if unicode.IsUpper(r) {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToLower(r))
	}
	return name.String()
}

// tooOld explains why the programs were refused where the kernel lacks what they call for; else it returns err.
func tooOld(spec *ebpf.CollectionSpec, err error) error {
	lacks := missing(spec)
	if len(lacks) == 0 {
		return err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("read the kernel's version: %w", err)
	}
	return &UnsupportedError{What: fmt.Sprintf("Linux %s is too old: ambit needs %s or newer; this one has no %s",
		unix.ByteSliceToString(name.Release[:]), Oldest, strings.Join(lacks, ", no "))}
}
