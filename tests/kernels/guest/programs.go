package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

const (
	object = "/ambit_bpfel.o"
	// logTail is how many lines of the verifier's log are reported of a program that it refused.
	logTail = 30
)

// programs loads each program of the object by itself, and fails if one is refused.
func programs() (map[string]string, error) {
	detail, refused, err := load()
	if err == nil && len(refused) > 0 {
		err = fmt.Errorf("%d of %d programs are refused: %s", len(refused), len(detail), strings.Join(refused, ", "))
	}
	return detail, err
}

// refusedPrograms does the same on a kernel that is to refuse some of them.
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
	loaded, err := ebpf.NewCollection(spec)
	if err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			return "", fmt.Errorf("%w\n%s", verifier.Cause, strings.Join(verifier.Log[max(0, len(verifier.Log)-logTail):], "\n"))
		}
		return "", err
	}
	defer loaded.Close()
	info, err := loaded.Programs[name].Info()
	if err != nil {
		return "", fmt.Errorf("read the program's information: %w", err)
	}
	verified, ok := info.VerifiedInstructions()
	if !ok {
		return "loaded", nil
	}
	return fmt.Sprintf("loaded, %d instructions verified", verified), nil
}
