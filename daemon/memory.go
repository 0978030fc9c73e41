package daemon

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"

	"ambit/admin"

	"github.com/prometheus/procfs"
)

// memory sums up what ambit takes. What the process has mapped of its maps counts as maps, once.
func (d *Daemon) memory() (admin.Memory, error) {
	var m admin.Memory
	list, err := d.kernel.Maps()
	if err != nil {
		return m, err
	}
	for _, e := range list {
		m.Maps = append(m.Maps, admin.MapMemory{Name: e.Name, Bytes: e.Bytes})
		m.MapsBytes += e.Bytes
	}
	if m.SocketStorage, err = d.kernel.SocketStorageBytes(); err != nil {
		return m, err
	}
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	m.ProcessHeap = sample[0].Value.Uint64()
	self, err := procfs.Self()
	if err != nil {
		return m, fmt.Errorf("read ambit's own memory: %w", err)
	}
	stat, err := self.Stat()
	if err != nil {
		return m, fmt.Errorf("read ambit's own memory: %w", err)
	}
	m.ProcessRSS = uint64(stat.ResidentMemory())
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return m, fmt.Errorf("read ambit's own memory: %w", err)
	}
	defer smaps.Close()
	if m.ProcessMaps, err = mappedMaps(smaps); err != nil {
		return m, fmt.Errorf("read ambit's own memory: %w", err)
	}
	m.Total = m.ProcessRSS - min(m.ProcessMaps, m.ProcessRSS) + m.MapsBytes + m.SocketStorage
	return m, nil
}

// mappedMaps sums up what of a process's resident memory is BPF maps that it has mapped, in bytes. The data of the
// ring buffer is mapped twice, one after the other, and counts twice there.
func mappedMaps(smaps io.Reader) (uint64, error) {
	var kib uint64
	inMap := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"): // the range that begins a mapping
			inMap = fields[len(fields)-1] == "anon_inode:bpf-map"
		case inMap && len(fields) == 3 && fields[0] == "Rss:":
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0, err
			}
			kib += n
		}
	}
	return kib << 10, lines.Err()
}
