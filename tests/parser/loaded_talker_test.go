package parser

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// piece is what one side of a connection writes at once, so that it is a segment.
type piece struct {
	Side  int
	Bytes []byte
}

// talked is what became of a connection.
type talked struct {
	Port   uint16 // of the opener's socket
	Number int    // of exchanges that were hummed
	Error  string
}

// talk is a process that plays a conversation for each that it is told, on a connection of its own: argument 1 is the
// address that it connects to, argument 2 a file of the namespace in which it listens there, or nothing.
func talk(args []string) error {
	e, err := openEar(args)
	if err != nil {
		return err
	}
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	for {
		var pieces []piece
		if err := in.Decode(&pieces); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(e.play(pieces)); err != nil {
			return err
		}
	}
}

// hum is a process that goes through one exchange after the other on one connection until its standard input ends.
func hum(args []string) error {
	e, err := openEar(args)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	c, err := e.connect()
	if err != nil {
		return err
	}
	out := gob.NewEncoder(os.Stdout)
	answer := talked{Port: c.port}
	if err := out.Encode(answer); err != nil {
		return err
	}
	tune := newTune()
	for answer.Error == "" {
		for _, t := range tune.next() {
			if err := c.write(t.side, []byte(t.text)); err != nil {
				answer.Error = err.Error()
			}
		}
		answer.Number++
		select {
		case <-ended:
			if err := c.close(); err != nil {
				answer.Error = err.Error()
			}
			return out.Encode(answer)
		case <-time.After(time.Millisecond / 2):
		}
	}
	return out.Encode(answer)
}

// ear is a socket that listens, and where.
type ear struct {
	fd int
	at unix.SockaddrInet4
}

// openEar also keeps this thread on one processor: where the last segment's packets are still under way on another one,
// the next segment may find its connection taken, which is counted and costs what it has.
func openEar(args []string) (*ear, error) {
	runtime.LockOSThread()
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return nil, fmt.Errorf("ask for the processors: %w", err)
	}
	for cpu := range 1024 {
		if cpus.IsSet(cpu) {
			cpus.Zero()
			cpus.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return nil, fmt.Errorf("stay on one processor: %w", err)
	}
	address, err := netip.ParseAddr(args[0])
	if err != nil {
		return nil, err
	}
	e := &ear{at: unix.SockaddrInet4{Addr: address.As4()}}
	if args[1] != "" {
		back, err := enter(args[1])
		if err != nil {
			return nil, err
		}
		defer back()
	}
	if e.fd, err = openSocket(); err != nil {
		return nil, err
	}
	if err := errors.Join(unix.Bind(e.fd, &e.at), unix.Listen(e.fd, 8)); err != nil {
		return nil, fmt.Errorf("listen at %v: %w", address, err)
	}
	name, err := unix.Getsockname(e.fd)
	if err != nil {
		return nil, err
	}
	e.at = *name.(*unix.SockaddrInet4)
	return e, nil
}

// enter has this thread in another network namespace until it is called back.
func enter(path string) (back func(), err error) {
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	there, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter %s: %w", path, err)
	}
	return func() {
		defer here.Close()
		if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
	}, nil
}

func openSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	patience := unix.Timeval{Sec: 5}
	return fd, errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience),
	)
}

// line is both ends of a connection.
type line struct {
	fds      [2]int
	port     uint16
	segments [2]int // that each side has to have sent
	buffer   []byte
}

func (e *ear) connect() (*line, error) {
	l := new(line)
	var err error
	if l.fds[opener], err = openSocket(); err != nil {
		return nil, err
	}
	// Interrupted, it goes on.
	for err = unix.EINTR; errors.Is(err, unix.EINTR) || errors.Is(err, unix.EALREADY); {
		err = unix.Connect(l.fds[opener], &e.at)
	}
	if err != nil && !errors.Is(err, unix.EISCONN) {
		return nil, fmt.Errorf("connect: %w", err)
	}
	var peer unix.Sockaddr
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		l.fds[acceptor], peer, err = unix.Accept4(e.fd, unix.SOCK_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	l.port = uint16(peer.(*unix.SockaddrInet4).Port)
	return l, nil
}

func (e *ear) play(pieces []piece) (answer talked) {
	l, err := e.connect()
	if err != nil {
		return talked{Error: err.Error()}
	}
	answer.Port = l.port
	for i, p := range pieces {
		if err := l.write(p.Side, p.Bytes); err != nil {
			answer.Error = fmt.Sprintf("piece %d: %v", i, err)
			break
		}
	}
	if err := errors.Join(l.sent(), l.close()); err != nil {
		answer.Error += err.Error()
	}
	return answer
}

// write writes at one end and reads at the other, whose acknowledgement lets the next write go out at once.
func (l *line) write(side int, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	info, err := unix.GetsockoptTCPInfo(l.fds[side], unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return err
	}
	mss := int(info.Snd_mss)
	l.segments[side] += (len(b) + mss - 1) / mss
	for rest := b; len(rest) > 0; {
		n, err := unix.Write(l.fds[side], rest)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("write: %w", err)
		}
		rest = rest[max(n, 0):]
	}
	l.buffer = append(l.buffer[:0], b...)
	for rest := l.buffer; len(rest) > 0; {
		n, _, err := unix.Recvfrom(l.fds[1-side], rest, unix.MSG_WAITALL)
		if err != nil && !errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			return fmt.Errorf("read %d bytes of %d: %w", len(b)-len(rest), len(b), err)
		}
		rest = rest[max(n, 0):]
	}
	return nil
}

// sent tells whether each piece was a segment.
func (l *line) sent() error {
	for side, fd := range l.fds {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		if n := int(info.Data_segs_out - info.Total_retrans); n != l.segments[side] {
			return fmt.Errorf("side %d sent %d segments, want %d", side, n, l.segments[side])
		}
	}
	return nil
}

func (l *line) close() error {
	return errors.Join(unix.Close(l.fds[opener]), unix.Close(l.fds[acceptor]))
}
