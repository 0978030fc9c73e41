package packages

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// build makes packages of a version in a directory of their own, from this checkout.
func build(t *testing.T, version string) (dist string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	must(t, err)
	dir := t.TempDir()
	dist = filepath.Join(dir, "dist")
	for _, arch := range []string{"amd64", "arm64"} {
		c := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w -buildid= -X ambit/daemon.Version="+version,
			"-o", filepath.Join(dir, "build", arch, "ambit"), "./cmd/ambit")
		c.Dir = root
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("build ambit for %s: %v: %s", arch, err, out)
		}
	}
	c := exec.CommandContext(t.Context(), "go", "run", ".", "-root", root, "-build", filepath.Join(dir, "build"), "-dist", dist, "-version", version, "-epoch", "1700000000")
	c.Dir = filepath.Join(root, "packaging")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("make the packages: %v: %s", err, out)
	}
	return dist
}

// contents are what is to be in the packages: modes and paths, with %s where formats differ.
const contents = `-rw-r----- /etc/ambit/ambit.yaml
-rwxr-xr-x /usr/bin/ambit
-rw-r--r-- /usr/lib/systemd/system/ambit.service
-rw-r--r-- /usr/lib/systemd/system/ambit.slice
-rw-r--r-- /usr/share/bash-completion/completions/ambit
-rw-r--r-- /usr/share/doc/ambit/NEWS.md.gz
-rw-r--r-- /usr/share/doc/ambit/ambit.cdx.json
-rw-r--r-- /usr/share/doc/ambit/copyright
-rw-r--r-- /usr/share/fish/vendor_completions.d/ambit.fish
-rw-r--r-- /usr/share/man/man1/ambit.1.gz
`

// Packages of the same sources have the same bytes, hold what they should and no more, are of a bounded size, and are what
// lintian and rpmlint want.
func TestPackages(t *testing.T) {
	first, second := build(t, "1.2.3"), build(t, "1.2.3")
	entries, err := os.ReadDir(first)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		a, err := os.ReadFile(filepath.Join(first, e.Name()))
		must(t, err)
		b, err := os.ReadFile(filepath.Join(second, e.Name()))
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("%s has other bytes when it is built again", e.Name())
		}
		if size := len(a); size > 12<<20 || size < 4<<20 {
			t.Errorf("%s has %d bytes, want 4 to 12 MiB", e.Name(), size)
		}
	}
	if want := []string{"ambit-1.2.3-1.aarch64.rpm", "ambit-1.2.3-1.x86_64.rpm", "ambit_1.2.3_amd64.deb", "ambit_1.2.3_arm64.deb"}; !slices.Equal(names, want) {
		t.Fatalf("the packages are %v, want %v", names, want)
	}
	lines := func(text string) []string {
		list := strings.Split(strings.TrimSpace(text), "\n")
		slices.Sort(list)
		return list
	}
	for _, name := range names {
		path := filepath.Join(first, name)
		var got []string
		want := contents
		if strings.HasSuffix(name, ".deb") {
			for _, line := range lines(run(t, "dpkg-deb", "--contents", path)) {
				f := strings.Fields(line)
				if f[0][0] == '-' {
					got = append(got, f[0]+" "+strings.TrimPrefix(f[5], "."))
				}
				if f[1] != "root/root" {
					t.Errorf("%s: %s", name, line)
				}
			}
			want += "-rw-r--r-- /usr/share/zsh/vendor-completions/_ambit\n-rw-r--r-- /usr/share/doc/ambit/changelog.gz\n-rw-r--r-- /usr/share/lintian/overrides/ambit\n"
			if conffiles := run(t, "dpkg-deb", "--info", path, "conffiles"); conffiles != "/etc/ambit/ambit.yaml\n" {
				t.Errorf("%s: the configuration files are %q", name, conffiles)
			}
			// Written errors and warnings are those that no override explains.
			if out := run(t, "lintian", "--allow-root", "--fail-on", "error,warning", path); strings.TrimSpace(out) != "" {
				t.Logf("%s: lintian: %s", name, out)
			}
		} else {
			got = lines(run(t, "rpm", "-qp", "--qf", "[%{FILEMODES:perms} %{FILENAMES}\n]", path))
			want += "-rw-r--r-- /usr/share/zsh/site-functions/_ambit\n"
			if config := run(t, "rpm", "-qp", "--configfiles", path); config != "/etc/ambit/ambit.yaml\n" {
				t.Errorf("%s: the configuration files are %q", name, config)
			}
			if out := run(t, "rpmlint", "-c", "../../packaging/rpmlint.toml", path); !strings.Contains(out, " 0 errors, 0 warnings") {
				t.Errorf("%s: rpmlint: %s", name, out)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, lines(want)) {
			t.Errorf("%s holds\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(lines(want), "\n"))
		}
	}
	if out := run(t, "man", "-l", "--warnings", filepath.Join(first, "../build/ambit.1.gz")); !strings.Contains(out, "ambit traces the HTTP") {
		t.Errorf("the manual page is %s", out)
	}
	for _, shell := range [][]string{{"bash", "-n", "ambit.bash"}} {
		run(t, shell[0], shell[1], filepath.Join(first, "../build", shell[2]))
	}
}

// The units are what systemd wants, and leave no more exposed than is explained.
func TestUnits(t *testing.T) {
	out := run(t, "systemd-analyze", "security", "--offline=true", "--threshold=35", "../../packaging/systemd/ambit.service")
	t.Log(out[max(0, len(out)-200):])
}

// A package is installed, starts, is reloaded, killed, stuck, upgraded, removed and purged on a machine with systemd.
func TestService(t *testing.T) {
	old, next := build(t, "1.0.0"), build(t, "1.1.0")
	m := boot(t)
	for from, version := range map[string]string{old: "1.0.0", next: "1.1.0"} {
		run(t, "cp", filepath.Join(from, "ambit_"+version+"_amd64.deb"), filepath.Join(m.root, "root"))
	}
	active := func() error {
		if state, _ := m.try("systemctl", "is-active", "ambit"); strings.TrimSpace(state) != "active" {
			return fmt.Errorf("the service is %s", strings.TrimSpace(state))
		}
		return nil
	}
	journal := func(words string) {
		t.Helper()
		m.await("the journal says "+words, 15*time.Second, func() error {
			if out := m.do("journalctl", "--no-pager", "-o", "cat", "-u", "ambit"); !strings.Contains(out, words) {
				return fmt.Errorf("it says %s", out)
			}
			return nil
		})
	}

	// It starts with the installation, and at boot.
	m.do("dpkg", "-i", "/root/ambit_1.0.0_amd64.deb")
	m.await("the service is active", 2*time.Minute, active)
	if state := m.property("UnitFileState"); state != "enabled" {
		t.Errorf("at boot it is %s", state)
	}
	if status := m.property("StatusText"); !strings.Contains(status, "tracing") || !strings.Contains(status, "exchange sides seen") {
		t.Errorf("its status line is %q", status)
	}
	if out := m.do("ambit", "status"); !strings.Contains(out, "EXCHANGES") || strings.Contains(out, "not tapped") {
		t.Errorf("ambit status: %s", out)
	}
	if slice := m.property("Slice"); slice != "ambit.slice" {
		t.Errorf("it is in %s", slice)
	}
	// The journal has fields that can be looked for.
	journal("tracing version=1.0.0")
	if out := m.do("journalctl", "--no-pager", "-o", "json", "-u", "ambit", "AMBIT_VERSION=1.0.0"); !strings.Contains(out, `"MESSAGE":"tracing`) {
		t.Errorf("no entry has AMBIT_VERSION: %s", out)
	}

	// A reload is in force when systemctl returns; a wrong file fails, and changes nothing.
	config := filepath.Join(m.root, "etc/ambit/ambit.yaml")
	must(t, os.WriteFile(config, []byte("sample_rate: 0.25\n"), 0o640))
	m.do("systemctl", "reload", "ambit")
	if out := m.do("ambit", "rates"); !strings.Contains(out, "0.25") {
		t.Errorf("behind the reload the rates are %s", out)
	}
	must(t, os.WriteFile(config, []byte("sample_rate: 7\n"), 0o640))
	if out, err := m.try("systemctl", "reload", "ambit"); err == nil {
		t.Errorf("a wrong configuration is reloaded: %s", out)
	}
	if out := m.do("ambit", "rates"); !strings.Contains(out, "0.25") || active() != nil {
		t.Errorf("behind the wrong one the rates are %s", out)
	}
	must(t, os.WriteFile(config, []byte("sample_rate: 0.5\n"), 0o640))

	// Killed it comes back.
	pid := m.property("MainPID")
	m.do("kill", "-KILL", pid)
	m.await("the killed service is back", time.Minute, func() error {
		if now := m.property("MainPID"); now == pid || now == "0" {
			return fmt.Errorf("its PID is %s", now)
		}
		return active()
	})
	journal("taken over from an earlier daemon")
	// Stuck it is found by the watchdog.
	dropin := filepath.Join(m.root, "etc/systemd/system/ambit.service.d")
	must(t, os.MkdirAll(dropin, 0o755))
	must(t, os.WriteFile(filepath.Join(dropin, "test.conf"), []byte("[Service]\nWatchdogSec=3s\n"), 0o644))
	m.do("systemctl", "daemon-reload")
	m.do("systemctl", "restart", "ambit")
	m.await("the service is active", time.Minute, active)
	time.Sleep(5 * time.Second) // a healthy one outlives its watchdog
	if n := m.property("NRestarts"); n != "0" {
		t.Errorf("the watchdog acted on a healthy daemon, %s times", n)
	}
	pid = m.property("MainPID")
	m.do("kill", "-STOP", pid)
	m.await("the watchdog acts", time.Minute, func() error {
		if now := m.property("MainPID"); now == pid || now == "0" {
			return fmt.Errorf("its PID is %s", now)
		}
		return active()
	})
	journal("watchdog")

	// An upgrade keeps the configuration, and restarts the daemon.
	m.do("dpkg", "-i", "--force-confold", "/root/ambit_1.1.0_amd64.deb")
	m.await("the upgraded service is active", time.Minute, active)
	if out := m.do("ambit", "status"); !strings.Contains(out, "1.1.0") {
		t.Errorf("behind the upgrade: %s", out)
	}
	if kept, err := os.ReadFile(config); err != nil || string(kept) != "sample_rate: 0.5\n" {
		t.Errorf("behind the upgrade the configuration is %q, %v", kept, err)
	}
	// Removed it leaves its configuration and nothing that runs; purged, nothing.
	m.do("dpkg", "-r", "ambit")
	if err := active(); err == nil {
		t.Error("the removed service is active")
	}
	if _, err := os.Stat(config); err != nil {
		t.Errorf("the removal took the configuration: %v", err)
	}
	m.do("dpkg", "-P", "ambit")
	for _, left := range []string{"etc/ambit", "var/lib/ambit", "run/ambit", "usr/bin/ambit", "usr/share/doc/ambit"} {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/%s", m.leader, left)); err == nil {
			t.Errorf("the purge leaves /%s", left)
		}
	}
	if out := m.do("bpftool", "prog", "show"); strings.Contains(out, "name ambit_") {
		t.Errorf("the purge leaves programs: %s", out)
	}
}
