package bpf

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// pollInterval bounds how long a record waits: the kernel only wakes the reader when many wait.
const pollInterval = 50 * time.Millisecond

// Reader takes records from the ring buffer. It is used by one goroutine; Close may come from another.
type Reader struct {
	ring   *ringbuf.Reader
	sample ringbuf.Record
	// waiting says that the deadline holds for the records to come. It is kept here since asking the ring
	// buffer what it has is not safe while Close runs.
	waiting bool
	// Bad counts samples that are no record: always 0 unless the daemon and its programs disagree.
	Bad uint64
}

// Reader opens the ring buffer.
func (k *Kernel) Reader() (*Reader, error) {
	ring, err := ringbuf.NewReader(k.objs.Records)
	if err != nil {
		return nil, fmt.Errorf("open the ring buffer: %w", err)
	}
	return &Reader{ring: ring}, nil
}

// Next fills r with the next record. It answers false where the ring buffer was found empty after pollInterval,
// and os.ErrClosed behind Close.
func (r *Reader) Next(rec *Record) (bool, error) {
	if !r.waiting {
		r.ring.SetDeadline(time.Now().Add(pollInterval))
		r.waiting = true
	}
	for {
		err := r.ring.ReadInto(&r.sample)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.waiting = false
			return false, nil
		case err != nil:
			return false, err
		}
		if rec.decode(r.sample.RawSample) {
			return true, nil
		}
		r.Bad++
	}
}

// Close ends Next.
func (r *Reader) Close() error {
	return r.ring.Close()
}
