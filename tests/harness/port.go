package harness

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// WaitListen waits until something listens on that TCP port in the namespace, over IPv4 or IPv6. It reads
// the kernel's list and makes no connection, which would be seen by whatever traces the namespace.
func (n *Namespace) WaitListen(ctx context.Context, port uint16) error {
	for {
		found, err := n.listens(port)
		if err != nil || found {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for a listener on port %d in %s: %w", port, n.name, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// waitListen is WaitListen for a port of p: it gives up when p ends.
func (p *Process) waitListen(ctx context.Context, n *Namespace, port uint16) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.done:
			cancel(fmt.Errorf("the process ended: %v: %s", p.err, p.Log()))
		case <-ctx.Done():
		}
	}()
	return n.WaitListen(ctx, port)
}

func (n *Namespace) listens(port uint16) (bool, error) {
	var found bool
	err := n.Do(func() error {
		for _, path := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
			file, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("list sockets of %s: %w", n.name, err)
			}
			lines := bufio.NewScanner(file)
			for lines.Scan() {
				fields := strings.Fields(lines.Text())
				if len(fields) < 4 || fields[3] != "0A" { // TCP_LISTEN
					continue
				}
				_, hex, _ := strings.Cut(fields[1], ":")
				if number, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(number) == port {
					found = true
				}
			}
			file.Close()
		}
		return nil
	})
	return found, err
}

// FreePort is an address of loopback with a TCP port that nobody listens on now, in the caller's own namespace.
func FreePort() (netip.AddrPort, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("look for a free port: %w", err)
	}
	defer listener.Close()
	return netip.ParseAddrPort(listener.Addr().String())
}
