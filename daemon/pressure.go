package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ambit/bpf"
	"ambit/sampling"

	"golang.org/x/sys/unix"
)

// pressure reads how loaded node, workloads and ambit itself are. Signals come from, the first that there is:
//
//	CPU of the node       /proc/pressure/cpu, but no more than how busy /proc/stat says it is; without PSI the latter,
//	                      above 90 %
//	memory of the node    /proc/pressure/memory, but no more than how short memory is, by /proc/meminfo; without PSI the
//	                      latter, below 10 % available
//	CPU of a workload     cpu.pressure of its cgroup, and the time that cpu.stat says it was throttled for
//	memory of a workload  memory.pressure of its cgroup; else memory.current, less files that can go, above 90 % of its limit
//
// One goroutine uses it. It holds three files open for each workload, of which the kernel counts 511 at the most.
type pressure struct {
	root    string // where the host's /proc is
	dir     func(cgroup uint64) string
	reader  *bpf.Reader
	queue   func() float64
	at      time.Time
	cpu     psiFile
	memory  psiFile
	busy    busyTime
	own     time.Duration
	cgroups map[uint64]*workload
}

func newPressure(root string, dir func(uint64) string, reader *bpf.Reader, queue func() float64) *pressure {
	p := &pressure{root: root, dir: dir, reader: reader, queue: queue, cgroups: make(map[uint64]*workload)}
	p.cpu.open(filepath.Join(root, "pressure/cpu"))
	p.memory.open(filepath.Join(root, "pressure/memory"))
	return p
}

func (p *pressure) close() {
	p.cpu.close()
	p.memory.close()
	for _, w := range p.cgroups {
		w.close()
	}
}

// read tells the load since the last call. names are those of the services of the snapshot.
func (p *pressure) read(names map[uint16]string, snap *bpf.Snapshot) sampling.Signals {
	now := time.Now()
	elapsed := now.Sub(p.at)
	first := p.at.IsZero()
	p.at = now
	var usage unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage) // can't fail for itself
	own := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	s := sampling.Signals{Services: make(map[string]sampling.Pressure)}
	if !first {
		s.Self = share(own-p.own, elapsed)
	}
	p.own = own
	if p.reader != nil {
		s.Ring = p.reader.Filled()
	}
	if p.queue != nil {
		s.Queue = p.queue()
	}
	s.Node.CPU = p.nodeCPU(elapsed, first)
	s.Node.Memory = p.nodeMemory(elapsed)

	seen := make(map[uint64]bool, len(snap.Services))
	for index, service := range snap.Services {
		if service.Cgroup == 0 {
			continue
		}
		w := p.cgroups[service.Cgroup]
		if w == nil {
			if w = openWorkload(p.dir(service.Cgroup)); w == nil {
				continue
			}
			p.cgroups[service.Cgroup] = w
		}
		if !seen[service.Cgroup] {
			seen[service.Cgroup] = true
			w.read(elapsed)
		}
		was, name := s.Services[names[index]], names[index]
		s.Services[name] = sampling.Pressure{CPU: max(was.CPU, w.now.CPU), Memory: max(was.Memory, w.now.Memory)}
	}
	for id, w := range p.cgroups {
		if !seen[id] {
			w.close()
			delete(p.cgroups, id)
		}
	}
	return s
}

// share is how much of the time passed for something, from 0 to 1.
func share(of, elapsed time.Duration) float64 {
	if elapsed <= 0 || of <= 0 {
		return 0
	}
	return min(1, float64(of)/float64(elapsed))
}

// nodeCPU is no more than how busy the processors are: one of many that is fought for does not make a node loaded, though
// something waits all the time.
func (p *pressure) nodeCPU(elapsed time.Duration, first bool) float64 {
	waited, psi := p.cpu.read(elapsed)
	busy, ok := p.busy.read(filepath.Join(p.root, "stat"))
	switch {
	case !ok || first:
		return 0
	case psi:
		return min(waited, busy)
	}
	return above(busy, 0.9)
}

// nodeMemory is no more than how short memory is, from a fifth available on: who stalls at a limit of its own makes the
// kernel say that something stalls, and no node loaded.
func (p *pressure) nodeMemory(elapsed time.Duration) float64 {
	stalled, psi := p.memory.read(elapsed)
	content, err := os.ReadFile(filepath.Join(p.root, "meminfo"))
	if err != nil {
		return 0
	}
	total, there := field(content, "MemTotal:")
	available, too := field(content, "MemAvailable:")
	if !there || !too || total == 0 {
		return 0
	}
	taken := 1 - float64(available)/float64(total)
	if psi {
		return min(stalled, above(taken, 0.8))
	}
	return above(taken, 0.9)
}

// above is how far a share is on its way from a mark to 1.
func above(share, mark float64) float64 { return min(max((share-mark)/(1-mark), 0), 1) }

// workload is the files of one cgroup. A file that is not there is nil.
type workload struct {
	dir       string
	cpu       psiFile
	memory    psiFile
	stat      *os.File
	throttled time.Duration
	begun     bool
	now       sampling.Pressure
}

// openWorkload is nil for the root of the hierarchy, whose files tell of the node, and where there is no directory.
func openWorkload(dir string) *workload {
	if dir == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); err != nil { // the root has none
		return nil
	}
	w := &workload{dir: dir}
	w.cpu.open(filepath.Join(dir, "cpu.pressure"))
	w.memory.open(filepath.Join(dir, "memory.pressure"))
	w.stat, _ = os.Open(filepath.Join(dir, "cpu.stat"))
	return w
}

func (w *workload) close() {
	w.cpu.close()
	w.memory.close()
	if w.stat != nil {
		w.stat.Close()
	}
}

func (w *workload) read(elapsed time.Duration) {
	w.now = sampling.Pressure{}
	w.now.CPU, _ = w.cpu.read(elapsed)
	if content, ok := readAt(w.stat); ok {
		if us, there := field(content, "throttled_usec"); there {
			throttled := time.Duration(us) * time.Microsecond
			if w.begun {
				w.now.CPU = max(w.now.CPU, share(throttled-w.throttled, elapsed))
			}
			w.throttled = throttled
		}
	}
	w.begun = true
	var ok bool
	if w.now.Memory, ok = w.memory.read(elapsed); !ok {
		w.now.Memory = w.memoryUsed()
	}
}

// memoryUsed is how near the cgroup is to its limit, without a page cache that can go.
func (w *workload) memoryUsed() float64 {
	limit := ^uint64(0)
	for _, name := range []string{"memory.high", "memory.max"} {
		if v, err := readNumber(filepath.Join(w.dir, name)); err == nil {
			limit = min(limit, v)
		}
	}
	current, err := readNumber(filepath.Join(w.dir, "memory.current"))
	if err != nil || limit == 0 || limit == ^uint64(0) {
		return 0
	}
	if content, err := os.ReadFile(filepath.Join(w.dir, "memory.stat")); err == nil {
		files, _ := field(content, "inactive_file")
		current -= min(files, current)
	}
	return above(float64(current)/float64(limit), 0.9)
}

// readNumber reads a file of one number; "max" is an error.
func readNumber(path string) (uint64, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(content)), 10, 64)
}

// field is the number behind a name at the beginning of a line.
func field(content []byte, name string) (uint64, bool) {
	for line := range bytes.Lines(content) {
		if words := bytes.Fields(line); len(words) >= 2 && string(words[0]) == name {
			v, err := strconv.ParseUint(string(words[1]), 10, 64)
			return v, err == nil
		}
	}
	return 0, false
}

// readAt reads a small file of the kernel anew.
func readAt(f *os.File) ([]byte, bool) {
	if f == nil {
		return nil, false
	}
	buffer := make([]byte, 1<<12)
	n, err := f.ReadAt(buffer, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false // its cgroup is gone
	}
	return buffer[:n], true
}

// psiFile is one file of pressure stall information: docs of the kernel, accounting/psi.
type psiFile struct {
	file  *os.File
	total time.Duration
	begun bool
}

func (f *psiFile) open(path string) { f.file, _ = os.Open(path) }

func (f *psiFile) close() {
	if f.file != nil {
		f.file.Close()
	}
}

// read is the share of the time since the last call in which something waited; false where there is no such file.
func (f *psiFile) read(elapsed time.Duration) (float64, bool) {
	content, ok := readAt(f.file)
	if !ok {
		return 0, false
	}
	total, err := psiTotal(content)
	if err != nil {
		return 0, false
	}
	waited := total - f.total
	f.total = total
	if !f.begun {
		f.begun = true
		return 0, true
	}
	return share(waited, elapsed), true
}

// psiTotal is how long something has waited so far.
func psiTotal(content []byte) (time.Duration, error) {
	for line := range strings.Lines(string(content)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "some" {
			continue
		}
		if text, found := strings.CutPrefix(words[len(words)-1], "total="); found {
			us, err := strconv.ParseUint(text, 10, 63)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("no total of some in %q", content)
}

// busyTime is how busy the processors were.
type busyTime struct{ idle, all uint64 }

func (b *busyTime) read(path string) (float64, bool) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	first, _, _ := bytes.Cut(content, []byte("\n"))
	words := bytes.Fields(first)
	if len(words) < 6 || string(words[0]) != "cpu" {
		return 0, false
	}
	var now busyTime
	for i, w := range words[1:min(len(words), 9)] { // guests are counted in user and nice
		v, err := strconv.ParseUint(string(w), 10, 64)
		if err != nil {
			return 0, false
		}
		now.all += v
		if i == 3 || i == 4 { // idle, and waiting for disks
			now.idle += v
		}
	}
	idle, all := now.idle-b.idle, now.all-b.all
	*b = now
	if all == 0 {
		return 0, false
	}
	return 1 - min(1, float64(idle)/float64(all)), true
}
