package harness_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/harness"
	"ambit/tests/harness/labtest"
)

func TestMain(m *testing.M) {
	harness.Roles{
		harness.ZtunnelRole: harness.Ztunnel,
		"serve":             serve,
		"hold":              hold,
	}.Dispatch()
	os.Exit(m.Run())
}

// body makes the response as long as the one in the recording: 143 bytes.
const body = "26 bytes, as in recordings"

// serve is the role of an HTTP server on the given port, which tells in a header who called.
func serve(args []string) error {
	return http.ListenAndServe(":"+args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/peer") {
			fmt.Fprintln(w, r.RemoteAddr)
			return
		}
		fmt.Fprint(w, body)
	}))
}

func pair(t testing.TB, cfg harness.PairConfig) *harness.Pair {
	t.Helper()
	lab := labtest.New(t)
	pair, err := harness.AmbientPair(context.Background(), lab, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func start(t testing.TB, ns *harness.Namespace, port string) *harness.Process {
	t.Helper()
	program, err := harness.RoleProgram("serve", port)
	if err != nil {
		t.Fatal(err)
	}
	process, err := ns.Start(program)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var number uint16
	fmt.Sscan(port, &number)
	if err := ns.WaitListen(ctx, number); err != nil {
		t.Fatal(errors.Join(err, errors.New(process.Log())))
	}
	return process
}

func curl(t testing.TB, ns *harness.Namespace, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := ns.Run(ctx, "curl", "-sS", "--max-time", "5", url)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPairReaches(t *testing.T) {
	for _, twoNodes := range []bool{false, true} {
		t.Run(fmt.Sprintf("two nodes %v", twoNodes), func(t *testing.T) {
			p := pair(t, harness.PairConfig{TwoNodes: twoNodes})
			start(t, p.B.Namespace, "8080")
			start(t, p.W.Namespace, "9090")
			for _, c := range []struct {
				name   string
				from   *harness.Namespace
				url    string
				source string
			}{
				{"a to the service", p.A.Namespace, "http://10.96.0.10/peer", "10.9.0.2:"},
				{"a to the other service", p.A.Namespace, "http://10.96.0.11/peer", "10.9.0.2:"},
				{"a to the service, IPv6", p.A.Namespace, "http://[fd96::10]/peer", "[fd09::2]:"},
				{"a to b's address", p.A.Namespace, "http://10.9.0.3:8080/peer", "10.9.0.2:"},
				{"a to b's address, IPv6", p.A.Namespace, "http://[fd09::3]:8080/peer", "[fd09::2]:"},
				{"w to b's address", p.W.Namespace, "http://10.9.0.3:8080/peer", "10.9.0.4:"},
				{"w to b's address, IPv6", p.W.Namespace, "http://[fd09::3]:8080/peer", "[fd09::4]:"},
				{"the host to b", p.Nodes[0].Namespace, "http://10.9.0.3:8080/peer", "10.9.0.1:"},
				{"b to itself", p.B.Namespace, "http://10.9.0.3:8080/peer", "10.9.0.3:"},
				{"b to its own service", p.B.Namespace, "http://10.96.0.10/peer", "10.9.0.3:"},
				{"b to its own service, IPv6", p.B.Namespace, "http://[fd96::10]/peer", "[fd09::3]:"},
				{"b over loopback", p.B.Namespace, "http://127.0.0.1:8080/peer", "127.0.0.1:"},
				{"a to w", p.A.Namespace, "http://10.9.0.4:9090/peer", "10.9.0.2:"},
				{"a to w, IPv6", p.A.Namespace, "http://[fd09::4]:9090/peer", "[fd09::2]:"},
			} {
				t.Run(c.name, func(t *testing.T) {
					if got := curl(t, c.from, c.url); !strings.HasPrefix(got, c.source) {
						t.Errorf("the server saw %q, want an address that begins with %s", got, c.source)
					}
				})
			}
		})
	}
}

// A pod may use one port of its own towards two services at once; conntrack then changes one of them on the
// way, and each must still reach its service.
func TestOneSourcePortTwoServices(t *testing.T) {
	p := pair(t, harness.PairConfig{})
	start(t, p.B.Namespace, "8080")
	local := &net.TCPAddr{IP: harness.AddressA4.AsSlice(), Port: 33333}
	var conns []net.Conn
	for _, service := range []netip.AddrPort{harness.VIP4, harness.OtherVIP4} {
		err := p.A.Do(func() error {
			dialer := net.Dialer{LocalAddr: local, Timeout: 5 * time.Second, Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) {
					_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // connect tells if not
				})
			}}
			conn, err := dialer.Dial("tcp", service.String())
			if err == nil {
				conns = append(conns, conn)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for _, conn := range conns {
			fmt.Fprintf(conn, "GET /peer HTTP/1.1\r\nHost: x\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			peer, err := io.ReadAll(response.Body)
			if err != nil || !strings.HasPrefix(string(peer), "10.9.0.2:") {
				t.Errorf("the server saw %q: %v", peer, err)
			}
		}
	}
	for _, conn := range conns {
		conn.Close()
	}
}

// A service address outside of the mesh: client and backend in subnets that a router joins.
func TestDNAT(t *testing.T) {
	lab := labtest.New(t)
	ctx := context.Background()
	ends := make(map[string]*harness.Namespace)
	router, err := lab.Namespace("router")
	if err != nil {
		t.Fatal(err)
	}
	if err := router.Sysctl(map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
	}); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"client", "server"} {
		if ends[name], err = lab.Namespace(name); err != nil {
			t.Fatal(err)
		}
		if err := harness.Veth(ends[name], "eth0", router, name); err != nil {
			t.Fatal(err)
		}
		for _, subnet := range []string{fmt.Sprintf("10.%d.0.%%d/24", i+1), fmt.Sprintf("fd0%d::%%d/64", i+1)} {
			inside := netip.MustParsePrefix(fmt.Sprintf(subnet, 2))
			gateway := netip.MustParsePrefix(fmt.Sprintf(subnet, 1))
			err := errors.Join(
				ends[name].Address("eth0", inside),
				router.Address(name, gateway),
				ends[name].Route(netip.PrefixFrom(inside.Addr(), 0), gateway.Addr(), "eth0"),
			)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	start(t, ends["server"], "8080")
	for service, backend := range map[string]string{"10.96.0.20:80": "10.2.0.2:8080", "[fd96::20]:80": "[fd02::2]:8080"} {
		if err := router.DNAT(ctx, netip.MustParseAddrPort(service), netip.MustParseAddrPort(backend)); err != nil {
			t.Fatal(err)
		}
		if got := curl(t, ends["client"], "http://"+service+"/"); got != body {
			t.Errorf("%s answered %q", service, got)
		}
	}
}
