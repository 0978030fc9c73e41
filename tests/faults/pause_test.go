package faults

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"ambit/admin"
)

// connect opens connections to the scene's server, inside its namespace.
func (s *scene) connect(t testing.TB, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, n)
	must(t, s.pod.Do(func() (err error) {
		for i := range conns {
			if conns[i], err = net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
				return err
			}
			t.Cleanup(func() { conns[i].Close() })
		}
		return nil
	}))
	return conns
}

func send(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	must(t, err)
}

// exchange makes one request.
func exchange(t testing.TB, conn net.Conn) {
	t.Helper()
	send(t, conn, ask)
	must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err := io.ReadFull(conn, make([]byte, len(reply)))
	must(t, err)
}

func (d *instance) turn(t testing.TB, do func(context.Context) (admin.State, error), want admin.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	state, err := do(ctx)
	must(t, err)
	if state != want || d.status(t).State != want {
		t.Fatalf("it is %s, and says %s, want %s", d.status(t).State, state, want)
	}
}

// Paused, nothing is attached, whatever is asked again. What ends in a pause takes no room behind it and is
// accounted for; what goes on is traced again.
func TestPause(t *testing.T) {
	const most = 64 // connections that ambit follows
	s := newScene(t)
	c := newCollector(t)
	c.come(t)
	d := s.trace(t, c, "--max-connections", fmt.Sprint(most))
	attached := len(d.status(t).Attachments)

	stays := s.connect(t, 1)[0]
	exchange(t, stays)
	under := s.connect(t, most-4)
	for _, conn := range under {
		send(t, conn, ask[:30]) // of which the rest never comes
	}
	wait(t, 5*time.Second, "requests are under way", func() error {
		if n := d.status(t).Exchanges.InFlight; n != 2*uint64(len(under)) {
			return fmt.Errorf("%d exchange sides are in flight, want %d", n, 2*len(under))
		}
		return nil
	})
	for range 2 {
		d.turn(t, d.api.Pause, admin.Paused)
		if a := d.status(t).Attachments; len(a) > 0 {
			t.Errorf("paused, and attached: %+v", a)
		}
		s.unattached(t)
		// Sockets are the whole machine's, where another ambit may run beside the tests.
		for _, held := range d.objects(t) {
			if strings.HasPrefix(held, "link ") {
				t.Errorf("paused, and %s is held", held)
			}
		}
	}
	for _, conn := range under {
		must(t, conn.Close())
	}
	exchange(t, stays) // seen by nobody
	paused := d.status(t).Exchanges.Seen

	d.turn(t, d.api.Resume, admin.Tracing)
	if n := len(d.status(t).Attachments); n != attached {
		t.Errorf("%d programs are attached, there were %d", n, attached)
	}
	exchange(t, stays)
	for _, conn := range s.connect(t, most-4) {
		exchange(t, conn)
	}
	var e admin.Exchanges
	wait(t, 10*time.Second, "all that was under way before the pause is accounted for", func() error {
		e = d.status(t).Exchanges
		if e.InFlight != 0 || e.Queued != 0 || e.Seen != paused+2*(1+most-4) {
			return fmt.Errorf("%d sides were seen before: %+v", paused, e)
		}
		return nil
	})
	if sum := e.Exported + e.Unsampled + e.DroppedTotal(); sum != e.Seen {
		t.Errorf("seen %d, accounted for %d: %+v", e.Seen, sum, e)
	}
	if n := d.status(t).Events["connections_table_full"]; n > 0 {
		t.Errorf("%d connections found no room behind the pause", n)
	}
}
