package ztunnel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// window is how much one stream may have under way, and so the most that is kept of one whose
	// application does not read.
	window = 1 << 20
	// sessionWindow is as large as HTTP/2 allows: the streams' own windows are the bound.
	sessionWindow = 1<<31 - 1
	// maxStreams is how many streams share a connection before the next is opened, as in the real one.
	maxStreams = 100
	// maxControl bounds the frames that wait behind a peer who does not read.
	maxControl = 16 << 10
)

var errSessionEnded = errors.New("the HBONE connection has ended")

// session is one HBONE connection: HTTP/2 with CONNECT streams alone. It is written for a path that is
// measured: the goroutine that reads frames writes their data to the applications itself, and the one that
// reads from an application writes frames itself, so that a byte waits for nobody else.
//
//	open ----GOAWAY, maxStreams reached----> draining ----last stream----> ended
//	  \----------------------- read or write error ----------------------/
type session struct {
	conn   net.Conn
	accept func(*stream, string) // server: called in a goroutine of its own for every CONNECT and its authority

	accepted sync.WaitGroup // the calls of accept

	wmu     sync.Mutex // held while a frame is written
	framer  *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer

	mu       sync.Mutex
	credit   sync.Cond // of mu: a window has grown, or a stream or the session has ended
	streams  map[uint32]*stream
	nextID   uint32
	windowed int64 // what may still be sent in all
	initial  int64 // a new stream's window, as the peer set it
	limit    int   // streams that the peer takes
	draining bool
	err      error     // why it ended
	control  []control // frames that the reading goroutine wants sent
	wake     chan struct{}

	received int64 // by the reading goroutine: data not given credit for yet
}

// control is a small frame. The reading goroutine must not write: if both ends' did, each could wait for the
// other to read.
type control struct {
	kind  http2.FrameType
	id    uint32
	value uint32
	ping  [8]byte
}

func newSession(conn net.Conn, nextID uint32, accept func(*stream, string)) *session {
	s := &session{
		conn: conn, accept: accept, nextID: nextID, streams: make(map[uint32]*stream),
		windowed: 65535, initial: 65535, limit: maxStreams, wake: make(chan struct{}, 1),
	}
	s.credit.L = &s.mu
	s.framer = http2.NewFramer(conn, bufio.NewReaderSize(conn, 2*frameSize))
	s.framer.SetReuseFrames()
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.encoder = hpack.NewEncoder(&s.block)
	return s
}

// greet sends the settings; a client's follow its preface.
func (s *session) greet(preface string) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if preface != "" {
		if _, err := io.WriteString(s.conn, preface); err != nil {
			return fmt.Errorf("send the preface: %w", err)
		}
	}
	err := s.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
	)
	if err == nil {
		err = s.framer.WriteWindowUpdate(0, sessionWindow-65535)
	}
	if err != nil {
		return fmt.Errorf("send the settings: %w", err)
	}
	return nil
}

// run reads frames until the connection ends, and ends every stream with it.
func (s *session) run() error {
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.writeControl()
	}()
	err := s.read()
	s.fail(err)
	<-written
	s.accepted.Wait()
	return err
}

func (s *session) read() error {
	for {
		frame, err := s.framer.ReadFrame()
		var broken http2.StreamError
		if errors.As(err, &broken) {
			s.send(control{kind: http2.FrameRSTStream, id: broken.StreamID, value: uint32(broken.Code)})
			continue
		}
		if err != nil {
			return fmt.Errorf("read from HBONE: %w", err)
		}
		if err := s.take(frame); err != nil {
			return err
		}
	}
}

func (s *session) take(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.DataFrame:
		s.received += int64(f.Length)
		if s.received >= 1<<28 {
			s.send(control{kind: http2.FrameWindowUpdate, value: uint32(s.received)})
			s.received = 0
		}
		if stream := s.stream(f.StreamID); stream != nil {
			stream.receive(f.Data(), f.StreamEnded())
		}
	case *http2.MetaHeadersFrame:
		s.takeHeaders(f)
	case *http2.RSTStreamFrame:
		if stream := s.stream(f.StreamID); stream != nil {
			stream.abort(fmt.Errorf("the peer reset the stream: %v", f.ErrCode), false)
		}
	case *http2.WindowUpdateFrame:
		s.mu.Lock()
		defer s.mu.Unlock()
		if f.StreamID == 0 {
			s.windowed += int64(f.Increment)
		} else if stream := s.streams[f.StreamID]; stream != nil {
			stream.windowed += int64(f.Increment)
		}
		s.credit.Broadcast()
	case *http2.SettingsFrame:
		if !f.IsAck() {
			s.takeSettings(f)
			s.send(control{kind: http2.FrameSettings})
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			s.send(control{kind: http2.FramePing, ping: f.Data})
		}
	case *http2.GoAwayFrame:
		s.mu.Lock()
		s.draining = true
		s.mu.Unlock()
	}
	return nil
}

func (s *session) takeSettings(f *http2.SettingsFrame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value, ok := f.Value(http2.SettingInitialWindowSize); ok {
		for _, stream := range s.streams {
			stream.windowed += int64(value) - s.initial
		}
		s.initial = int64(value)
	}
	if value, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
		s.limit = int(min(value, maxStreams))
	}
	s.credit.Broadcast()
}

// takeHeaders is a server's new stream, a client's answer, or trailers, which say nothing but the end.
func (s *session) takeHeaders(f *http2.MetaHeadersFrame) {
	stream := s.stream(f.StreamID)
	switch {
	case stream != nil && f.PseudoValue("status") != "":
		var err error
		if status := f.PseudoValue("status"); !strings.HasPrefix(status, "2") {
			err = fmt.Errorf("the peer answered CONNECT with status %s", status)
		}
		stream.answer(err)
		fallthrough
	case stream != nil:
		if f.StreamEnded() {
			stream.receive(nil, true)
		}
	case s.accept == nil || f.StreamID%2 == 0:
		s.send(control{kind: http2.FrameRSTStream, id: f.StreamID, value: uint32(http2.ErrCodeProtocol)})
	case f.PseudoValue("method") != "CONNECT":
		s.send(control{kind: http2.FrameRSTStream, id: f.StreamID, value: uint32(http2.ErrCodeRefusedStream)})
	default:
		s.mu.Lock()
		stream := newStream(s, f.StreamID)
		s.streams[f.StreamID] = stream
		s.mu.Unlock()
		if f.StreamEnded() {
			stream.receive(nil, true)
		}
		authority := f.PseudoValue("authority") // the frame is used again for the next
		s.accepted.Go(func() { s.accept(stream, authority) })
	}
}

func (s *session) stream(id uint32) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

// open begins a CONNECT to that authority. It is nil, without an error, if no stream can be opened here.
func (s *session) open(authority string) (*stream, error) {
	s.wmu.Lock() // from choosing the ID to sending it, as IDs must arrive in order
	defer s.wmu.Unlock()
	s.mu.Lock()
	if s.draining || s.err != nil || len(s.streams) >= s.limit || s.nextID > 1<<30 {
		s.mu.Unlock()
		return nil, nil
	}
	stream := newStream(s, s.nextID)
	s.streams[stream.id] = stream
	s.nextID += 2
	s.mu.Unlock()
	err := s.writeHeaders(stream.id, false,
		hpack.HeaderField{Name: ":method", Value: "CONNECT"},
		hpack.HeaderField{Name: ":authority", Value: authority})
	if err != nil {
		s.fail(err)
		return nil, err
	}
	return stream, nil
}

// writeHeaders is called with wmu held.
func (s *session) writeHeaders(id uint32, end bool, fields ...hpack.HeaderField) error {
	s.block.Reset()
	for _, field := range fields {
		if err := s.encoder.WriteField(field); err != nil {
			return fmt.Errorf("encode headers: %w", err)
		}
	}
	err := s.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: s.block.Bytes(), EndHeaders: true, EndStream: end,
	})
	if err != nil {
		return fmt.Errorf("send headers: %w", err)
	}
	return nil
}

// respond answers a CONNECT.
func (s *session) respond(id uint32, status string, end bool) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	return s.writeHeaders(id, end, hpack.HeaderField{Name: ":status", Value: status})
}

// writeData sends one frame of at most frameSize bytes that flow control has allowed.
func (s *session) writeData(id uint32, end bool, data []byte) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.framer.WriteData(id, end, data); err != nil {
		return fmt.Errorf("send data: %w", err)
	}
	return nil
}

// send hands a control frame to the goroutine that writes them.
func (s *session) send(c control) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	if len(s.control) >= maxControl {
		s.err = errors.New("the HBONE peer does not read")
		s.conn.Close() // the reading goroutine finds it closed and ends the streams
		return
	}
	s.control = append(s.control, c)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// writeControl sends control frames until the session ends.
func (s *session) writeControl() {
	for range s.wake {
		s.mu.Lock()
		frames, ended := s.control, s.err != nil
		s.control = nil
		s.mu.Unlock()
		if ended {
			return
		}
		s.wmu.Lock()
		for _, c := range frames {
			if err := s.writeOne(c); err != nil {
				s.conn.Close()
				break
			}
		}
		s.wmu.Unlock()
	}
}

func (s *session) writeOne(c control) error {
	switch c.kind {
	case http2.FrameSettings:
		return s.framer.WriteSettingsAck()
	case http2.FramePing:
		return s.framer.WritePing(true, c.ping)
	case http2.FrameWindowUpdate:
		return s.framer.WriteWindowUpdate(c.id, c.value)
	}
	return s.framer.WriteRSTStream(c.id, http2.ErrCode(c.value))
}

// fail ends the session and every stream of it.
func (s *session) fail(err error) {
	s.conn.Close()
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.draining = true
	streams := s.streams
	s.streams = make(map[uint32]*stream)
	s.credit.Broadcast()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	s.mu.Unlock()
	for _, stream := range streams {
		stream.abort(errSessionEnded, false)
	}
}

// remove forgets a stream that has ended.
func (s *session) remove(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, id)
}

// readPreface reads what a client sends first.
func readPreface(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return fmt.Errorf("read the HTTP/2 preface: %w", err)
	}
	if string(preface) != http2.ClientPreface {
		return errors.New("read the HTTP/2 preface: the peer speaks something else")
	}
	return conn.SetReadDeadline(time.Time{})
}
