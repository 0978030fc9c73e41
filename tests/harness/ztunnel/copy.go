package ztunnel

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// frameSize is the most that is copied at a time: with a frame's header it fits one TLS record.
const frameSize = 16<<10 - 9

var buffers = sync.Pool{New: func() any { return new([frameSize]byte) }}

// reader reads what an application sends. A buffer is taken only once there is something to read, so that
// idle connections hold none.
type reader struct {
	raw    syscall.RawConn
	buffer *[frameSize]byte
	n      int
	err    error
	ready  func(fd uintptr) bool // made once, as every closure that escapes is an allocation
}

func newReader(c *net.TCPConn) (*reader, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &reader{raw: raw}
	r.ready = func(fd uintptr) bool {
		r.buffer = buffers.Get().(*[frameSize]byte)
		for {
			r.n, r.err = unix.Read(int(fd), r.buffer[:])
			if r.err != unix.EINTR {
				break
			}
		}
		if r.err == unix.EAGAIN {
			r.release()
			return false
		}
		return true
	}
	return r, nil
}

// next waits for data. It is valid until release. The end of the stream is io.EOF.
func (r *reader) next() ([]byte, error) {
	if err := r.raw.Read(r.ready); err != nil {
		return nil, err
	}
	switch {
	case r.err != nil:
		r.release()
		return nil, r.err
	case r.n == 0:
		r.release()
		return nil, io.EOF
	}
	return r.buffer[:r.n], nil
}

func (r *reader) release() {
	buffers.Put(r.buffer)
	r.buffer = nil
}

// join copies between two connections in both directions until both have ended, and closes them. The end
// of one direction is passed on by itself; a reset ends both.
func (p *Proxy) join(a, b *net.TCPConn) {
	if !p.track(b) {
		a.Close()
		return
	}
	defer p.untrack(b)
	done := make(chan struct{})
	p.wg.Go(func() {
		defer close(done)
		copyHalf(b, a)
	})
	copyHalf(a, b)
	<-done
	a.Close()
	b.Close()
}

func copyHalf(to, from *net.TCPConn) {
	r, err := newReader(from)
	for err == nil {
		var data []byte
		if data, err = r.next(); err != nil {
			break
		}
		_, err = to.Write(data)
		r.release()
	}
	if errors.Is(err, io.EOF) {
		if to.CloseWrite() == nil {
			return
		}
	}
	reset(to)
	reset(from)
}

// reset closes a connection so that its peer sees a reset.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // of a connection that is closed already there is nothing to change
	_ = c.Close()
}
