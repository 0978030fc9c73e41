package daemon

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ambit/admin"
	"ambit/tc"
)

// goodHost is a doctor of a host that lacks nothing.
func goodHost(t *testing.T) *doctor {
	t.Helper()
	root := t.TempDir()
	writeFiles(t, root, map[string]string{
		"sys/kernel/btf/vmlinux": "", "sys/kernel/security/lockdown": "[none] integrity confidentiality\n", "proc/pressure/cpu": "",
		"proc/self/mountinfo": "30 20 0:1 / " + root + "/cgroup rw - cgroup2 cgroup2 rw\n", "cgroup/cgroup.procs": "",
	})
	cfg := Defaults()
	cfg.OTLP.Endpoint = "https://collector.example/v1"
	cfg.IDKey = IDKey{1}
	cfg.TrustContext = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	return &doctor{
		cfg: cfg, root: root,
		lacks: func() ([]string, error) { return nil, nil },
		caps:  func() (uint64, error) { return ^uint64(0), nil },
		survey: func() ([]tc.Surveyed, error) {
			return []tc.Surveyed{
				{Name: "host", Programs: []tc.Hooked{{Interface: "lo", Hook: "egress", Method: "tcx", Name: "ambit_lo"}}},
				{Name: "pod", Ambient: true},
			}, nil
		},
		dial: func(_ context.Context, address string) error {
			if address != "collector.example:443" {
				return errors.New("another address was dialled: " + address)
			}
			return nil
		},
		daemon: func(string) (admin.Status, error) {
			return admin.Status{Version: "1", State: admin.Tracing, PID: 7}, nil
		},
	}
}

func TestDoctorOfAGoodHost(t *testing.T) {
	d := goodHost(t)
	for _, f := range d.examine(t.Context()) {
		if f.Result != FoundOK || f.Do != "" {
			t.Errorf("%+v", f)
		}
	}
}

// Each way in which a host can be bad is found, and something is to be done about it; nothing else is found then.
func TestDoctorOfBadHosts(t *testing.T) {
	for _, c := range []struct {
		check, result, found string
		spoil                func(*doctor)
	}{
		{"kernel", FoundFailure, "bpf_loop", func(d *doctor) { d.lacks = func() ([]string, error) { return []string{"bpf_loop for SockOps"}, nil } }},
		{"BTF", FoundFailure, "vmlinux", func(d *doctor) { os.Remove(filepath.Join(d.root, "sys/kernel/btf/vmlinux")) }},
		{"cgroup v2", FoundFailure, "no cgroup2", func(d *doctor) { os.WriteFile(filepath.Join(d.root, "proc/self/mountinfo"), nil, 0o644) }},
		{"cgroup v2", FoundWarning, "a part", func(d *doctor) { os.WriteFile(filepath.Join(d.root, "cgroup/cgroup.type"), nil, 0o644) }},
		{"capabilities", FoundFailure, "CAP_NET_ADMIN", func(d *doctor) { d.caps = func() (uint64, error) { return ^uint64(1 << 12), nil } }},
		{"capabilities", FoundWarning, "CAP_SYS_PTRACE", func(d *doctor) { d.caps = func() (uint64, error) { return ^uint64(1 << 19), nil } }},
		{"lockdown", FoundFailure, "confidentiality", func(d *doctor) {
			os.WriteFile(filepath.Join(d.root, "sys/kernel/security/lockdown"), []byte("none integrity [confidentiality]\n"), 0o644)
		}},
		{"pressure", FoundNote, "PSI", func(d *doctor) { os.RemoveAll(filepath.Join(d.root, "proc/pressure")) }},
		{"network namespaces", FoundWarning, "1 of 2", func(d *doctor) {
			good := d.survey
			d.survey = func() ([]tc.Surveyed, error) {
				all, err := good()
				all[0].Err = errors.New("operation not permitted")
				return all, err
			}
		}},
		{"ztunnel", FoundWarning, "nothing is traced", func(d *doctor) {
			d.cfg.Namespaces = []string{"ambient"}
			d.survey = func() ([]tc.Surveyed, error) { return []tc.Surveyed{{Name: "host"}}, nil }
		}},
		{"other programs", FoundNote, "host lo egress by tcx: other, ambit_lo", func(d *doctor) {
			good := d.survey
			d.survey = func() ([]tc.Surveyed, error) {
				all, err := good()
				all[0].Programs = slices.Insert(all[0].Programs, 0, tc.Hooked{Interface: "lo", Hook: "egress", Method: "tcx", Name: "other"})
				return all, err
			}
		}},
		{"endpoint", FoundFailure, "refused", func(d *doctor) {
			d.dial = func(context.Context, string) error { return errors.New("connection refused") }
		}},
		{"endpoint", FoundNote, "none is set", func(d *doctor) { d.cfg.OTLP.Endpoint = "" }},
		{"ID key", FoundWarning, "published", func(d *doctor) { d.cfg.IDKey = Defaults().IDKey }},
		{"trusted sources", FoundWarning, "0.0.0.0/0", func(d *doctor) { d.cfg.TrustContext = Defaults().TrustContext }},
		{"trusted sources", FoundWarning, "force spans", func(d *doctor) {
			d.cfg.Sampling.Forced = ForcedConfig{Header: forceHeader, From: []netip.Prefix{netip.MustParsePrefix("::/0")}}
		}},
		{"daemon", FoundNote, "no daemon", func(d *doctor) {
			d.daemon = func(string) (admin.Status, error) { return admin.Status{}, errors.New("no") }
		}},
		{"daemon", FoundWarning, "does not take", func(d *doctor) {
			d.daemon = func(string) (admin.Status, error) {
				return admin.Status{Exporter: admin.Exporter{State: admin.ExporterFailing, LastError: "unavailable"}}, nil
			}
		}},
	} {
		d := goodHost(t)
		c.spoil(d)
		found := false
		for _, f := range d.examine(t.Context()) {
			switch {
			case f.Check == c.check:
				found = true
				if f.Result != c.result || !strings.Contains(f.Found, c.found) || f.Do == "" {
					t.Errorf("want a %s that says %q: %+v", c.result, c.found, f)
				}
			case f.Result != FoundOK:
				t.Errorf("%s made bad: %+v", c.check, f)
			}
		}
		if !found {
			t.Errorf("%s was not looked at", c.check)
		}
	}
}
