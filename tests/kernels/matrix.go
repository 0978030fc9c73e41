package kernels

import "ambit/tests/kernels/report"

// Member is a series of kernels that ambit is tried on.
type Member struct {
	Series
	Expect string // report.ByTCX, report.ByClsact or report.Refused
	// Always tells those that every run of the tests boots; the others are booted on request.
	Always bool
	// Ceilings is nil where every program may take what this one's verifier allows.
	Ceilings Ceilings
}

var (
	withoutTCX = []string{"sch_ingress", "cls_bpf", "act_bpf", "veth"}
	withTCX    = []string{"veth"}
)

// Matrix is in the order of the table.
var Matrix = []Member{
	{Series: Series{"5.10", "amd64", "bullseye-security", withoutTCX}, Expect: report.Refused, Always: true},
	{
		Series: Series{"6.1", "amd64", "bookworm-security", withoutTCX}, Expect: report.ByClsact, Always: true,
		Ceilings: Ceilings{
			"tap": 625_000, "tap_http2": 270_000, "tap_unknown": 380_000,
			"abandon": 54_000, "established": 55_000, "sweep": 55_000,
			"bound4": 100, "bound6": 100, "inventory": 135, "sock_create": 100, "who_am_i": 10,
		},
	},
	{Series: Series{"6.12", "amd64", "trixie-security", withTCX}, Expect: report.ByTCX},
	{Series: Series{"6.16", "amd64", "trixie-backports", withTCX}, Expect: report.ByTCX},
	{Series: Series{"6.18", "amd64", "trixie-backports", withTCX}, Expect: report.ByTCX},
	{Series: Series{"7.2", "amd64", "trixie-backports", withTCX}, Expect: report.ByTCX},
	{Series: Series{"7.3", "amd64", "trixie-backports", withTCX}, Expect: report.ByTCX, Always: true},
	{Series: Series{"6.1", "arm64", "bookworm-security", withoutTCX}, Expect: report.ByClsact},
	{Series: Series{"6.12", "arm64", "trixie-security", withTCX}, Expect: report.ByTCX},
}
