// Package layout holds the sources to the order in which they may use each other: docs/architecture.md.
package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	module = "ambit/"
	root   = "../.."
)

// imports says which of our own packages, by their first directory, a package may import. Those under tests may
// import all, and nobody may import them.
var imports = map[string][]string{
	"cmd":      {"daemon", "admin"},
	"daemon":   {"bpf", "tc", "handover", "l7", "meta", "sampling", "remote", "exporter", "admin"},
	"meta":     {"l7", "bpf"},
	"exporter": {"l7", "bpf"},
	"l7":       {"bpf"},
	"bpf":      {"handover"},
	"tc":       {"handover"},
	"handover": nil,
	"sampling": nil,
	"remote":   nil,
	"admin":    nil,
}

func TestGoImports(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list the packages: %v", err)
	}
	packages := 0
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages++
		from, _, _ := strings.Cut(strings.TrimPrefix(p.ImportPath, module), "/")
		if from == "tests" {
			continue
		}
		allowed, known := imports[from]
		if !known {
			t.Errorf("package %s is in a directory that the layout does not know", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			ours, ok := strings.CutPrefix(imported, module)
			if !ok {
				continue
			}
			if to, _, _ := strings.Cut(ours, "/"); to != from && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s; %s may import %v of ours", p.ImportPath, imported, from, allowed)
			}
		}
	}
	if packages < len(imports)-1 {
		t.Errorf("only %d packages were found", packages)
	}
}

// ranks gives each C source its place: it may include its own directory and what ranks below.
func rank(t *testing.T, file string) int {
	switch {
	case file == "bpf/ambit.bpf.c", file == "tests/decision/decision.bpf.c":
		return 5
	case path.Dir(file) == "l7":
		return 4
	case path.Dir(file) == "tc":
		return 3
	case file == "bpf/maps.h" || file == "bpf/state.h" || file == "bpf/http2_state.h" || file == "bpf/config.h":
		return 2
	case file == "bpf/abi.h" || file == "bpf/words.h":
		return 1
	case file == "bpf/sampling_abi.h" || file == "bpf/platform.h":
		return 0
	}
	t.Errorf("%s has no place in the layout", file)
	return 0
}

var include = regexp.MustCompile(`(?m)^#include "([^"]+)"`)

func TestCIncludes(t *testing.T) {
	seen := map[string]bool{}
	var walk func(file string)
	walk = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		source, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Error(err)
			return
		}
		for _, m := range include.FindAllStringSubmatch(string(source), -1) {
			to := path.Join(path.Dir(file), m[1])
			switch {
			case m[1] == "host.h" && file == "bpf/platform.h": // the host build's own
			case !strings.HasSuffix(to, ".h"):
				t.Errorf("%s includes %s, which is no header", file, to)
			case rank(t, to) > rank(t, file), rank(t, to) == 0 && rank(t, file) == 0:
				t.Errorf("%s includes %s, which ranks above it", file, to)
			default:
				walk(to)
			}
		}
	}
	walk("tests/decision/decision.bpf.c")
	clear(seen) // for what comes: each header is to be in ambit's own programs
	walk("bpf/ambit.bpf.c")
	headers, err := filepath.Glob(filepath.Join(root, "*/*.h"))
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range headers {
		if file, err := filepath.Rel(root, header); err != nil || !seen[file] {
			t.Errorf("bpf/ambit.bpf.c does not include %s", header)
		}
	}
}
