package kernels

import (
	"fmt"
	"maps"
	"slices"
)

// verifierLimit is how many instructions a kernel's verifier looks at before it refuses a program.
const verifierLimit = 1_000_000

// Ceilings are how many instructions a verifier may look at, by program. They leave about a quarter to what the
// programs take now: long before one is refused, whoever makes it dearer hears of it.
type Ceilings map[string]int

// Over compares the ceilings with what a guest reports of its programs, and returns a complaint for each that is
// above, for which there is no ceiling, or of which nothing is known.
func (c Ceilings) Over(reported map[string]string) []string {
	var complaints []string
	names := map[string]string{}
	for name := range c {
		names[name] = "no such program"
	}
	maps.Copy(names, reported)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n, ceiling := 0, c[name]
		if _, err := fmt.Sscanf(names[name], "loaded, %d instructions verified", &n); err != nil {
			complaints = append(complaints, fmt.Sprintf("of program %s the guest does not say what the verifier looked at, but %q", name, names[name]))
			continue
		}
		switch {
		case ceiling == 0:
			complaints = append(complaints, fmt.Sprintf(
				"program %s has no ceiling: the verifier looked at %d instructions; add one about a quarter above to this release's", name, n))
		case n > ceiling:
			complaints = append(complaints, fmt.Sprintf(
				"of program %s the verifier looked at %d instructions, the ceiling is %d: the kernel refuses it beyond %d; make it cheaper to verify, or raise the ceiling and say why",
				name, n, ceiling, verifierLimit))
		}
	}
	return complaints
}
