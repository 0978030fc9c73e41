package kernels

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"ambit/tests/kernels/report"
)

// Guest is a kernel to boot and what it boots into.
type Guest struct {
	Kernel    Kernel
	Initramfs string // path
	Argument  string // of its first process, /init
	Options   string // of the kernel's command line
	MemoryMB  int
	Limit     time.Duration // the guest is killed when it takes longer
}

// Result is what a guest said.
type Result struct {
	Lines   []report.Line
	Console string // all that it printed, the kernel's messages too
	Took    time.Duration
}

// Passed tells whether the guest reached its end and had nothing to complain of.
func (r Result) Passed() bool {
	return len(r.Lines) > 0 && r.Lines[len(r.Lines)-1].Check == report.Verdict && r.Lines[len(r.Lines)-1].Pass
}

// machine is what emulates an architecture.
type machine struct {
	program, install string // the package that has the program
	options          []string
	console          string
}

// machines are by Debian's name of the architecture.
var machines = map[string]machine{
	"amd64": {"qemu-system-x86_64", "qemu-system-x86", []string{"-cpu", "max"}, "ttyS0"},
	// Emulating the signing of pointers as it is specified takes most of the time.
	"arm64": {"qemu-system-aarch64", "qemu-system-arm", []string{"-machine", "virt", "-cpu", "max,pauth-impdef=on"}, "ttyAMA0"},
}

// maxConsole bounds what is kept of a guest's output.
const maxConsole = 4 << 20

// Boot runs a guest until it powers off, reboots or panics, which ends it too. A guest that does not end
// in time, or an emulator that fails, is an error; a guest that complains is not.
func Boot(ctx context.Context, g Guest) (Result, error) {
	var result Result
	m, known := machines[g.Kernel.Arch]
	if !known {
		return result, fmt.Errorf("boot a kernel of %s: there is no emulator for it", g.Kernel.Arch)
	}
	qemu, err := exec.LookPath(m.program)
	if err != nil {
		return result, fmt.Errorf("boot a kernel: %w; install %s", err, m.install)
	}
	ctx, cancel := context.WithTimeout(ctx, g.Limit)
	defer cancel()
	c := exec.CommandContext(ctx, qemu, append(slices.Clone(m.options), "-accel", "tcg", "-nodefaults", "-no-user-config",
		"-m", fmt.Sprint(g.MemoryMB), "-smp", "1", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", g.Kernel.Image, "-initrd", g.Initramfs, "-append", fmt.Sprintf("console=%s panic=-1 quiet rdinit=/init %s -- %s", m.console, g.Options, g.Argument))...)
	c.WaitDelay = 5 * time.Second
	out, err := c.StdoutPipe()
	if err != nil {
		return result, fmt.Errorf("boot %s: %w", g.Kernel.Build, err)
	}
	var complaint strings.Builder
	c.Stderr = &complaint
	start := time.Now()
	if err := c.Start(); err != nil {
		return result, fmt.Errorf("boot %s: %w", g.Kernel.Build, err)
	}
	var console strings.Builder
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		if console.Len()+len(text) <= maxConsole {
			console.WriteString(text)
		}
		// A message of the kernel's may stand before it on the line.
		if _, after, found := strings.Cut(text, report.Mark); found {
			var line report.Line
			if err := json.Unmarshal([]byte(strings.TrimSpace(after)), &line); err != nil {
				line = report.Line{Check: "report", Error: fmt.Sprintf("parse %q: %v", after, err)}
			}
			result.Lines = append(result.Lines, line)
		}
		if err != nil {
			break // the guest has ended, or was killed
		}
	}
	err = c.Wait()
	result.Took, result.Console = time.Since(start), console.String()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return result, fmt.Errorf("boot %s: no end after %v", g.Kernel.Build, g.Limit)
	}
	if err != nil {
		return result, fmt.Errorf("boot %s: %w: %s", g.Kernel.Build, err, strings.TrimSpace(complaint.String()))
	}
	return result, nil
}
