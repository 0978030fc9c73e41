// Package coexist holds ambit to leave alone who else is at the hooks that it uses: programs before it and behind it on an
// interface, and others' programs at the cgroup hierarchy, as Cilium attaches them.
package coexist

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"testing"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	harness.Roles{"serve": serve}.Dispatch()
	os.Exit(stage.Main(m))
}

const port = 8080

func serve([]string) error {
	return http.ListenAndServe(fmt.Sprintf(":%d", port), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "ok")
	}))
}

// neighbour is a program that counts its runs, and how often skb->cb was not what the one before it left there: it looks for
// its place and leaves the next one's.
type neighbour struct {
	*ebpf.Program
	counts *ebpf.Map
}

const skbCB = 48 // of struct __sk_buff

func newCounts(t *testing.T) *ebpf.Map {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 2})
	stage.Must(t, err)
	t.Cleanup(func() { counts.Close() })
	return counts
}

// count adds one to a counter, where r6 is anything that is to be kept.
func count(counts *ebpf.Map, index int, then string) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, int64(index), asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, then),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
	}
}

// newNeighbour makes the program of a place; the first one does not look.
func newNeighbour(t *testing.T, place int) neighbour {
	t.Helper()
	counts := newCounts(t)
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	ins = append(ins, count(counts, 0, "next")...)
	if place > 0 {
		for word := range int16(5) {
			ins = append(ins, asm.LoadMem(asm.R7, asm.R6, skbCB+4*word, asm.Word), asm.JNE.Imm(asm.R7, int32(1000*place+int(word)), "wrong"))
		}
	}
	if place > 0 {
		ins = append(ins, asm.Ja.Label("next"))
		wrong := count(counts, 1, "next")
		wrong[0] = wrong[0].WithSymbol("wrong")
		ins = append(ins, wrong...)
	}
	ins = append(ins, asm.Mov.Imm(asm.R7, 0).WithSymbol("next"))
	for word := range int16(5) {
		ins = append(ins, asm.Mov.Imm(asm.R7, int32(1000*(place+1)+int(word))), asm.StoreMem(asm.R6, skbCB+4*word, asm.R7, asm.Word))
	}
	ins = append(ins, asm.Mov.Imm(asm.R0, -1), asm.Return())
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "neighbour", Type: ebpf.SchedCLS, License: "GPL", Instructions: ins})
	stage.Must(t, err)
	t.Cleanup(func() { program.Close() })
	return neighbour{program, counts}
}

func (n neighbour) read(t *testing.T, index uint32) (v uint64) {
	t.Helper()
	stage.Must(t, n.counts.Lookup(index, &v))
	return v
}

var (
	here  = netip.MustParsePrefix("10.7.0.1/24")
	there = netip.MustParsePrefix("10.7.0.2/24")
)

// requests sends so many requests and demands a span of each side.
func requests(t *testing.T, st *stage.Stage, client *harness.Namespace, n int) {
	t.Helper()
	for range n {
		if _, err := client.Run(t.Context(), "curl", "-sf", fmt.Sprintf("http://%v:%d/x", there.Addr(), port)); err != nil {
			t.Fatal(err)
		}
	}
	if st == nil {
		return
	}
	if spans, counts := st.Spans(t, 2*n); len(spans) != 2*n || counts.DroppedTotal() > 0 {
		t.Errorf("%d spans of %d requests, %v", len(spans), n, counts)
	}
}

// Ten programs before ambit and ten behind it on one interface, in each direction: each packet reaches all of them, what they
// pass on in skb->cb arrives, and every request is traced.
func TestTenBeforeAndTenBehind(t *testing.T) {
	lab := stage.NewLab(t)
	client, server := stage.Cable(t, lab, [2]netip.Prefix{here, there})
	stage.StartRole(t, server, nil, port, "serve")
	directions := map[string]ebpf.AttachType{"ingress": ebpf.AttachTCXIngress, "egress": ebpf.AttachTCXEgress}
	all := make(map[string][]neighbour)
	attach := func(from, to int) {
		for name, kind := range directions {
			for place := from; place < to; place++ {
				n := newNeighbour(t, place)
				all[name] = append(all[name], n)
				stage.Must(t, server.Do(func() error {
					eth0, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					l, err := link.AttachTCX(link.TCXOptions{Interface: eth0.Attrs().Index, Program: n.Program, Attach: kind})
					if err == nil {
						t.Cleanup(func() { l.Close() })
					}
					return err
				}))
			}
		}
	}
	attach(0, 10)
	st := stage.Start(t, stage.Config{Lab: lab, Namespaces: []*harness.Namespace{client, server}})
	attach(10, 20)
	// Neighbour discovery and the like went by while programs were attached.
	before := make(map[string][]uint64)
	wrong := make(map[string][]uint64)
	for name, list := range all {
		for _, n := range list {
			before[name] = append(before[name], n.read(t, 0))
			wrong[name] = append(wrong[name], n.read(t, 1))
		}
	}
	requests(t, st, client, 20)
	st.Close(t)
	requests(t, nil, client, 5)
	for name, list := range all {
		runs := list[0].read(t, 0) - before[name][0]
		if runs < 25*4 {
			t.Errorf("%s: the first program ran %d times", name, runs)
		}
		for place, n := range list {
			// A packet of the kernel's own may pass while they are read, one after the other.
			if got := n.read(t, 0) - before[name][place]; got+2 < runs || got > runs+2 {
				t.Errorf("%s: program %d ran %d times, the first one %d times", name, place, got, runs)
			}
			if got := n.read(t, 1) - wrong[name][place]; got != 0 {
				t.Errorf("%s: program %d found %d times another skb->cb than the one before it left", name, place, got)
			}
		}
	}
}

// Of struct bpf_sock_ops and enum in the kernel's linux/bpf.h.
const (
	activeEstablished  = 4
	passiveEstablished = 5
	rttEvent           = 12
	flagRTT            = 1 << 3
	flagState          = 1 << 2
)

// newSockops counts established connections, and the callbacks of a flag of its own that it sets then.
func newSockops(t *testing.T) neighbour {
	t.Helper()
	counts := newCounts(t)
	ins := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word),
		asm.JEq.Imm(asm.R7, activeEstablished, "established"),
		asm.JEq.Imm(asm.R7, passiveEstablished, "established"),
		asm.JEq.Imm(asm.R7, rttEvent, "rtt"),
		asm.Ja.Label("out"),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("established"),
		asm.Mov.Imm(asm.R2, flagRTT|flagState),
		asm.FnSockOpsCbFlagsSet.Call(),
	}
	ins = append(ins, count(counts, 0, "out")...)
	ins = append(ins, asm.Ja.Label("out"))
	rtt := count(counts, 1, "out")
	rtt[0] = rtt[0].WithSymbol("rtt")
	ins = append(ins, rtt...)
	ins = append(ins, asm.Mov.Imm(asm.R0, 1).WithSymbol("out"), asm.Return())
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "others_sockops", Type: ebpf.SockOps, AttachType: ebpf.AttachCGroupSockOps, License: "GPL", Instructions: ins})
	stage.Must(t, err)
	t.Cleanup(func() { program.Close() })
	return neighbour{program, counts}
}

// newCreate counts the sockets that are made.
func newCreate(t *testing.T) neighbour {
	t.Helper()
	counts := newCounts(t)
	ins := append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, count(counts, 0, "out")...)
	ins = append(ins, asm.Mov.Imm(asm.R0, 1).WithSymbol("out"), asm.Return())
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "others_create", Type: ebpf.CGroupSock, AttachType: ebpf.AttachCGroupInetSockCreate, License: "GPL", Instructions: ins})
	stage.Must(t, err)
	t.Cleanup(func() { program.Close() })
	return neighbour{program, counts}
}

// Programs of others at the root of the cgroup hierarchy and at the workload's own group, by links and, as older tools do,
// without, before ambit and behind it: they see every connection and every socket, and the callbacks that they ask for come.
func TestOthersAtTheCgroups(t *testing.T) {
	lab := stage.NewLab(t)
	client, server := stage.Cable(t, lab, [2]netip.Prefix{here, there})
	stage.StartRole(t, server, nil, port, "serve")
	root, err := harness.CgroupRoot()
	stage.Must(t, err)
	own := client.Cgroup().Path()
	type place struct {
		where           string
		sockops, create neighbour
	}
	var all []place
	attach := func(where, group string, byLink bool) {
		p := place{where, newSockops(t), newCreate(t)}
		for kind, n := range map[ebpf.AttachType]neighbour{ebpf.AttachCGroupSockOps: p.sockops, ebpf.AttachCGroupInetSockCreate: p.create} {
			if byLink {
				l, err := link.AttachCgroup(link.CgroupOptions{Path: group, Attach: kind, Program: n.Program})
				stage.Must(t, err)
				t.Cleanup(func() { l.Close() })
				continue
			}
			dir, err := os.Open(group)
			stage.Must(t, err)
			stage.Must(t, link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: n.Program, Attach: kind, Flags: unix.BPF_F_ALLOW_MULTI}))
			t.Cleanup(func() {
				stage.Must(t, link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(dir.Fd()), Program: n.Program, Attach: kind}), dir.Close())
			})
		}
		all = append(all, p)
	}
	attach("at the root before, by links", root, true)
	attach("at the root before, without", root, false)
	attach("at the group before", own, true)
	st := stage.Start(t, stage.Config{Lab: lab, Namespaces: []*harness.Namespace{client, server}})
	attach("at the root behind, by links", root, true)
	attach("at the root behind, without", root, false)
	attach("at the group behind", own, true)
	const n = 10
	var before [][2]uint64
	for _, p := range all {
		before = append(before, [2]uint64{p.sockops.read(t, 0), p.create.read(t, 0)})
	}
	requests(t, st, client, n)
	for i, p := range all {
		if got := p.sockops.read(t, 0) - before[i][0]; got < n {
			t.Errorf("%s: %d connections were seen, of %d", p.where, got, n)
		}
		if got := p.create.read(t, 0) - before[i][1]; got < n {
			t.Errorf("%s: %d sockets were seen to be made, of %d", p.where, got, n)
		}
		if p.sockops.read(t, 1) == 0 {
			t.Errorf("%s: a callback that it asked for never came", p.where)
		}
	}
	st.Close(t)
	seen := all[0].sockops.read(t, 0)
	requests(t, nil, client, 3)
	if got := all[0].sockops.read(t, 0) - seen; got < 3 {
		t.Errorf("behind ambit's end the others saw %d connections, of 3", got)
	}
}
