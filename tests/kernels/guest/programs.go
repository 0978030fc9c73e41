package main

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/cilium/ebpf"
)

const (
	object = "/ambit_bpfel.o"
	// logTail is how many lines of the verifier's log are reported of a program that it refused.
	logTail = 30
)

// programs loads each program of the object by itself, with the constants that stand in it, and reports
// how many instructions the verifier looked at, or the end of its log.
func programs() (map[string]string, error) {
	whole, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", object, err)
	}
	names := make([]string, 0, len(whole.Programs))
	for name := range whole.Programs {
		names = append(names, name)
	}
	sort.Strings(names)
	if len(names) == 0 {
		return nil, fmt.Errorf("read %s: it holds no programs", object)
	}
	detail, refused := map[string]string{}, []string{}
	for _, name := range names {
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
	if len(refused) > 0 {
		return detail, fmt.Errorf("%d of %d programs are refused: %s", len(refused), len(names), strings.Join(refused, ", "))
	}
	return detail, nil
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
