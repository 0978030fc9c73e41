package admin

import (
	"fmt"
	"io"
	"strconv"
)

// WriteRates prints r for people.
func WriteRates(w io.Writer, r Rates) error {
	var p page
	rows := [][]string{
		{"default", fmt.Sprintf("%v", r.Default), fmt.Sprintf("keeps %.4g%% of the traces that nobody decided on", 100*r.Default)},
		{"threshold", r.Threshold, "of 56 bits: a trace is kept when its randomness is at least this"},
		{"override", "none", "the rates of rules hold"},
		{"set by", r.Source, ""},
		{"changed", moment(r.Changed), fmt.Sprintf("generation %d", r.Generation)},
	}
	if r.Override != nil {
		rows[2] = []string{"override", fmt.Sprintf("%v", *r.Override),
			fmt.Sprintf("keeps %.4g%%, whatever default and rules say; \"ambit rates clear\" ends it", 100**r.Override)}
	}
	p.table(rows)
	p.heading("BUDGETS", "spans")
	rows = [][]string{{"BUDGET", "PER SECOND", "KEPT", "REFUSED", "OF THEM STOPPED"}}
	for _, b := range r.Budgets {
		limit := "no limit"
		if b.Limit > 0 {
			limit = strconv.FormatFloat(b.Limit, 'g', 6, 64)
		}
		rows = append(rows, []string{b.Name, limit, number(b.Kept), number(b.Refused), number(b.Stopped)})
	}
	p.table(rows, 1, 2, 3, 4)
	return p.writeTo(w)
}

// WriteRules prints r for people.
func WriteRules(w io.Writer, r RuleSet) error {
	var p page
	p.rules(r.RulesStatus)
	rows := [][]string{{"PLACE", "NAME", "FROM", "RULE"}}
	for _, one := range r.Rules {
		rows = append(rows, []string{strconv.Itoa(one.Place), one.Name, one.Origin, dash(one.Text)})
	}
	p.table(rows, 0)
	return p.writeTo(w)
}

// rules is a section of how they fare; there is none before the first are in force.
func (p *page) rules(s RulesStatus) {
	if s.Generation == 0 {
		return
	}
	p.heading("RULES", fmt.Sprintf("%d, the first that accepts a request holds", s.Count))
	rows := [][]string{{"generation", strconv.FormatUint(uint64(s.Generation), 10)}, {"loaded", moment(s.Loaded)}}
	if s.LastError != "" {
		rows = append(rows, []string{"not taken", moment(s.LastErrorTime) + "  " + s.LastError})
	}
	p.table(rows)
}

// WriteForcing prints f for people.
func WriteForcing(w io.Writer, f Forcing) error {
	_, err := fmt.Fprintf(w, "%s: %s forced spans were kept\n", Printable(f.Rule), number(f.Kept))
	return err
}
