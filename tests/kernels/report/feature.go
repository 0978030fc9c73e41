package report

// Feature is something that ambit uses where a kernel has it.
type Feature struct {
	Name    string
	Since   string // the first Linux that has it
	Without string // what ambit does on a kernel that lacks it
}

const refuses = "ambit refuses to start"

// The answers of a probe.
const (
	Yes = "yes"
	No  = "no"
)

// KernelFeatures are those that a guest probes.
var KernelFeatures = []Feature{
	{BTF, "5.2", refuses},
	{Files, "5.8", refuses},
	{RingBuffer, "5.8", refuses},
	{SocketOfFile, "5.11", refuses},
	{ForEach, "5.13", refuses},
	{Syscall, "5.14", refuses},
	{SocketNetns, "5.15", refuses},
	{Loop, "5.17", refuses},
	{TCX, "6.6", "clsact filters; those of a daemon that was killed stay, without effect, until the next one starts"},
	{PacketNetns, "6.13", "the namespace noted in the socket's storage when it was made"},
}

// Their names.
const (
	BTF          = "BTF"
	Files        = "iterator over open files"
	RingBuffer   = "ring buffer"
	SocketOfFile = "`bpf_sock_from_file`"
	ForEach      = "`bpf_for_each_map_elem`"
	Syscall      = "programs of type `syscall`"
	SocketNetns  = "namespace cookie of a socket (sockops)"
	Loop         = "`bpf_loop`"
	TCX          = "tcx links"
	PacketNetns  = "namespace cookie of a packet (TC)"
)
