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
)

// releases are the kernels that ambit has to run on: the oldest that carries everything.
var releases = []Release{
	{ // 6.1, without tcx
		Name: "bookworm", Modules: []string{"sch_ingress", "cls_bpf", "act_bpf", "veth"},
		Ceilings: Ceilings{
			"tap": 625_000, "tap_http2": 270_000, "tap_unknown": 380_000,
			"abandon": 54_000, "established": 55_000, "sweep": 55_000,
			"bound4": 100, "bound6": 100, "inventory": 135, "sock_create": 100,
		},
	},
}

// object is the kernel side as it is committed, built for little-endian machines.
const object = "../../bpf/ambit_bpfel.o"

func TestKernels(t *testing.T) {
	guest, ambit := build(t, "ambit/tests/kernels/guest"), build(t, "ambit/cmd/ambit")
	for _, release := range releases {
		t.Run(release.Name, func(t *testing.T) {
			kernel := fetch(t, release)
			files := map[string]string{"/init": guest, "/ambit": ambit, "/ambit_bpfel.o": object}
			for i, module := range kernel.Modules {
				files[fmt.Sprintf("/modules/%02d-%s", i, filepath.Base(module))] = module
			}
			result, err := Boot(t.Context(), Guest{Kernel: kernel, Initramfs: pack(t, files), MemoryMB: 512, Limit: 7 * time.Minute})
			for _, line := range result.Lines {
				t.Logf("%s: pass %v %s%s", line.Check, line.Pass, line.Error, details(line.Detail))
				if line.Check == "programs" {
					for _, complaint := range release.Ceilings.Over(line.Detail) {
						t.Errorf("%s: %s", release.Name, complaint)
					}
				}
			}
			t.Logf("kernel %s, %v", kernel.Version, result.Took.Round(time.Millisecond))
			if err != nil {
				t.Errorf("%v; the end of its console:\n%s", err, tail(result.Console))
			} else if !result.Passed() {
				t.Errorf("the guest did not pass; the end of its console:\n%s", tail(result.Console))
			}
		})
	}
}

// What the other tests rely on: a guest that says nothing has not passed, and none runs for ever.
func TestGuestThatFails(t *testing.T) {
	kernel := fetch(t, releases[0])
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

func fetch(t *testing.T, release Release) Kernel {
	t.Helper()
	kernel, err := Fetch(t.Context(), release, CacheDir())
	if err != nil {
		t.Fatal(err)
	}
	if kernel.Stale != nil {
		t.Logf("kernel %s is from the cache: %v", kernel.Version, kernel.Stale)
	}
	return kernel
}

// build builds a program for a machine without libraries.
func build(t *testing.T, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), path.Base(pkg))
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
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
