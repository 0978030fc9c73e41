package meta

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit/l7"
)

const (
	maxServices = 1024 // cached services, of at most 8 KiB each
	// maxMembers is how many processes of a cgroup are asked for their name.
	maxMembers = 32
)

// subject is an owner and all that was found out about it.
type subject struct {
	owner l7.Owner
	process
	place     place
	container container
	env       environment
}

// serviceKey is what is left of a process that has exited, and what the kernel counts by.
type serviceKey struct {
	cgroup uint64
	comm   string
}

// service is what the processes of one name in one cgroup have in common.
type service struct {
	place     place
	container container
	env       environment // of one of them
}

// unread describes an owner by what the kernel recorded and what is known already.
func (m *Meta) unread(o l7.Owner) subject {
	s := subject{owner: o, process: m.recorded(o)}
	if path, _ := m.cgroups.quick(o.Cgroup); path != "" {
		s.place = m.clearPlace(locate(path))
		s.container, _ = m.runtimes.known.Get(s.place.container)
	}
	return s
}

// recorded is what the kernel's record tells of a process that was not read.
func (m *Meta) recorded(o l7.Owner) process {
	return process{comm: m.count.clean(o.Comm, maxValue), ticks: o.StartedNS / clockTick}
}

// look reads an owner's process, or what is left of it, and says for how long that holds; 0 is for ever.
func (m *Meta) look(r *reader, o l7.Owner) (subject, time.Duration) {
	s := subject{owner: o}
	if o.PID != 0 {
		if err := m.live(r, &s); err == nil {
			if o.StartedNS == 0 {
				return s, unconfirmedFor
			}
			return s, 0
		} else if !errors.Is(err, errGone) {
			m.count.denied.Add(1)
		} else {
			m.count.gone.Add(1)
		}
	}
	s = subject{owner: o, process: m.recorded(o)}
	found, settled := m.service(r, serviceKey{cgroup: o.Cgroup, comm: o.Comm})
	s.place, s.container, s.env = found.place, found.container, found.env
	if !settled {
		return s, provisionalFor
	}
	return s, 0
}

// live reads a process that runs. It returns errGone if it does not, or no longer.
func (m *Meta) live(r *reader, s *subject) error {
	dir, err := r.open(s.owner.PID)
	if err != nil {
		return err
	}
	defer closeFD(dir)
	if s.process, err = r.process(dir, s.owner.StartedNS); err != nil {
		return err
	}
	s.place = m.clearPlace(locateLines(s.groups))
	if s.env, err = r.environ(dir); err != nil && r.lost(err) {
		return errGone
	}
	s.container = m.runtimes.container(s.place.container)
	return nil
}

// service finds what the processes of one name in one cgroup have in common. Where the cgroup is a
// unit's or a container's, the environment of one that runs speaks for all of them: for those that have
// exited, and for the counters, which know no process. Elsewhere, as in a login session, two processes
// of one name need have nothing in common. The first answer stays, so that a counter keeps its name.
func (m *Meta) service(r *reader, k serviceKey) (found service, settled bool) {
	if found, ok := m.services.Get(k); ok {
		return found, true
	}
	path, settled := m.cgroups.path(k.cgroup)
	if !settled {
		return found, false
	}
	if path != "" {
		found.place = m.clearPlace(locate(path))
		found.container = m.runtimes.container(found.place.container)
	}
	if found.place != (place{}) {
		found.env = m.member(r, path, k.comm)
	}
	m.services.Add(serviceKey{cgroup: k.cgroup, comm: strings.Clone(k.comm)}, found)
	return found, true
}

// member returns the environment of a process of this name in the cgroup at path.
func (m *Meta) member(r *reader, path, comm string) environment {
	dir, err := unix.Open(m.cgroups.mount+path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return environment{} // it was removed
	}
	defer closeFD(dir)
	list, err := r.file(dir, "cgroup.procs", len(r.buffer))
	if err != nil {
		return environment{}
	}
	var pids []uint32
	for line := range bytes.Lines(list) {
		// A process that is not in our pid namespace has number 0.
		if pid, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 10, 32); err == nil && pid != 0 {
			pids = append(pids, uint32(pid))
		}
		if len(pids) == maxMembers {
			break
		}
	}
	for _, pid := range pids {
		if env, ok := r.namesake(pid, comm); ok {
			return env
		}
	}
	return environment{}
}

// namesake returns the environment of a process if this is its name.
func (r *reader) namesake(pid uint32, comm string) (environment, bool) {
	dir, err := r.open(pid)
	if err != nil {
		return environment{}, false
	}
	defer closeFD(dir)
	name, err := r.file(dir, "comm", len(r.buffer))
	if err != nil || string(bytes.TrimSuffix(name, []byte("\n"))) != comm {
		return environment{}, false
	}
	env, err := r.environ(dir)
	if err != nil {
		return environment{}, !r.lost(err) // where one may not be read, none may
	}
	return env, true
}

// clearPlace makes fit to be kept what an unprivileged user may have named.
func (m *Meta) clearPlace(p place) place {
	p.unit = m.count.clean(p.unit, maxValue)
	p.container = strings.Clone(p.container)
	p.pod = strings.Clone(p.pod)
	return p
}
