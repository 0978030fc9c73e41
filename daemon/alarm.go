package daemon

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// alarm tells at once when the node comes under pressure, by triggers of PSI, so that rates need not wait for the next
// tick.
type alarm struct {
	C      chan struct{}
	stop   [2]int // a pipe: its writing end closes to end run
	polled []unix.PollFd
}

const (
	// triggerWindow is the time that a trigger looks at, and triggerShare how much of it something has to wait. Shorter windows
	// take CAP_SYS_RESOURCE.
	triggerWindow = 2 * time.Second
	triggerShare  = 0.4
)

// newAlarm sets the triggers that can be set: none on a kernel without PSI.
func newAlarm(root string) (*alarm, error) {
	a := &alarm{C: make(chan struct{}, 1)}
	if err := unix.Pipe2(a.stop[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a pipe for triggers of pressure: %w", err)
	}
	a.polled = []unix.PollFd{{Fd: int32(a.stop[0]), Events: unix.POLLIN}}
	text := fmt.Sprintf("some %d %d", int64(triggerShare*float64(triggerWindow.Microseconds())), triggerWindow.Microseconds())
	for _, name := range []string{"pressure/cpu", "pressure/memory"} {
		fd, err := unix.Open(filepath.Join(root, name), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if _, err := unix.Write(fd, append([]byte(text), 0)); err != nil {
			unix.Close(fd)
			continue
		}
		a.polled = append(a.polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLPRI})
	}
	return a, nil
}

// run waits for triggers until close.
func (a *alarm) run() {
	defer func() {
		for _, p := range a.polled {
			unix.Close(int(p.Fd))
		}
	}()
	for {
		if _, err := unix.Poll(a.polled, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if a.polled[0].Revents != 0 {
			return
		}
		for i := 1; i < len(a.polled); i++ {
			p := &a.polled[i]
			if p.Revents&unix.POLLERR != 0 { // it is no trigger any more
				unix.Close(int(p.Fd))
				a.polled = append(a.polled[:i], a.polled[i+1:]...)
				i--
				continue
			}
			if p.Revents&unix.POLLPRI != 0 {
				select {
				case a.C <- struct{}{}:
				default:
				}
			}
		}
	}
}

func (a *alarm) close() { unix.Close(a.stop[1]) }
