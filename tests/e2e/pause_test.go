package e2e

import (
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// attached counts the programs at the interfaces of a namespace, by the kernel's word. (Debian's bpftool knows no tcx.)
func attached(t *testing.T, ns *harness.Namespace) (n int) {
	t.Helper()
	stage.Must(t, ns.Do(func() error {
		interfaces, err := net.Interfaces()
		for _, i := range interfaces {
			for _, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				result, failed := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: hook})
				if failed != nil {
					return failed
				}
				n += len(result.Programs)
			}
		}
		return err
	}))
	return n
}

// While ambit is paused nothing is attached and nothing is counted; afterwards everything is traced again.
func TestPause(t *testing.T) {
	n := newNetwork(t)
	st := n.stage(t)
	turn := script{ask(1, plain), tell(1, okay)}
	quiet := scene{say: turn}
	loud := scene{say: turn, want: []exchange{plainly}}
	for _, p := range n.places() {
		ok := t.Run(p.name, func(t *testing.T) {
			loud.check(t, st, p)
			open := connect(t, p, netip.AddrPort{})
			stage.Must(t, open.play(turn))
			loud.verify(t, st, p, open)

			begun := connect(t, p, netip.AddrPort{})
			stage.Must(t, begun.play(script{ask(1, plain)}))
			if _, counts := st.Settled(t); counts.InFlight != uint64(p.spans) {
				t.Errorf("a request waits: %v", counts)
			}
			st.Pause(t)
			if _, counts := st.Settled(t); counts.InFlight > 0 || counts.Dropped["paused"] != uint64(p.spans) {
				t.Fatalf("a request was under way when the pause began: %v", counts)
			}
			if n := len(st.Status(t).Attachments); n+attached(t, p.server)+attached(t, p.clientNS) > 0 {
				t.Errorf("while ambit is paused %d programs are attached by its own word, %d and %d by the kernel's", n,
					attached(t, p.server), attached(t, p.clientNS))
			}
			quiet.check(t, st, p)
			stage.Must(t, begun.play(script{tell(1, okay), ask(1, plain), tell(1, okay)}))
			begun.close()
			stage.Must(t, open.play(turn))
			if spans, counts := st.Settled(t); len(spans) > 0 || counts.Seen > 0 || counts.InFlight > 0 {
				t.Errorf("%d spans came; %v", len(spans), counts)
			}

			st.Resume(t)
			for _, ns := range []*harness.Namespace{p.server, p.clientNS} {
				if n := attached(t, ns); n != 3 { // lo egress, eth0 both ways
					t.Errorf("after the pause %d programs are attached", n)
				}
			}
			loud.check(t, st, p)
			stage.Must(t, open.play(turn))
			open.close()
			spans, _ := st.Spans(t, p.spans)
			compare(t, spans, []exchange{at(2, plainly)}, open, p.spans) // two turns were before
		})
		if !ok { // what is left in flight would fail the others, slowly
			return
		}
	}
}
