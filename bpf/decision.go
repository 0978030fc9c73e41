package bpf

import "github.com/cilium/ebpf"

// DecisionMaps are the maps that a decision reads and writes, by their names in the programs: a program of another
// object that is loaded with them decides by the same rules, rates, budgets and routes. They are closed with k.
func (k *Kernel) DecisionMaps() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		ambitMapActions: k.objs.Actions, ambitMapBudgets: k.objs.Budgets, ambitMapCounters: k.objs.Counters,
		ambitMapRates: k.objs.Rates, ambitMapRouteCounts: k.objs.RouteCounts, ambitMapRoutes: k.objs.Routes,
		ambitMapRuleSets: k.objs.RuleSets, ambitMapStats: k.objs.Stats,
	}
}
