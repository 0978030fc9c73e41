package topology

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ambit/tests/harness"
	"ambit/tests/harness/labtest"
)

// Sockets are closed while their packets are worked on: a server resets each connection at once, behind the request,
// within its answer or behind it. Every exchange that began has ended, and no connection is remembered.
func TestAbortsLeaveNothing(t *testing.T) {
	lab := labtest.New(t)
	ns, err := lab.Namespace("aborts")
	must(t, err)
	d := trace(t, lab, []*harness.Namespace{ns})
	before := d.status(t)
	var listener net.Listener
	must(t, ns.Do(func() (err error) {
		listener, err = net.Listen("tcp4", "127.0.0.1:8080")
		return err
	}))
	defer listener.Close()
	go resetEach(listener)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 1000 {
				if err := ns.Do(func() error { return askOnce("127.0.0.1:8080") }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	if e := d.settled(t, before.Exchanges); e.InFlight != 0 || e.Seen == 0 {
		t.Errorf("%+v", e)
	}
	wait(t, "no connection is remembered", func() error {
		n, err := d.entries("flows")
		if err == nil && n > 0 {
			err = fmt.Errorf("%d of them are", n)
		}
		return err
	})
}

// resetEach accepts connections and aborts them, one way after the other.
func resetEach(listener net.Listener) {
	for n := 0; ; n++ {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			buffer := make([]byte, 1024)
			if n%4 > 0 {
				_, _ = conn.Read(buffer) // it ends in one way or the other
			}
			answer := "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
			if n%4 == 2 {
				answer = answer[:len(answer)-5]
			}
			if n%4 > 1 {
				_, _ = io.WriteString(conn, answer)
			}
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}()
	}
}

func askOnce(address string) error {
	conn, err := net.Dial("tcp4", address)
	if errors.Is(err, unix.ECONNRESET) {
		return nil // it was aborted as soon as it was there
	} else if err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err == nil {
		_, _ = io.Copy(io.Discard, conn) // until the reset
	}
	return conn.Close()
}

// entries counts the elements of one of the daemon's maps.
func (d *instance) entries(name string) (n int, failed error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", d.PID()))
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		info, err := os.ReadFile(file)
		if err != nil {
			continue // it was closed
		}
		_, rest, ok := strings.Cut(string(info), "map_id:\t")
		if !ok {
			continue
		}
		id, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 32)
		if err != nil {
			return 0, err
		}
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			return 0, err
		}
		about, err := m.Info()
		if err == nil && about.Name == name {
			n, err = count(m)
			return n, errors.Join(err, m.Close())
		}
		if err := errors.Join(err, m.Close()); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("no map is named %s", name)
}

func count(m *ebpf.Map) (n int, err error) {
	it := m.Iterate()
	var key, value []byte
	for it.Next(&key, &value) {
		n++
	}
	return n, it.Err()
}
