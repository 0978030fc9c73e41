package kernels

import (
	"testing"
	"time"

	"ambit/tests/kernels/report"
)

// A workload that lacks memory is sampled less and its neighbour is not, by PSI where the kernel has it, and by what the cgroup
// uses of its limit where it has not.
func TestMemoryPressure(t *testing.T) {
	kernel := fetch(t, Matrix[2].Series)
	files := map[string]string{
		"/init": build(t, "amd64", "ambit/tests/kernels/guest"), "/ambit": build(t, "amd64", "ambit/cmd/ambit"),
	}
	archive := pack(t, files)
	for option, psi := range map[string]string{"psi=1": "true", "psi=0": "false"} {
		t.Run(option, func(t *testing.T) {
			result, err := Boot(t.Context(), Guest{
				Kernel: kernel, Initramfs: archive, Argument: report.Memory, Options: option, MemoryMB: 1024, Limit: 10 * time.Minute,
			})
			if err != nil || !result.Passed() {
				for _, line := range result.Lines {
					t.Logf("%s: pass %v %s%s", line.Check, line.Pass, line.Error, details(line.Detail))
				}
				t.Fatalf("the guest did not pass: %v; its console:\n%s", err, tail(result.Console))
			}
			for _, line := range result.Lines {
				if line.Check != "memory" {
					continue
				}
				t.Logf("%v", line.Detail)
				if line.Detail["psi"] != psi {
					t.Errorf("PSI is there: %s, want %s", line.Detail["psi"], psi)
				}
			}
		})
	}
}
