package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// headBytes is the size of every head of a talk's HTTP/1.
const headBytes = 200

// talk is what client and server say on a connection: fixed bytes, so that what they do themselves is little.
type talk struct {
	ask, answer script
	// Exchanges that begin and end with the openings, and with a turn of each.
	opened, each uint64
}

// script is what one of them says: its opening, and from then on its turns, one at a time, over and over.
type script struct {
	opening []byte
	turns   [][]byte
	writes  int    // equal parts that a turn is sent in, each a segment
	numbers []int  // where a turn has the number of a stream
	step    uint32 // by which those grow from turn to turn
}

var talks = func() map[string]*talk {
	all := make(map[string]*talk)
	answer := append(head("HTTP/1.1 200 OK", "Content-Type: application/json", "Content-Length: 13", "Date: Mon, 23 Nov 2026 10:00:00 GMT"), "hello, world\n"...)
	all["http"] = repeated(
		head("GET /api/v1/users/12345?fields=name HTTP/1.1", "Host: backend.shop.svc.cluster.local:8080", "User-Agent: bench/1.0", "Accept: */*"),
		answer)
	all["traceparent"] = repeated(
		head("GET /api/v1/users/12345 HTTP/1.1", "Host: backend:8080", "User-Agent: bench/1.0",
			"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
		answer)
	// Records of TLS application data, as far as anybody can see from outside.
	all["binary"] = repeated(record(headBytes), record(headBytes+13))
	all["binary"].each = 0
	addHTTP2(all)
	return all
}()

// repeated is the talk of HTTP/1: every exchange is the same.
func repeated(ask, answer []byte) *talk {
	return &talk{
		ask: script{turns: [][]byte{ask}, writes: 1}, answer: script{turns: [][]byte{answer}, writes: 1},
		each: 1,
	}
}

// head is a message's head of headBytes, filled up by a header that means nothing.
func head(lines ...string) []byte {
	const filler = "Accept-Language: "
	text := strings.Join(lines, "\r\n") + "\r\n" + filler
	missing := headBytes - len(text) - len("\r\n\r\n")
	if missing < 1 {
		panic(fmt.Sprintf("a head of %d bytes is too long by %d", headBytes, 1-missing))
	}
	return []byte(text + strings.Repeat("e", missing) + "\r\n\r\n")
}

func record(size int) []byte {
	b := []byte{23, 3, 3, byte(size >> 8), byte(size)}
	for len(b) < size {
		b = append(b, byte(len(b)*167))
	}
	return b
}

// voice is one side's script at work on a connection: the one side says it, the other one hears it.
type voice struct {
	script
	at     int
	buffer []byte
}

// newVoice has turns of its own where they change.
func newVoice(s *script) *voice {
	v := &voice{script: *s}
	if len(s.numbers) > 0 {
		v.turns = [][]byte{bytes.Clone(s.turns[0])}
	}
	size := len(s.opening)
	for _, turn := range s.turns {
		size = max(size, len(turn))
	}
	v.buffer = make([]byte, size)
	return v
}

func (v *voice) turn() []byte {
	turn := v.turns[v.at]
	if v.at++; v.at == len(v.turns) {
		v.at = 0
	}
	return turn
}

func (v *voice) open(conn net.Conn) error {
	if len(v.opening) == 0 {
		return nil
	}
	_, err := conn.Write(v.opening)
	return err
}

func (v *voice) hearOpening(conn net.Conn) error {
	_, err := io.ReadFull(conn, v.buffer[:len(v.opening)])
	return err
}

func (v *voice) say(conn net.Conn) error {
	turn := v.turn()
	for part := range slices.Chunk(turn, len(turn)/v.writes) {
		if _, err := conn.Write(part); err != nil {
			return err
		}
	}
	for _, at := range v.numbers {
		number := turn[at : at+4]
		binary.BigEndian.PutUint32(number, binary.BigEndian.Uint32(number)+v.step)
	}
	return nil
}

func (v *voice) hear(conn net.Conn) error {
	_, err := io.ReadFull(conn, v.buffer[:len(v.turn())])
	return err
}
