package ztunnel

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// stream is one connection's bytes inside a session. Its lock is never taken while the session's mu is held.
type stream struct {
	session  *session
	id       uint32
	answered chan error // client: the peer's answer to CONNECT
	windowed int64      // under session.mu: what may still be sent

	mu       sync.Mutex
	app      *net.TCPConn // nil until there is one; the reading goroutine writes to it
	raw      syscall.RawConn
	try      func(fd uintptr) bool // writes data once, without waiting
	data     []byte                // what try writes
	wrote    int
	tried    error
	queue    []byte // received and not written yet: at most window
	draining bool   // a goroutine is writing the queue
	ended    bool   // the peer will send no more
	passed   bool   // the application was told so
	finished bool   // we have sent the end of our side
	dead     bool
	consumed uint32 // written to the application and not given credit for yet
}

func newStream(s *session, id uint32) *stream {
	t := &stream{session: s, id: id, windowed: s.initial, answered: make(chan error, 1)}
	t.try = func(fd uintptr) bool {
		t.wrote, t.tried = unix.Write(int(fd), t.data)
		return true
	}
	return t
}

// attach gives the stream its application and writes to it what has come already.
func (t *stream) attach(app *net.TCPConn) error {
	raw, err := app.SyscallConn()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return errSessionEnded
	}
	t.app, t.raw = app, raw
	if len(t.queue) > 0 || t.ended {
		t.draining = true
		go t.drain()
	}
	return nil
}

func (t *stream) answer(err error) {
	select {
	case t.answered <- err:
	default: // answered already: 1xx or a second answer, which say nothing
	}
}

// accepted waits for the peer's answer to CONNECT.
func (t *stream) accepted() error {
	timer := time.NewTimer(dialTimeout)
	defer timer.Stop()
	select {
	case err := <-t.answered:
		return err
	case <-timer.C:
		return errors.New("the peer did not answer CONNECT in time")
	}
}

// receive passes on what the peer sent. It does not wait: what the application does not take at once is
// queued for a goroutine.
func (t *stream) receive(data []byte, end bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return
	}
	if t.app != nil && !t.draining && len(data) > 0 {
		t.data = data
		err := t.raw.Write(t.try)
		t.data = nil
		if err == nil && t.tried != unix.EAGAIN && t.tried != unix.EINTR {
			err = t.tried
		}
		if err != nil {
			t.kill(true)
			return
		}
		written := max(0, t.wrote)
		data = data[written:]
		t.grant(written)
	}
	if len(t.queue)+len(data) > window {
		t.kill(true) // the peer does not keep to flow control
		return
	}
	t.queue = append(t.queue, data...)
	t.ended = t.ended || end
	switch {
	case t.app == nil || t.draining:
	case len(t.queue) > 0:
		t.draining = true
		go t.drain()
	case t.ended:
		t.pass()
	}
}

// drain writes the queue to an application that takes its time.
func (t *stream) drain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.dead && len(t.queue) > 0 {
		data := t.queue
		t.queue = nil
		t.mu.Unlock()
		n, err := t.app.Write(data)
		t.mu.Lock()
		if t.dead {
			return
		}
		if err != nil {
			t.kill(true)
			return
		}
		t.grant(n)
	}
	t.draining = false
	if !t.dead && t.ended {
		t.pass()
	}
}

// grant lets the peer send as much again as the application has taken. Called with mu held.
func (t *stream) grant(n int) {
	t.consumed += uint32(n)
	if t.consumed >= window/2 && !t.ended {
		t.session.send(control{kind: http2.FrameWindowUpdate, id: t.id, value: t.consumed})
		t.consumed = 0
	}
}

// pass tells the application that the peer will send no more. Called with mu held.
func (t *stream) pass() {
	if t.passed {
		return
	}
	t.passed = true
	if err := t.app.CloseWrite(); err != nil && !t.finished {
		t.kill(true)
		return
	}
	t.closeIfDone()
}

// pump sends what the application says until it ends, then the end.
func (t *stream) pump() {
	r, err := newReader(t.app)
	for err == nil {
		var data []byte
		if data, err = r.next(); err != nil {
			break
		}
		err = t.write(data)
		r.release()
	}
	if errors.Is(err, io.EOF) {
		if err = t.session.writeData(t.id, true, nil); err == nil {
			t.mu.Lock()
			t.finished = true
			t.closeIfDone()
			t.mu.Unlock()
			return
		}
	}
	t.abort(err, true)
}

// write sends data as flow control allows.
func (t *stream) write(data []byte) error {
	for len(data) > 0 {
		n, err := t.reserve(len(data))
		if err != nil {
			return err
		}
		if err := t.session.writeData(t.id, false, data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// reserve waits until some of n bytes may be sent and takes them off the windows.
func (t *stream) reserve(n int) (int, error) {
	s := t.session
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.err != nil || s.streams[t.id] != t {
			return 0, errSessionEnded
		}
		if allowed := min(t.windowed, s.windowed, int64(n)); allowed > 0 {
			t.windowed -= allowed
			s.windowed -= allowed
			return int(allowed), nil
		}
		s.credit.Wait()
	}
}

// abort ends the stream before its time: the application sees a reset, and the peer too if tell.
func (t *stream) abort(err error, tell bool) {
	t.answer(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kill(tell)
}

// kill is abort with mu held.
func (t *stream) kill(tell bool) {
	if t.dead {
		return
	}
	t.dead = true
	t.queue = nil
	if t.app != nil {
		reset(t.app)
	}
	if tell {
		t.session.send(control{kind: http2.FrameRSTStream, id: t.id, value: uint32(http2.ErrCodeCancel)})
	}
	t.leave()
}

// closeIfDone ends the stream when both sides have. Called with mu held.
func (t *stream) closeIfDone() {
	if t.dead || !t.passed || !t.finished {
		return
	}
	t.dead = true
	_ = t.app.Close()
	t.leave()
}

// leave takes the stream out of its session and wakes who waits to send on it.
func (t *stream) leave() {
	t.session.remove(t.id)
	t.session.mu.Lock()
	t.session.credit.Broadcast()
	t.session.mu.Unlock()
}
