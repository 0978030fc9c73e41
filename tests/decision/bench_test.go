package decision

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ambit/bpf"
	"ambit/l7"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What path, rules, route, decision and counters cost, beside parsing: by the kernel's own run time statistics.
func BenchmarkSide(b *testing.B) {
	for _, path := range []string{"/api/v1/users/42/orders", "/catalogue/products/8d1f9c1e-0a3a-4b8e-9a53-6f6f5a1c2b3d/reviews"} {
		for _, sides := range []int{1, 2} {
			b.Run(fmt.Sprintf("default rules/%d bytes/sides %d", len(path), sides), func(b *testing.B) {
				measure(b, l7.DefaultRules(), func(int) string { return path }, sides)
			})
		}
	}
	b.Run("default rules/every path new/sides 1", func(b *testing.B) {
		measure(b, l7.DefaultRules(), func(i int) string { return fmt.Sprintf("/api/v1/users-%x/orders", rand.Uint64()) }, 1)
	})
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("%d rules/sides 1", n), func(b *testing.B) {
			measure(b, someRules(n), func(i int) string { return fmt.Sprintf("/app%d/v1/users/42/orders", i%n) }, 1)
		})
	}
}

// someRules are rules as teams write them: of a service, a prefix and a method, with a template now and then.
func someRules(n int) []l7.Rule {
	rules := make([]l7.Rule, n-1)
	for i := range rules {
		r := &rules[i]
		r.Name = fmt.Sprint("rule", i)
		r.Match.Path.Prefixes = []string{fmt.Sprintf("/app%d", i)}
		switch i % 4 {
		case 0:
			r.Match.Methods = []string{"GET"}
		case 1:
			r.Match.Path = l7.PathCondition{Templates: []string{fmt.Sprintf("/app%d/v1/users/{id}/orders", i)}}
		case 2:
			r.Match.Headers.UserAgent.Values = []string{fmt.Sprint("agent", i)}
		case 3:
			r.Match.Hosts = []string{"*.example.com"}
		}
		r.Action.Rate = new(float64(i%10) / 10)
	}
	return rules
}

// measure decides as many exchanges as there is room for, again and again.
func measure(b *testing.B, rules []l7.Rule, path func(int) string, sides int) {
	k := open(b)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	k.check(err)
	defer func() { k.check(stats.Close()) }()
	all, caps := k.use(rules...)
	k.check(k.rates.Put(uint32(0), decisionBaseRates{Base: bpf.Threshold(0.01), Set: none, Safety: [3]uint32{whole, whole, whole}}))
	clear(k.budgets)
	s := plain(all, caps)
	s.app[bpf.SideOpener] = sides == 2
	s.request.UserAgent, s.request.Host = "Mozilla/5.0 (X11; Linux x86_64)", "shop.example.com"
	s.took = time.Millisecond
	for i := range k.exchanges {
		s.request.Target, s.r = path(i), rand.Uint64()>>8
		k.exchange = &k.exchanges[i]
		k.putRequest(s, nil)
		k.putResponse(s)
	}
	run := func() float64 {
		before, err := k.programs.Everyone.Stats()
		k.check(err)
		k.run(k.programs.Everyone)
		after, err := k.programs.Everyone.Stats()
		k.check(err)
		return float64(after.Runtime-before.Runtime) / float64(len(k.exchanges))
	}
	run() // routes and counters are there from now on
	var ns []float64
	for b.Loop() {
		ns = append(ns, run())
	}
	slices.Sort(ns)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ns[len(ns)/2]/float64(sides), "ns/side")
	b.ReportMetric(ns[0]/float64(sides), "ns/side-least")
}
