package ztunnel

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Many streams at once on one connection, each in both directions and much larger than a window, come
// through whole.
func TestManyStreams(t *testing.T) {
	here, there := loopback(t)
	app := listen(t, "127.7.0.2", echo)
	session := joined(t, here, there)
	var wg sync.WaitGroup
	for i := range 40 {
		c := tunnelled(t, session, app)
		wg.Go(func() {
			sent, received := sha256.New(), sha256.New()
			var sending sync.WaitGroup
			sending.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), 0))
				for n := 0; n < 3<<20; {
					piece := make([]byte, 1+random.IntN(70000))
					for j := range piece {
						piece[j] = byte(random.Uint32())
					}
					sent.Write(piece)
					if _, err := c.Write(piece); err != nil {
						t.Errorf("stream %d: %v", i, err)
						return
					}
					n += len(piece)
				}
				if err := c.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			if _, err := io.Copy(received, c); err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
			sending.Wait()
			if !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
				t.Errorf("stream %d: what came back is not what was sent", i)
			}
		})
	}
	wg.Wait()
	eventually(t, "all streams are forgotten", func() bool {
		session.mu.Lock()
		defer session.mu.Unlock()
		return len(session.streams) == 0
	})
}

// An application that does not read holds up neither the other streams nor memory.
func TestSlowReader(t *testing.T) {
	here, there := loopback(t)
	release := make(chan struct{})
	lazy := listen(t, "127.7.0.2", func(c *net.TCPConn) { <-release; echo(c) })
	quick := listen(t, "127.7.0.2", echo)
	session := joined(t, here, there)
	slow := tunnelled(t, session, lazy)
	const size = 20 << 20
	go func() {
		_, _ = slow.Write(make([]byte, size))
		_ = slow.CloseWrite()
	}()
	time.Sleep(100 * time.Millisecond)
	c := tunnelled(t, session, quick)
	for range 100 {
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	n, err := io.Copy(io.Discard, slow)
	if err != nil || n != size {
		t.Errorf("the slow one got %d bytes: %v", n, err)
	}
}

// The end of one direction is passed on while the other goes on.
func TestHalfClose(t *testing.T) {
	here, there := loopback(t)
	app := listen(t, "127.7.0.2", func(c *net.TCPConn) {
		defer c.Close()
		all, err := io.ReadAll(c) // until the client has ended its side
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("got " + string(all)))
	})
	c := tunnelled(t, joined(t, here, there), app)
	if _, err := c.Write([]byte("all of it")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil || string(answer) != "got all of it" {
		t.Errorf("the answer is %q: %v", answer, err)
	}
}

// A reset at one end is a reset at the other.
func TestReset(t *testing.T) {
	here, there := loopback(t)
	served := make(chan error, 1)
	app := listen(t, "127.7.0.2", func(c *net.TCPConn) {
		buffer := make([]byte, 16)
		n, err := c.Read(buffer)
		if err == nil && string(buffer[:n]) == "reset me" {
			reset(c)
			return
		}
		_, err = c.Read(buffer)
		served <- err
	})
	session := joined(t, here, there)
	c := tunnelled(t, session, app)
	if _, err := c.Write([]byte("reset me")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client of a server that resets sees %v", err)
	}
	c = tunnelled(t, session, app)
	if _, err := c.Write([]byte("I will")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	reset(c)
	if err := <-served; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the server of a client that resets sees %v", err)
	}
}

// A destination that refuses is an answer to CONNECT, and the connection serves on.
func TestRefused(t *testing.T) {
	here, there := loopback(t)
	session := joined(t, here, there)
	for _, c := range []struct{ authority, status string }{
		{"127.7.0.2:1", "503"},  // nobody listens
		{"10.1.2.3:80", "400"},  // not the pod's address
		{"nonsense", "400"},     // no address
		{"127.7.0.1:80", "503"}, // loopback, which every pod has
	} {
		s, err := session.open(c.authority)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.accepted(); err == nil || !strings.Contains(err.Error(), c.status) {
			t.Errorf("CONNECT to %s: %v, want status %s", c.authority, err, c.status)
		}
		s.abort(err, true)
	}
	c := tunnelled(t, session, listen(t, "127.7.0.2", echo))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}
