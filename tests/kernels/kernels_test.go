package kernels

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"ambit/tests/kernels/report"
)

const (
	// object is the kernel side as it is committed, built for little-endian machines, whichever.
	object = "../../bpf/ambit_bpfel.o"
	// reports is where each guest's findings are kept for the table.
	reports = "../../build/kernels"
	page    = "../../docs/kernels.md"
	// allVariable demands the whole matrix.
	allVariable = "AMBIT_KERNELS"
)

// TestKernels boots those of the matrix that are always tried, or all.
func TestKernels(t *testing.T) {
	programs := map[string][2]string{}
	for _, member := range Matrix {
		if !member.Always && os.Getenv(allVariable) != "all" {
			continue
		}
		if _, ok := programs[member.Arch]; !ok {
			programs[member.Arch] = [2]string{build(t, member.Arch, "ambit/tests/kernels/guest"), build(t, member.Arch, "ambit/cmd/ambit")}
		}
		t.Run(strings.ReplaceAll(member.String(), " ", "-"), func(t *testing.T) {
			kernel := fetch(t, member.Series)
			files := map[string]string{"/init": programs[member.Arch][0], "/ambit": programs[member.Arch][1], "/ambit_bpfel.o": object}
			for i, module := range kernel.Modules {
				files[fmt.Sprintf("/modules/%02d-%s", i, filepath.Base(module))] = module
			}
			result, err := Boot(t.Context(), Guest{
				Kernel: kernel, Initramfs: pack(t, files), Argument: member.Expect, MemoryMB: 1024, Limit: 10 * time.Minute,
			})
			t.Logf("kernel %s, %v", kernel.Build, result.Took.Round(time.Millisecond))
			if err != nil || !result.Passed() {
				for _, line := range result.Lines {
					t.Logf("%s: pass %v %s%s", line.Check, line.Pass, line.Error, details(line.Detail))
				}
				t.Fatalf("the guest did not pass: %v; its console:\n%s", err, result.Console)
			}
			found := Finding{Kernel: member.String(), Lines: result.Lines}
			if err := found.Write(reports); err != nil {
				t.Error(err)
			}
			if member.Ceilings != nil {
				for _, complaint := range member.Ceilings.Over(found.Detail(report.Programs)) {
					t.Error(complaint)
				}
			}
			for _, complaint := range found.Against(committed(t)) {
				t.Errorf("docs/kernels.md: %s; run \"make test-kernels\" and look at what it changes", complaint)
			}
		})
	}
}

// What the other tests rely on: a guest that says nothing has not passed, and none runs for ever.
func TestGuestThatFails(t *testing.T) {
	kernel := fetch(t, Matrix[1].Series)
	empty := pack(t, nil)
	result, err := Boot(t.Context(), Guest{Kernel: kernel, Initramfs: empty, MemoryMB: 512, Limit: 2 * time.Minute})
	if err != nil || result.Passed() || !strings.Contains(result.Console, "Kernel panic") {
		t.Errorf("a guest without a first process: %v, passed %v:\n%s", err, result.Passed(), tail(result.Console))
	}
	result, err = Boot(t.Context(), Guest{Kernel: kernel, Initramfs: empty, MemoryMB: 512, Limit: time.Second})
	if err == nil || !strings.Contains(err.Error(), "no end after 1s") || result.Took > 10*time.Second {
		t.Errorf("a guest that takes too long: %v after %v", err, result.Took)
	}
}

func fetch(t *testing.T, series Series) Kernel {
	t.Helper()
	kernel, err := Fetch(t.Context(), series, CacheDir())
	if err != nil {
		t.Fatal(err)
	}
	if kernel.Stale != nil {
		t.Logf("kernel %s is from the cache: %v", kernel.Build, kernel.Stale)
	}
	return kernel
}

// committed is the table in the docs.
func committed(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Section(string(page))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// build builds a program for a machine without libraries.
func build(t *testing.T, arch, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), path.Base(pkg))
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

func pack(t *testing.T, files map[string]string) string {
	t.Helper()
	archive, err := os.Create(filepath.Join(t.TempDir(), "initramfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if err := Initramfs(archive, files); err != nil {
		t.Fatal(err)
	}
	return archive.Name()
}

func details(detail map[string]string) string {
	var lines []string
	for key, value := range detail {
		lines = append(lines, fmt.Sprintf("\n  %s: %s", key, strings.ReplaceAll(value, "\n", "\n    ")))
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

// tail is the last part of a console's output.
func tail(console string) string {
	return console[max(0, len(console)-4096):]
}
