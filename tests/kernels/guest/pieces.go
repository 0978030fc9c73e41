package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// talkLimit is how long a connection that is written by hand may take.
const talkLimit = time.Minute

// letters have from 5 to 15 bits in Huffman's code.
const letters = "a^0Z|e~X{c&i}s*;t,"

// speaker is one end of a connection of HTTP/2 that is written by hand.
type speaker struct {
	conn  net.Conn
	peer  net.Conn // the other end
	block bytes.Buffer
	table *hpack.Encoder
	bytes.Buffer
	*http2.Framer // into the buffer
}

func newSpeaker(conn, peer net.Conn) *speaker {
	s := &speaker{conn: conn, peer: peer}
	s.table = hpack.NewEncoder(&s.block)
	s.Framer = http2.NewFramer(&s.Buffer, nil)
	return s
}

// headers buffers a header block in so many frames.
func (s *speaker) headers(stream uint32, end bool, frames int, fields ...string) error {
	s.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		field := hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: fields[i] == "authorization"}
		if err := s.table.WriteField(field); err != nil {
			return err
		}
	}
	size := max(1, s.block.Len()/frames)
	first := http2.HeadersFrameParam{StreamID: stream, EndStream: end, EndHeaders: frames == 1, BlockFragment: s.block.Bytes()}
	if frames > 1 {
		first.BlockFragment = s.block.Next(size)
		first.PadLength = uint8(frames)
		first.Priority = http2.PriorityParam{Weight: 15}
	}
	err := s.WriteHeaders(first)
	for i := 2; i <= frames && err == nil; i++ {
		if i == frames {
			size = s.block.Len()
		}
		err = s.WriteContinuation(stream, i == frames, s.block.Next(size))
	}
	return err
}

// body buffers so many bytes in frames of at most 16 KiB.
func (s *speaker) body(stream uint32, n int, end bool) error {
	for ; n > frameLimit-1; n -= frameLimit - 1 {
		if err := s.WriteData(stream, false, bytes.Repeat([]byte{'d'}, frameLimit-1)); err != nil {
			return err
		}
	}
	return s.WriteDataPadded(stream, end, bytes.Repeat([]byte{'d'}, n), make([]byte, n%7))
}

// send sends what is buffered up to the last of these places, cut at each: before it goes on the other end has read
// what was sent, so that what follows is a packet of its own.
func (s *speaker) send(cuts ...int) error {
	at := 0
	for _, cut := range cuts {
		text := s.Next(cut - at)
		at = cut
		if _, err := s.conn.Write(text); err != nil {
			return err
		}
		if _, err := io.ReadFull(s.peer, make([]byte, len(text))); err != nil {
			return err
		}
	}
	return nil
}

// say sends all that is buffered, cut at these places.
func (s *speaker) say(cuts ...int) error { return s.send(append(cuts, s.Len())...) }

// pieces is what a connection written by hand is tried with: header blocks that are cut over packets and frames, in
// Huffman's code, by tables that change their size. An old kernel's verifier looks at the callback of a loop once, and
// what it then takes for granted may be wrong in a later round.
func pieces(p pair, port int) (exchanges []exchange, err error) {
	client, server, err := p.connection(port)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.conn.Close(), server.conn.Close()) }()
	deadline := time.Now().Add(talkLimit)
	if err := errors.Join(client.conn.SetDeadline(deadline), server.conn.SetDeadline(deadline)); err != nil {
		return nil, err
	}
	client.WriteString(http2.ClientPreface)
	if err := errors.Join(client.WriteSettings(), client.say(), server.WriteSettings(), server.WriteSettingsAck(), server.say(),
		client.WriteSettingsAck(), client.say()); err != nil {
		return nil, fmt.Errorf("begin the connection: %w", err)
	}
	pending := func() error { return nil }
	for i := range 64 {
		e := piece(i)
		if err := e.sendRequest(client, i, pending); err != nil {
			return nil, fmt.Errorf("send the request of %s: %w", e.path, err)
		}
		pending = func() error { return e.sendResponse(server, i) }
		exchanges = append(exchanges, e)
	}
	return exchanges, pending()
}

// connection joins an end in the first namespace with one in the second.
func (p pair) connection(port int) (client, server *speaker, err error) {
	var listener net.Listener
	if err := p[1].run(func() (err error) {
		listener, err = net.Listen("tcp", p[1].at(port))
		return err
	}); err != nil {
		return nil, nil, fmt.Errorf("listen in %s: %w", p[1].name, err)
	}
	defer listener.Close()
	one, err := p.dial(context.Background(), "tcp", p[1].at(port))
	if err != nil {
		return nil, nil, fmt.Errorf("connect from %s: %w", p[0].name, err)
	}
	other, err := listener.Accept()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("accept in %s: %w", p[1].name, err), one.Close())
	}
	return newSpeaker(one, other), newSpeaker(other, one), nil
}

// piece is the exchange of a number.
func piece(i int) exchange {
	e := exchange{
		version: "2", method: []string{"GET", "PUT", "DELETE", "POST"}[i%4], stream: 2*i + 1,
		path:      fmt.Sprintf("/piece/%d/%s", i, strings.Repeat(letters, 15)[i:4*i]),
		authority: fmt.Sprintf("piece-%d.example:9090", i%5), agent: fmt.Sprintf("pieces/%d (by hand)", i%3),
		requestID: fmt.Sprintf("%08x", i*0x9e3779b9), status: []int{200, 201, 404, 500, 302}[i%5],
	}
	if i%2 == 1 {
		e.sent = 1 + i*401
	}
	if i%3 > 0 {
		e.received = 1 + i*523
	}
	if i%8 == 7 {
		e.method, e.status, e.code = "POST", 200, []string{"OK", "INTERNAL"}[i/8%2]
		e.path = fmt.Sprintf("/pieces.Pieces%d/Call", i)
	}
	return e
}

// sendRequest calls between when a part of the header block is sent: the other end then speaks.
func (e *exchange) sendRequest(s *speaker, i int, between func() error) error {
	switch i % 16 {
	case 5:
		s.table.SetMaxDynamicTableSize(uint32(100 + i))
	case 9: // two updates: everything is driven out first
		s.table.SetMaxDynamicTableSize(0)
		s.table.SetMaxDynamicTableSize(4096)
	case 13:
		s.table.SetMaxDynamicTableSize(1024)
	}
	fields := []string{
		":method", e.method, ":scheme", "http", ":path", e.path, ":authority", e.authority, "user-agent", e.agent,
		"x-request-id", e.requestID, "authorization", "Bearer secret", "cookie", strings.Repeat("Ab9~", i), "x-same", "the same",
	}
	if e.isCall() {
		fields = append(fields, "content-type", "application/grpc", "te", "trailers")
	}
	stream := uint32(e.stream)
	if err := s.headers(stream, e.sent == 0, 1+i%4, fields...); err != nil {
		return err
	}
	length := s.Len()
	if e.sent > 0 {
		if err := s.body(stream, e.sent, true); err != nil {
			return err
		}
	}
	// Each exchange has another place: from one within the frame's head to one within the block's last bytes.
	cuts := []int{1 + i*(length-1)/64}
	if i == 21 { // each byte is a packet
		cuts = cuts[:0]
		for at := 1; at < length; at++ {
			cuts = append(cuts, at)
		}
	}
	last := cuts[len(cuts)-1]
	return errors.Join(s.send(cuts...), between(), s.say(length-last))
}

func (e *exchange) sendResponse(s *speaker, i int) error {
	switch i % 16 {
	case 3:
		s.table.SetMaxDynamicTableSize(64)
	case 11:
		s.table.SetMaxDynamicTableSize(0)
		s.table.SetMaxDynamicTableSize(2048)
	}
	fields := []string{":status", fmt.Sprint(e.status), "server", "by hand", "x-filler", strings.Repeat("q^", 2*i), "x-number", fmt.Sprint(i)}
	trailers := []string{"x-sum", fmt.Sprint(i % 4)}
	if e.isCall() {
		fields = append(fields, "content-type", "application/grpc")
		trailers = append(trailers, "grpc-status", map[string]string{"OK": "0", "INTERNAL": "13"}[e.code], "grpc-message", "as asked")
	}
	stream := uint32(e.stream)
	trailed := e.isCall() || i%5 == 0
	err := s.headers(stream, e.received == 0 && !trailed, 1+i%3, fields...)
	length := s.Len()
	if e.received > 0 {
		err = errors.Join(err, s.body(stream, e.received, !trailed))
	}
	if trailed {
		err = errors.Join(err, s.headers(stream, true, 1+i%2, trailers...))
	}
	if err = errors.Join(err, s.say(1+i*(length-1)/64, length)); err != nil {
		return fmt.Errorf("send the response of %s: %w", e.path, err)
	}
	return nil
}
