package harness_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

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
