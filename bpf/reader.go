package bpf

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// pollInterval bounds how long a record waits: the kernel only wakes the reader when many wait.
const pollInterval = 50 * time.Millisecond

// longAgo is a deadline that lets the ring buffer's own reader never wait.
var longAgo = time.Unix(1, 0)

// Reader takes records from the ring buffer. It is used by one goroutine; Close may come from another.
//
// It waits in Go's poller, not in the one that ringbuf brings: that one holds a thread and a processor of Go's
// scheduler all the while, which then looks after them thousands of times a second.
type Reader struct {
	ring   *ringbuf.Reader
	sample ringbuf.Record
	// file is the ring buffer once more, and conn what waits for it.
	file   *os.File
	conn   syscall.RawConn
	closed atomic.Bool
	// closing keeps Close away while Filled looks at the memory.
	closing sync.Mutex
	// empty says that the ring buffer was found empty, so that the next look is worth a wait.
	empty bool
	// Bad counts samples that are no record: always 0 unless the daemon and its programs disagree.
	Bad uint64
}

// Reader opens the ring buffer.
func (k *Kernel) Reader() (*Reader, error) {
	ring, err := ringbuf.NewReader(k.objs.Records)
	if err != nil {
		return nil, fmt.Errorf("open the ring buffer: %w", err)
	}
	ring.SetDeadline(longAgo)
	r := &Reader{ring: ring}
	if err := r.watch(k.objs.Records); err != nil {
		return nil, errors.Join(fmt.Errorf("watch the ring buffer: %w", err), r.Close())
	}
	return r, nil
}

// watch gives the map to Go's poller.
func (r *Reader) watch(records *ebpf.Map) error {
	fd, err := unix.FcntlInt(uintptr(records.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	r.file = os.NewFile(uintptr(fd), "ring buffer")
	// Only a file that the poller took has deadlines.
	if err := r.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	r.conn, err = r.file.SyscallConn()
	return err
}

// Next fills rec with the next record. It answers false as soon as the ring buffer is found empty, and the call behind
// that waits, for pollInterval at the most. Behind Close it answers os.ErrClosed.
func (r *Reader) Next(rec *Record) (bool, error) {
	if r.empty {
		if err := r.wait(); err != nil {
			return false, err
		}
		r.empty = false
	}
	for {
		// The record's own memory takes the sample, so that it is copied once.
		r.sample.RawSample = rec.room()
		err := r.ring.ReadInto(&r.sample)
		switch {
		case err == nil && rec.complete(len(r.sample.RawSample)):
			return true, nil
		case err == nil:
			r.Bad++
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.empty = true
			return false, nil
		default:
			return false, err
		}
	}
}

// wait returns when the kernel says that many records wait, or after pollInterval.
func (r *Reader) wait() error {
	waited := false
	err := r.file.SetReadDeadline(time.Now().Add(pollInterval))
	if err == nil {
		err = r.conn.Read(func(uintptr) (done bool) {
			done, waited = waited, true
			return done
		})
	}
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case r.closed.Load():
		return os.ErrClosed
	}
	return fmt.Errorf("wait for the ring buffer: %w", err)
}

// Filled is how full the ring buffer is, from 0 to 1.
func (r *Reader) Filled() float64 {
	r.closing.Lock()
	defer r.closing.Unlock()
	if r.closed.Load() {
		return 0
	}
	return float64(r.ring.AvailableBytes()) / float64(r.ring.BufferSize())
}

// Close ends Next.
func (r *Reader) Close() error {
	r.closing.Lock()
	defer r.closing.Unlock()
	r.closed.Store(true)
	err := r.ring.Close()
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	return err
}
