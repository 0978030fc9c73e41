package meta

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit/l7"
)

// unknownService is what the specification wants where nothing names a service.
const unknownService = "unknown_service"

// observed are the attributes that only ambit's own observation may set: a process that claimed them in
// its environment could pass for another one.
func observed(key string) bool {
	switch key {
	case "container.id", "k8s.pod.uid", "process.pid", "process.creation.time", "host.id", "host.name":
		return true
	}
	return strings.HasPrefix(key, "telemetry.") || strings.HasPrefix(key, "ambit.")
}

// particular are the attributes that belong to one service, process or container, so that the daemon's
// own environment cannot speak of them.
func particular(key string) bool {
	switch key {
	case "service.name", "service.instance.id", "service.version":
		return true
	}
	for _, prefix := range []string{"process.", "container.", "k8s.pod.", "k8s.container.", "telemetry.", "ambit."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// ownAttributes keeps of the daemon's own attributes what can be said of every service.
func (m *Meta) ownAttributes(list []l7.Attribute) []l7.Attribute {
	var own []l7.Attribute
	for _, a := range m.count.bound(list) {
		if !particular(a.Key) {
			own = append(own, a)
		}
	}
	return own
}

// attributes collects attributes; of a key the first value stays, and empty ones are left out.
type attributes []l7.Attribute

func (a *attributes) str(key, value string) {
	if value != "" && !a.has(key) {
		*a = append(*a, l7.Attribute{Key: key, Str: value})
	}
}

func (a *attributes) int(key string, value int64) {
	if value != 0 {
		*a = append(*a, l7.Attribute{Key: key, Int: value, IsInt: true})
	}
}

func (a *attributes) has(key string) bool {
	for i := range *a {
		if (*a)[i].Key == key {
			return true
		}
	}
	return false
}

// build makes the resource of a subject. What ambit has seen itself comes before what the process says,
// but for service.*, and that before what the daemon's environment says of all. The command line is not
// in it, since arguments may hold secrets; nor is telemetry.sdk.*, since no SDK made the span.
func (m *Meta) build(s subject) *l7.Resource {
	claimed := func(key string) string { return find(s.env.attributes, key) }
	resource := &l7.Resource{ServiceName: serviceName(s)}

	a := make(attributes, 0, 20+len(s.env.attributes)+len(m.own))
	a.str("service.name", resource.ServiceName)
	a.str("service.namespace", first(claimed("service.namespace"), s.container.podSpace, s.container.namespace))
	a.str("service.version", claimed("service.version"))
	a.str("service.instance.id", first(claimed("service.instance.id"), m.instance(s)))

	a.int("process.pid", int64(s.owner.PID))
	if s.owner.PID != 0 {
		a.str("process.creation.time", creationTime(s))
	}
	a.str("process.executable.name", first(base(s.executable), s.comm))
	a.str("process.executable.path", s.executable)

	a.str("container.id", s.place.container)
	a.str("container.name", s.container.name)
	a.str("k8s.container.name", s.container.k8sName)
	a.str("k8s.pod.name", s.container.pod)
	a.str("k8s.pod.uid", first(s.place.pod, s.container.podUID))
	a.str("k8s.namespace.name", s.container.podSpace)

	a.str("host.name", m.host.name)
	a.str("host.id", m.host.id)
	a.str("host.arch", m.host.arch)
	a.str("os.type", "linux")

	if m.config.NamespaceName != nil && s.owner.NetNS != 0 {
		a.str("ambit.network.namespace", m.count.clean(m.config.NamespaceName(s.owner.NetNS), maxValue))
	}
	a.int("ambit.netns.cookie", int64(s.owner.NetNS))
	a.str("telemetry.distro.name", "ambit")
	a.str("telemetry.distro.version", m.config.Version)

	for _, claim := range s.env.attributes {
		if !observed(claim.Key) {
			a.str(claim.Key, claim.Str)
		}
	}
	for _, own := range m.own {
		a.str(own.Key, own.Str)
	}
	resource.Attributes = a
	return resource
}

func serviceName(s subject) string {
	return first(s.env.serviceName, find(s.env.attributes, "service.name"), s.place.unit, s.container.service,
		s.program, s.comm, unknownService)
}

// ServiceName returns the name of an owner's service. An owner without a process, as the kernel's
// counters have it, is named after its cgroup and comm, and keeps that name for as long as it is
// remembered, among the last 1,024.
func (m *Meta) ServiceName(o l7.Owner) string {
	if o.PID != 0 {
		return m.resource(&o).ServiceName
	}
	k := serviceKey{cgroup: o.Cgroup, comm: o.Comm}
	found, ok := m.services.Get(k)
	if !ok {
		found, _ = within(m, func(r *reader) service {
			found, _ := m.service(r, k)
			return found
		})
	}
	return serviceName(subject{
		process: process{comm: m.count.clean(o.Comm, maxValue)}, place: found.place, container: found.container, env: found.env,
	})
}

// Resource describes the service of an owner without a process, as the kernel's counters have it: what all that it counts
// for have in common. The pointer is the same for as long as it is cached. It does not block for longer than 50 ms.
func (m *Meta) Resource(o l7.Owner) *l7.Resource { return m.resource(&o) }

// instanceSpace is the namespace that the semantic conventions give for service.instance.id.
var instanceSpace = [16]byte{0x4d, 0x63, 0x00, 0x9a, 0x8d, 0x0f, 0x11, 0xee, 0xaa, 0xd7, 0x4c, 0x79, 0x6e, 0xd8, 0xe3, 0x20}

// instance makes service.instance.id: a version 5 UUID of the host and the process, so that it is the
// same after a restart of ambit, and tells nothing of what it is made from. An owner without a process
// is told by its cgroup and name.
func (m *Meta) instance(s subject) string {
	name := fmt.Sprintf("%s\n%s\n", m.host.id, m.host.boot)
	if s.owner.PID != 0 {
		name += fmt.Sprintf("process %d %d", s.owner.PID, s.ticks)
	} else {
		name += fmt.Sprintf("cgroup %d %d %s", s.owner.Cgroup, s.owner.NetNS, s.owner.Comm)
	}
	hash := sha1.New()
	hash.Write(instanceSpace[:])
	hash.Write([]byte(name))
	id := hash.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x50 // version 5
	id[8] = id[8]&0x3f | 0x80 // variant
	text := hex.EncodeToString(id)
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}

// creationTime is when the process started, by the wall clock as it stands now.
func creationTime(s subject) string {
	started := int64(s.owner.StartedNS)
	if started == 0 {
		started = int64(s.ticks) * clockTick
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil || started == 0 {
		return ""
	}
	return time.Now().Add(time.Duration(started - now.Nano())).UTC().Format("2006-01-02T15:04:05.000Z")
}
