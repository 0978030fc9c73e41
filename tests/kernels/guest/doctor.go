package main

import (
	"encoding/json"
	"fmt"
	"os/exec"

	"ambit/tests/kernels/report"
)

// doctor has "ambit doctor" look at this kernel: it finds a failure where ambit is refused, and none where it traces.
func doctor(expectation string) func() (map[string]string, error) {
	return func() (map[string]string, error) {
		out, failed := exec.Command(ambit, "doctor", "--json").Output()
		var findings []struct{ Check, Result, Found string }
		if err := json.Unmarshal(out, &findings); err != nil {
			return nil, fmt.Errorf("ambit doctor: %w (%v) in %q", err, failed, out)
		}
		detail := make(map[string]string)
		results := make(map[string]string)
		for _, f := range findings {
			results[f.Check] = f.Result
			if f.Result != "ok" {
				detail[f.Check] = f.Result + ": " + f.Found
			}
		}
		want := map[string]string{"kernel": "ok", "BTF": "ok", "cgroup v2": "ok", "capabilities": "ok", "network namespaces": "ok", "tcx": "ok"}
		switch expectation {
		case report.Refused:
			want["kernel"], want["tcx"] = "failure", "note"
		case report.ByClsact:
			want["tcx"] = "note"
		}
		for check, result := range want {
			if results[check] != result {
				return detail, fmt.Errorf("ambit doctor has a %s about %s, want %s", results[check], check, result)
			}
		}
		if (failed != nil) != (expectation == report.Refused) {
			return detail, fmt.Errorf("ambit doctor ended with %v", failed)
		}
		return detail, nil
	}
}
