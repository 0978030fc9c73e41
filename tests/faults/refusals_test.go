package faults

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ambit/tests/harness"
)

// Each thing that is in ambit's way is one line on standard error that says what and what to do, exit code 1, and
// nothing is left.
func TestRefusals(t *testing.T) {
	s := newScene(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "ambit.yaml")
	must(t, os.WriteFile(config, []byte("sample_rate: 0.5\nsampel_rate: 1\n"), 0o600))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	root, err := harness.CgroupRoot()
	must(t, err)
	owner := s.trace(t, newCollector(t))

	socket := filepath.Join(dir, "run", "a.sock")
	plain := []string{"run", "--namespaces", s.pod.Name() + "-not-there", "--admin", "127.0.0.1:" + freePort(t), "--socket", socket}
	without := func(capabilities string) []string {
		return []string{"setpriv", "--bounding-set", capabilities, "--inh-caps", capabilities}
	}
	unshared := func(prepare string) []string {
		return []string{"unshare", "--mount", "sh", "-c", prepare + ` && exec "$0" "$@"`}
	}
	for _, c := range []struct {
		about string
		way   []string // to start ambit
		flags []string
		want  string // of the line behind "ambit: "
	}{
		{"an ordinary user", []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}, nil, `needs CAP_NET_ADMIN and CAP_SYS_ADMIN, run as root`},
		{"no CAP_NET_ADMIN", without("-net_admin"), nil, `needs CAP_NET_ADMIN, run as root or grant it`},
		{"no CAP_SYS_ADMIN", without("-sys_admin"), nil, `needs CAP_SYS_ADMIN, run as root or grant it`},
		{"no CAP_BPF nor CAP_SYS_ADMIN", without("-bpf,-sys_admin"), nil, `needs CAP_SYS_ADMIN, run as root or grant it`},
		{"no CAP_PERFMON nor CAP_SYS_ADMIN", without("-perfmon,-sys_admin"), nil, `needs CAP_SYS_ADMIN, run as root or grant it`},
		{"no capabilities at all", without("-all"), nil, `needs CAP_NET_ADMIN and CAP_SYS_ADMIN, run as root or grant it`},
		{"a kernel without BTF", unshared("mount -t tmpfs none /sys/kernel/btf"), nil, `this kernel has no BTF \(/sys/kernel/btf/vmlinux\): .*CONFIG_DEBUG_INFO_BTF=y`},
		{"no cgroup v2", unshared("umount " + root), nil, `cgroup2? .*mount -t cgroup2`},
		{"the port is in use", nil, []string{"--admin", taken.Addr().String()}, `admin address ` + taken.Addr().String() + `: in use: .*--admin`},
		{"an address of another machine", nil, []string{"--admin", "192.0.2.1:9473"}, `admin address 192.0.2.1:9473: .*`},
		{"the socket is another daemon's", nil, []string{"--socket", owner.socket}, `admin socket .*in use by ambit \(pid \d+\): .*--socket`},
		{"the socket is a file", nil, []string{"--socket", config}, `admin socket .*ambit.yaml`},
		// Found late: where ambit may not look into all processes, it has warned of that before.
		{"the namespace is another daemon's", nil, []string{"--namespaces", s.pod.Name(), "--log-level", "error"}, `pid \d+ taps ` + s.pod.Name()},
		{"an unknown key", nil, []string{"--config", config}, `ambit.yaml:2: .*sampel_rate.*sample_rate`},
		{"a value out of range", nil, []string{"--sample-rate", "2"}, `--sample-rate: 2 is out of range; allowed: .*0 to 1`},
		{"a file that is not there", nil, []string{"--config", dir + "/none.yaml"}, `none.yaml`},
		{"an endpoint that is none", nil, []string{"--otlp-endpoint", "http://"}, `--otlp-endpoint`},
		{"a cgroup that is not there", nil, []string{"--exclude-cgroups", "/not/there"}, `exclude.cgroups: .*/not/there`},
	} {
		t.Run(c.about, func(t *testing.T) {
			args := append(append(c.way[:len(c.way):len(c.way)], binary), merged(plain, c.flags)...)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			t.Logf("%s", stderr.String())
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Fatalf("%v, want exit code 1", err)
			}
			line, ok := strings.CutSuffix(stderr.String(), "\n")
			if !ok || strings.Contains(line, "\n") || len(line) > 300 || stdout.Len() > 0 {
				t.Errorf("%d bytes on standard output; not one line:\n%s", stdout.Len(), stderr.String())
			}
			if !regexp.MustCompile(`^ambit: .*` + c.want).MatchString(line) {
				t.Errorf("want %q", c.want)
			}
			if strings.Contains(line, "failed to") {
				t.Errorf("it says how it feels, not what is wrong")
			}
			if _, err := os.Stat(socket); err == nil {
				t.Errorf("%s is left", socket)
			}
			if owner.status(t).State != "tracing" {
				t.Errorf("the other daemon is disturbed")
			}
		})
	}
	held := owner.objects(t)
	owner.stop(t)
	s.clean(t, held, owner.socket)
}

// merged is flags with those of more in the place of their namesakes.
func merged(flags, more []string) []string {
	out := append([]string{}, flags...)
	for i := 0; i+1 < len(more); i += 2 {
		replaced := false
		for j := range out {
			if out[j] == more[i] {
				out[j+1] = more[i+1]
				replaced = true
			}
		}
		if !replaced {
			out = append(out, more[i], more[i+1])
		}
	}
	return out
}
