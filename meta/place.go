package meta

import (
	"regexp"
	"strings"
)

// place is what the path of a cgroup tells.
type place struct {
	unit      string // the systemd unit's name for a service, see unitName
	container string // ID of 64 hexadecimal digits
	pod       string // UID, as Kubernetes writes it
}

var (
	// containerScope takes the forms cri-containerd-ID.scope, crio-ID.scope, docker-ID.scope,
	// libpod-ID.scope, libpod-payload-ID, and plain ID, as cgroupfs drivers make it.
	containerScope = regexp.MustCompile(`^(?:([a-z][a-z0-9.-]*)-)?([0-9a-f]{64})(?:\.scope)?$`)
	// podSlice takes kubepods-burstable-podUID.slice, where UID has underscores, and podUID. The UID of a
	// static pod is 32 digits without separators.
	podSlice = regexp.MustCompile(`^(?:[a-z-]*kubepods(?:-[a-z]+)?-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?$`)
)

// locate reads the path of a cgroup. What lies deepest counts, as in a container within a container, or
// a unit in a container that runs systemd. A unit above a container names it only where the container
// is part of the unit, as podman's --cgroups=split does it; otherwise it is the runtime's.
func locate(path string) place {
	var p place
	named := true // parts further up may still name the unit
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i := len(parts) - 1; i >= 0; i-- {
		part := parts[i]
		// A runtime that takes the systemd form of a path for a plain one makes slice:runtime:ID of it.
		if colon := strings.LastIndexByte(part, ':'); colon >= 0 {
			if m := containerScope.FindStringSubmatch(part[colon+1:]); m != nil {
				p.container = first(p.container, m[2])
				part, _, _ = strings.Cut(part, ":")
				named = false
			}
		}
		if m := containerScope.FindStringSubmatch(part); m != nil {
			if strings.HasSuffix(m[1], "conmon") { // the container's monitor, outside of it
				continue
			}
			p.container = first(p.container, m[2])
			named = named && m[1] == "libpod-payload"
		} else if m := podSlice.FindStringSubmatch(part); m != nil {
			p.pod = first(p.pod, strings.ReplaceAll(m[1], "_", "-"))
			named = false
		} else if named {
			p.unit, named = unitName(part)
		}
	}
	// A desktop's names for what a user started.
	if m := application.FindStringSubmatch(p.unit); m != nil && strings.Contains(path, "/user@") {
		p.unit = m[1]
	}
	p.unit = unescapeUnit(p.unit)
	return p
}

var (
	// transient takes the names that systemd-run makes up.
	transient = regexp.MustCompile(`^run-(u[0-9]+|r[0-9a-f]{32}|p[0-9]+-i[0-9]+)$`)
	// accepted takes the instance of a unit started for one connection: its number and both addresses.
	accepted = regexp.MustCompile(`^[0-9]+-.+:[0-9]+-.+:[0-9]+(_[0-9]+)?$`)
	// application takes the names that desktops give: app-LAUNCHER-ID@RANDOM, the launcher optional.
	application = regexp.MustCompile(`^app-(?:[^-@]+-)?([^-@]+)(?:@.*)?$`)
)

// unitName returns the name of a service unit, or "" where part of a cgroup's path is none that names a
// service. further is false when nothing above it can name one either: in a session, for systemd
// itself, and for the manager of a user's units.
//
// The name goes without .service, or without .socket where the socket's own cgroup is all that is left
// of who made it. An instance is kept (postgresql@15-main), since two instances may be two services,
// but for the instance that is one connection. Names that systemd-run made up are none.
func unitName(part string) (name string, further bool) {
	part = strings.TrimPrefix(part, "_") // systemd's escape of names that the kernel uses in a cgroup
	name, ok := strings.CutSuffix(part, ".service")
	if !ok {
		if name, ok = strings.CutSuffix(part, ".socket"); !ok {
			session := strings.HasPrefix(part, "session-") && strings.HasSuffix(part, ".scope")
			return "", !session && part != "init.scope"
		}
	}
	prefix, instance, templated := strings.Cut(name, "@")
	switch {
	case name == "" || prefix == "user" && templated:
		return "", false
	case transient.MatchString(name):
		return "", false
	case templated && (instance == "" || accepted.MatchString(instance)):
		name = prefix
	}
	return name, false
}

// unescapeUnit undoes \x2d and its like, with which systemd writes what a unit's name may not hold.
func unescapeUnit(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if strings.HasPrefix(name[i:], `\x`) && len(name) >= i+4 {
			hi, lo := hexDigit(name[i+2]), hexDigit(name[i+3])
			if hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 3
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

func hexDigit(c byte) int { return strings.IndexByte("0123456789abcdef", c) }

// locateLines reads the contents of /proc/PID/cgroup. The line of the v2 hierarchy counts; on hybrid
// hosts some runtimes put a container only into the v1 hierarchies, so those are asked if it tells nothing.
func locateLines(lines string) place {
	var other place
	for line := range strings.SplitSeq(lines, "\n") {
		number, rest, _ := strings.Cut(line, ":")
		controllers, path, _ := strings.Cut(rest, ":")
		path = strings.TrimSuffix(path, " (deleted)")
		p := locate(path)
		if number == "0" && controllers == "" && p != (place{}) {
			return p
		}
		if other == (place{}) {
			other = p
		}
	}
	return other
}
