package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"ambit/tests/harness"
)

// point is where a program is attached.
type point struct {
	pod, hook, device string
}

// Recorder holds attached programs. What they see waits in a buffer of 1 MiB.
type Recorder struct {
	buffer  *ebpf.Map
	reader  *ringbuf.Reader
	points  []point
	cookies map[uint64]string // pods by the cookie of their namespace
	objects []*recordObjects
	closers []io.Closer
}

// New makes a recorder of the connections of every namespace that is handed to Watch. Close it.
func New() (*Recorder, error) {
	// Before Linux 5.11 maps are charged to this limit.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the limit on locked memory: %w", err)
	}
	r := &Recorder{cookies: make(map[uint64]string)}
	objects, err := r.load(0)
	if err != nil {
		return nil, err
	}
	r.buffer = objects.Sightings
	if r.reader, err = ringbuf.NewReader(r.buffer); err != nil {
		return nil, errors.Join(fmt.Errorf("read the recorder's buffer: %w", err), r.Close())
	}
	root, err := harness.CgroupRoot()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	sockops, err := link.AttachCgroup(link.CgroupOptions{
		Path: root, Attach: ebpf.AttachCGroupSockOps, Program: objects.RecordSocket,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach the recorder to %s: %w", root, err), r.Close())
	}
	r.closers = append(r.closers, sockops)
	return r, nil
}

// load loads the programs once more, for the attachment of that number, with the buffer that all share.
func (r *Recorder) load(number uint32) (*recordObjects, error) {
	spec, err := loadRecord()
	if err != nil {
		return nil, fmt.Errorf("read the recorder's programs: %w", err)
	}
	if err := spec.Variables["point"].Set(number); err != nil {
		return nil, fmt.Errorf("number the recorder's programs: %w", err)
	}
	options := &ebpf.CollectionOptions{}
	if r.buffer != nil {
		options.MapReplacements = map[string]*ebpf.Map{"sightings": r.buffer}
	}
	objects := &recordObjects{}
	if err := spec.LoadAndAssign(objects, options); err != nil {
		return nil, fmt.Errorf("load the recorder's programs: %w", err)
	}
	r.objects = append(r.objects, objects)
	return objects, nil
}

// Watch records the namespace's connections, under that name, and its packets: lo's on egress, as each also
// passes ingress, and those of the other interfaces given on both.
func (r *Recorder) Watch(pod string, ns *harness.Namespace, devices ...string) error {
	cookie, err := ns.Cookie()
	if err != nil {
		return err
	}
	r.cookies[cookie] = pod
	for _, device := range devices {
		hooks := map[string]ebpf.AttachType{"egress": ebpf.AttachTCXEgress, "ingress": ebpf.AttachTCXIngress}
		if device == "lo" {
			delete(hooks, "ingress")
		}
		for hook, kind := range hooks {
			objects, err := r.load(uint32(len(r.points)))
			if err != nil {
				return err
			}
			r.points = append(r.points, point{pod, hook, device})
			err = ns.Do(func() error {
				closer, err := attach(objects.RecordPacket, device, kind)
				if err == nil {
					r.closers = append(r.closers, closer)
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("record %s of %s in %s: %w", hook, device, ns.Name(), err)
			}
		}
	}
	return nil
}

// attach attaches by tcx, or by clsact where the kernel has no tcx, in the current namespace.
func attach(program *ebpf.Program, device string, kind ebpf.AttachType) (io.Closer, error) {
	found, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	attached, err := link.AttachTCX(link.TCXOptions{Interface: found.Index, Program: program, Attach: kind})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return attachClsact(program, found.Index, kind)
	}
	return attached, err
}

// Rows returns what was seen since the last call, in the order in which it was seen, once nothing has
// come for the given time.
func (r *Recorder) Rows(quiet time.Duration) ([]Row, error) {
	var rows []Row
	for {
		r.reader.SetDeadline(time.Now().Add(quiet))
		raw, err := r.reader.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the recorder's buffer: %w", err)
		}
		var s recordSighting
		if err := binary.Read(bytes.NewReader(raw.RawSample), binary.NativeEndian, &s); err != nil {
			return nil, fmt.Errorf("decode what the recorder saw: %w", err)
		}
		if row, ok := r.row(&s); ok {
			rows = append(rows, row)
		}
	}
	var lost uint64
	for _, objects := range r.objects {
		var n uint64
		if err := objects.Lost.Get(&n); err != nil {
			return nil, fmt.Errorf("ask what the recorder lost: %w", err)
		}
		lost += n
	}
	if lost > 0 {
		return nil, fmt.Errorf("the recorder lost %d sightings: its buffer is too small for this traffic", lost)
	}
	return rows, nil
}

// row is false for a connection in a namespace that is not watched.
func (r *Recorder) row(s *recordSighting) (Row, bool) {
	row := Row{
		Event:  eventNames[recordEvent(s.Event)],
		Socket: socketNames[recordSocketKind(s.Socket)],
	}
	if recordSocketKind(s.Socket) == recordSocketKindSOCKET_FULL {
		row.SkMark, row.Family = s.SkMark, s.SkFamily
		row.Local, row.Remote = endpoint(s.Local), endpoint(s.Remote)
	}
	switch recordEvent(s.Event) {
	case recordEventEVENT_ACTIVE, recordEventEVENT_PASSIVE:
		var ok bool
		row.Hook = "sockops"
		row.Pod, ok = r.cookies[s.Netns]
		return row, ok
	}
	at := r.points[s.Point]
	row.Pod, row.Hook, row.Device = at.pod, at.hook, at.device
	row.Source, row.Destination = endpoint(s.Source), endpoint(s.Destination)
	row.Payload, row.SkbMark = int(s.Payload), s.SkbMark
	row.First = printable(s.First[:s.Kept])
	return row, true
}

func endpoint(a recordAddress) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Ip).Unmap(), a.Port)
}

// Close detaches the programs.
func (r *Recorder) Close() error {
	var errs []error
	for _, closer := range r.closers {
		errs = append(errs, closer.Close())
	}
	if r.reader != nil {
		errs = append(errs, r.reader.Close())
	}
	for _, objects := range r.objects {
		errs = append(errs, objects.Close())
	}
	return errors.Join(errs...)
}
