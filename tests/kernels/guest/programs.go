package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	object = "/ambit_bpfel.o"
	// logTail is how many lines of the verifier's log are reported of a program that it refused.
	logTail = 30
)

// held reports the programs of the object that the kernel holds, which ambit has loaded.
func held() (map[string]string, error) {
	whole, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", object, err)
	}
	detail := map[string]string{}
	for id := ebpf.ProgramID(0); ; {
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("list the kernel's programs: %w", err)
		}
		program, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) { // gone meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at program %d: %w", id, err)
		}
		info, err := program.Info()
		program.Close()
		if err != nil {
			return nil, fmt.Errorf("look at program %d: %w", id, err)
		}
		if whole.Programs[info.Name] != nil { // and not a stub
			detail[info.Name] = loaded(info)
		}
	}
	if len(detail) < len(whole.Programs) {
		return detail, fmt.Errorf("of %d programs the kernel holds %d: %v", len(whole.Programs), len(detail), detail)
	}
	return detail, nil
}

// refusedPrograms loads each program of the object by itself, on a kernel that is to refuse some of them.
func refusedPrograms() (map[string]string, error) {
	detail, refused, err := load()
	if err == nil && len(refused) == 0 {
		err = errors.New("each program loads: why does ambit refuse to start?")
	}
	return detail, err
}

// load loads each program of the object by itself, with the constants that stand in it, and reports
// how many instructions the verifier looked at, or the end of its log; refused names those that it refused.
func load() (detail map[string]string, refused []string, err error) {
	// Before 5.11 maps count towards it. Package rlimit would look for /proc before it is mounted.
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil {
		return nil, nil, fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	whole, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", object, err)
	}
	if len(whole.Programs) == 0 {
		return nil, nil, fmt.Errorf("read %s: it holds no programs", object)
	}
	detail = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(whole.Programs)) {
		spec := whole.Copy()
		for other := range whole.Programs {
			if other != name {
				delete(spec.Programs, other)
			}
		}
		if detail[name], err = verify(spec, name); err != nil {
			detail[name] = err.Error()
			refused = append(refused, name)
		}
	}
	return detail, refused, nil
}

func verify(spec *ebpf.CollectionSpec, name string) (string, error) {
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			return "", fmt.Errorf("%w\n%s", verifier.Cause, strings.Join(verifier.Log[max(0, len(verifier.Log)-logTail):], "\n"))
		}
		return "", err
	}
	defer collection.Close()
	info, err := collection.Programs[name].Info()
	if err != nil {
		return "", fmt.Errorf("read the program's information: %w", err)
	}
	return loaded(info), nil
}

func loaded(info *ebpf.ProgramInfo) string {
	verified, ok := info.VerifiedInstructions()
	if !ok {
		return "loaded"
	}
	return fmt.Sprintf("loaded, %d instructions verified", verified)
}
