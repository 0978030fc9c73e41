package kernels

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ambit/tests/kernels/report"
)

// Finding is what a guest reported.
type Finding struct {
	Kernel string        `json:"kernel"` // the series, as in the table's head
	Lines  []report.Line `json:"lines"`
}

func findingFile(dir, kernel string) string {
	return filepath.Join(dir, strings.ReplaceAll(kernel, " ", "-")+".json")
}

// Write keeps the finding in a directory, in place of that of an earlier guest of the series.
func (f Finding) Write(dir string) error {
	text, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return fmt.Errorf("encode what kernel %s is found to be: %w", f.Kernel, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("keep what kernel %s is found to be: %w", f.Kernel, err)
	}
	if err := os.WriteFile(findingFile(dir, f.Kernel), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("keep what kernel %s is found to be: %w", f.Kernel, err)
	}
	return nil
}

// ReadFindings returns those of the whole matrix, in its order.
func ReadFindings(dir string) ([]Finding, error) {
	var findings []Finding
	for _, member := range Matrix {
		text, err := os.ReadFile(findingFile(dir, member.String()))
		if err != nil {
			return nil, fmt.Errorf("read what kernel %s is found to be: %w; boot it first", member, err)
		}
		var f Finding
		if err := json.Unmarshal(text, &f); err != nil {
			return nil, fmt.Errorf("read what kernel %s is found to be: %w", member, err)
		}
		findings = append(findings, f)
	}
	return findings, nil
}

// Detail is that of one check; nil where it was not made.
func (f Finding) Detail(check string) map[string]string {
	for _, line := range f.Lines {
		if line.Check == check {
			return line.Detail
		}
	}
	return nil
}

// traces tells whether ambit traced there, and not whether it refused to.
func (f Finding) traces() bool { return f.Detail(report.Traces) != nil }

// verified is how many instructions the kernel's verifier looked at, by program; those that it refused are not in it.
func (f Finding) verified() map[string]int {
	counts := map[string]int{}
	for name, text := range f.Detail(report.Programs) {
		var n int
		if _, err := fmt.Sscanf(text, "loaded, %d instructions verified", &n); err == nil {
			counts[name] = n
		}
	}
	return counts
}

// loaded names the programs that the kernel took.
func (f Finding) loaded() []string {
	var names []string
	for name, text := range f.Detail(report.Programs) {
		if strings.HasPrefix(text, "loaded") {
			names = append(names, name)
		}
	}
	return names
}
