package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ambit/admin"
	"ambit/bpf"
	"ambit/meta"
	"ambit/tc"

	"golang.org/x/sys/unix"
)

// Finding is what a check of the host came to.
type Finding struct {
	Check string `json:"check"`
	// Result is "ok", "note" (worth knowing), "warning" (ambit runs and lacks something) or "failure" (it does not run).
	Result string `json:"result"`
	Found  string `json:"found"`
	Do     string `json:"do,omitempty"` // about it
}

// Results of checks.
const (
	FoundOK      = "ok"
	FoundNote    = "note"
	FoundWarning = "warning"
	FoundFailure = "failure"
)

// doctor looks at a host. What it looks at can be stood in for, so that a test can make a host bad.
type doctor struct {
	cfg  Config
	root string // where /proc and /sys are seen
	// lacks, survey and dial are the parts that ask the kernel or the network.
	lacks  func() ([]string, error)
	survey func() ([]tc.Surveyed, error)
	dial   func(ctx context.Context, address string) error
	caps   func() (uint64, error)
	daemon func(socket string) (admin.Status, error)
}

// Examine checks the host for what ambit needs with this configuration, and changes nothing.
func Examine(ctx context.Context, cfg Config) []Finding {
	d := doctor{
		cfg: cfg, root: "/", lacks: bpf.Lacks, survey: tc.Survey, caps: tc.Capabilities,
		dial: func(ctx context.Context, address string) error {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err == nil {
				err = conn.Close()
			}
			return err
		},
		daemon: func(socket string) (admin.Status, error) {
			client, err := admin.Dial(socket)
			if err != nil {
				return admin.Status{}, err
			}
			return client.Status(ctx)
		},
	}
	return d.examine(ctx)
}

func (d *doctor) examine(ctx context.Context) (all []Finding) {
	all = append(all, d.kernel(), d.btf(), d.cgroup(), d.capabilities(), d.lockdown(), d.pressure())
	all = append(all, d.namespaces()...)
	all = append(all, d.endpoint(ctx), d.idKey(), d.trusted(), d.running())
	return all
}

func (d *doctor) path(p string) string { return filepath.Join(d.root, p) }

func (d *doctor) kernel() Finding {
	release := kernelRelease()
	f := Finding{Check: "kernel", Result: FoundOK, Found: "Linux " + release + " has all that the programs call for"}
	lacks, err := d.lacks()
	switch {
	case err != nil:
		f.Result, f.Found, f.Do = FoundFailure, err.Error(), "build ambit anew"
	case len(lacks) > 0:
		f.Result = FoundFailure
		f.Found = fmt.Sprintf("Linux %s has no %s", release, strings.Join(lacks, ", no "))
		f.Do = "run Linux " + bpf.Oldest + " or newer; without the privilege to ask, everything seems missing: run this as root"
	}
	return f
}

func (d *doctor) btf() Finding {
	const file = "sys/kernel/btf/vmlinux"
	if _, err := os.Stat(d.path(file)); err != nil {
		return Finding{"BTF", FoundFailure, fmt.Sprintf("the kernel does not describe its types: %v", err),
			"run a kernel that was built with CONFIG_DEBUG_INFO_BTF=y; in a container mount the host's /sys"}
	}
	return Finding{"BTF", FoundOK, "the kernel describes its types in /" + file, ""}
}

func (d *doctor) cgroup() Finding {
	mount, err := meta.CgroupMount(d.root)
	if err != nil {
		return Finding{"cgroup v2", FoundFailure, err.Error(), "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified; in a container mount the host's /sys/fs/cgroup"}
	}
	if _, err := os.Stat(filepath.Join(mount, "cgroup.type")); err == nil { // the root has none
		return Finding{"cgroup v2", FoundWarning, fmt.Sprintf("%s shows a part of the hierarchy: sockets outside of it are not known", mount),
			"run ambit in the host's cgroup namespace (in Kubernetes mount the host's /sys/fs/cgroup)"}
	}
	return Finding{"cgroup v2", FoundOK, "its root is at " + mount, ""}
}

// capabilities are those that docs/security.md lists, with what is lost without each.
var capabilities = []struct {
	name   string
	bit    int
	needed bool
	lost   string
}{
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, true, "programs can't be attached"},
	{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, true, "other network namespaces can't be entered"},
	{"CAP_BPF", unix.CAP_BPF, false, "CAP_SYS_ADMIN stands in for it"},
	{"CAP_PERFMON", unix.CAP_PERFMON, false, "CAP_SYS_ADMIN stands in for it"},
	{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, false, "namespaces without a name are not found, and services get their names from the cgroup or the command"},
	{"CAP_NET_BROADCAST", unix.CAP_NET_BROADCAST, false, "all namespaces are looked into once a second"},
	{"CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH, false, "the hierarchy of cgroups is walked"},
}

func (d *doctor) capabilities() Finding {
	f := Finding{Check: "capabilities", Result: FoundOK, Found: "all that ambit uses are there"}
	have, err := d.caps()
	if err != nil {
		return Finding{f.Check, FoundWarning, err.Error(), "run this as root"}
	}
	var missing []string
	for _, c := range capabilities {
		if have>>c.bit&1 == 1 {
			continue
		}
		missing = append(missing, c.name+" ("+c.lost+")")
		if c.needed {
			f.Result = FoundFailure
		} else if f.Result == FoundOK {
			f.Result = FoundWarning
		}
	}
	if missing != nil {
		f.Found = "missing are " + strings.Join(missing, ", ")
		f.Do = "run ambit as root, or grant them: docs/security.md has the call that needs each"
	}
	return f
}

func (d *doctor) lockdown() Finding {
	text, err := os.ReadFile(d.path("sys/kernel/security/lockdown"))
	if err != nil {
		return Finding{"lockdown", FoundOK, "the kernel has no lockdown, or does not show it", ""}
	}
	if strings.Contains(string(text), "[confidentiality]") {
		return Finding{"lockdown", FoundFailure, "the kernel is locked down for confidentiality: its programs may not read its memory",
			"boot with lockdown=integrity or without, or without secure boot's lockdown"}
	}
	return Finding{"lockdown", FoundOK, "it lets programs read the kernel's memory: " + strings.TrimSpace(string(text)), ""}
}

func (d *doctor) pressure() Finding {
	if _, err := os.Stat(d.path("proc/pressure/cpu")); err != nil {
		return Finding{"pressure", FoundNote, "the kernel tells no pressure (PSI): load is judged by how busy processors and how full memory are",
			"boot with psi=1, if rates are to follow load more closely"}
	}
	return Finding{"pressure", FoundOK, "the kernel tells pressure (PSI)", ""}
}

// namespaces looks at all network namespaces: whether they can be entered, where ztunnel is, and who else is at TC's hooks.
func (d *doctor) namespaces() []Finding {
	spaces, err := d.survey()
	if err != nil {
		return []Finding{{"network namespaces", FoundFailure, err.Error(), "run this as root, in the host's PID namespace"}}
	}
	var ambient, denied, others, ours []string
	tcx := false
	for _, s := range spaces {
		if s.Err != nil {
			denied = append(denied, fmt.Sprintf("%s (%v)", s.Name, s.Err))
		}
		if s.Ambient {
			ambient = append(ambient, s.Name)
		}
		chains := make(map[string][]string)
		var hooks []string
		foreign := make(map[string]bool)
		for _, p := range s.Programs {
			tcx = tcx || p.Method == "tcx"
			at := fmt.Sprintf("%s %s %s by %s", s.Name, p.Interface, p.Hook, p.Method)
			if chains[at] == nil {
				hooks = append(hooks, at)
			}
			chains[at] = append(chains[at], p.Name)
			foreign[at] = foreign[at] || !strings.HasPrefix(p.Name, "ambit_")
		}
		for _, at := range hooks {
			chain := at + ": " + strings.Join(chains[at], ", ")
			if foreign[at] {
				others = append(others, chain)
			} else {
				ours = append(ours, chain)
			}
		}
	}
	f := Finding{"network namespaces", FoundOK, fmt.Sprintf("%d can be entered", len(spaces)-len(denied)), ""}
	if len(denied) > 0 {
		f.Result, f.Found = FoundWarning, fmt.Sprintf("%d of %d can't be looked into: %s", len(denied), len(spaces), listed(denied))
		f.Do = "run as root in the host's PID namespace; grant CAP_SYS_ADMIN and CAP_SYS_PTRACE"
	}
	z := Finding{"ztunnel", FoundNote, "no namespace is an ambient pod's: ztunnel listens in none", "nothing, where this node is in no ambient mesh; else look at istio-cni and ztunnel on it"}
	if len(ambient) > 0 {
		z = Finding{"ztunnel", FoundOK, fmt.Sprintf("it listens in %d namespaces: %s", len(ambient), listed(ambient)), ""}
	} else if slices.Contains(d.cfg.Namespaces, "ambient") {
		z.Result = FoundWarning
		z.Found += ", and namespaces is ambient: nothing is traced"
	}
	o := Finding{"other programs", FoundOK, "nobody else is at TC's hooks", ""}
	if len(others) > 0 {
		o = Finding{"other programs", FoundNote, "others are at TC's hooks, in the order in which they run: " + listed(others),
			"nothing: ambit looks and passes every packet on. What a program before it redirects or drops it does not see"}
	}
	return []Finding{f, z, o, d.method(tcx, len(ours) > 0)}
}

// method says how ambit attaches.
func (d *doctor) method(seen, running bool) Finding {
	if seen || !olderThan(kernelRelease(), 6, 6) {
		return Finding{"tcx", FoundOK, "the kernel has tcx links: they end with the daemon, however it ends", ""}
	}
	found := "the kernel has no tcx links (Linux 6.6): clsact filters are used, and those of a daemon that was killed stay, without effect"
	if running {
		found += "; some of ambit's are there"
	}
	return Finding{"tcx", FoundNote, found, "nothing: the next start takes them away"}
}

// olderThan compares the first two numbers of a release.
func olderThan(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a < major || a == major && b < minor
}

// listed shortens a list for people.
func listed(list []string) string {
	const most = 5
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], "; "), len(list)-most)
	}
	return strings.Join(list, "; ")
}

func (d *doctor) endpoint(ctx context.Context) Finding {
	const check = "endpoint"
	if d.cfg.OTLP.Endpoint == "" {
		return Finding{check, FoundNote, "none is set: spans stay in memory", "set otlp.endpoint, where they are to be sent"}
	}
	address := d.cfg.OTLP.Endpoint
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		address = u.Host
		if u.Port() == "" {
			port := "80"
			if u.Scheme == "https" {
				port = "443"
			}
			address = net.JoinHostPort(u.Hostname(), port)
		}
	}
	if err := d.dial(ctx, address); err != nil {
		return Finding{check, FoundFailure, fmt.Sprintf("%s can't be reached: %v", address, err),
			"look at the address, at the collector, and at network policies on the way; spans wait in the queue and are lost when it is full"}
	}
	return Finding{check, FoundOK, address + " takes connections", ""}
}

func (d *doctor) idKey() Finding {
	if d.cfg.IDKey.Published() {
		return Finding{"ID key", FoundWarning, "id_key is the published default: who knows a connection's addresses and numbers can foresee the IDs of its spans",
			"set id_key to 32 hexadecimal digits of your own, the same on every node: openssl rand -hex 16"}
	}
	return Finding{"ID key", FoundOK, "id_key is one of your own", ""}
}

func (d *doctor) trusted() Finding {
	for _, p := range d.cfg.TrustContext {
		if p.Bits() == 0 {
			return Finding{"trusted sources", FoundWarning, fmt.Sprintf("trust_context has %s: everybody's tracing headers are believed, and with them who decides what is kept", p),
				"set trust_context to the networks of your own workloads, if strangers can send requests to this node"}
		}
	}
	for _, p := range d.cfg.Sampling.Forced.From {
		if p.Bits() == 0 && d.cfg.Sampling.Forced.Header != "off" {
			return Finding{"trusted sources", FoundWarning, fmt.Sprintf("sampling.forced.from has %s: everybody may force spans", p), "name the networks of those who may"}
		}
	}
	return Finding{"trusted sources", FoundOK, "tracing headers are believed of " + prefixes(d.cfg.TrustContext), ""}
}

func prefixes(list []netip.Prefix) string {
	if len(list) == 0 {
		return "nobody"
	}
	var texts []string
	for _, p := range list {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}

func (d *doctor) running() Finding {
	const check = "daemon"
	status, err := d.daemon(d.cfg.Admin.Socket)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return Finding{check, FoundWarning, err.Error(), "run this as root"}
		}
		return Finding{check, FoundNote, "no daemon answers at " + d.cfg.Admin.Socket, "start it: systemctl start ambit, or ambit run"}
	}
	f := Finding{check, FoundOK, fmt.Sprintf("ambit %s is %s, PID %d", status.Version, status.State, status.PID), ""}
	if status.Exporter.State == admin.ExporterFailing {
		f.Result, f.Found, f.Do = FoundWarning, f.Found+"; the collector does not take its spans: "+status.Exporter.LastError, "look at the endpoint"
	}
	return f
}
