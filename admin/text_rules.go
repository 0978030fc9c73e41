package admin

import (
	"fmt"
	"io"
	"strconv"
	"strings"
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
	if r.Control != nil {
		p.control(r.Control)
	}
	p.routeRates(r.Routes)
	p.anomalies(r.Anomalies)
	return p.writeTo(w)
}

// control is a section of how rates are moved.
func (p *page) control(c *Control) {
	p.heading("CONTROL", "rates are moved each second")
	load := fmt.Sprintf("%s of rates remain, %s since %s", percent(c.Load.Factor), c.Load.State, moment(c.Load.Since))
	if c.Load.Cause != "" {
		load += ", last for " + c.Load.Cause
	}
	p.table([][]string{
		{"offered", figure(c.Offered) + "/s", "exchange sides of routes whose rates are moved"},
		{"asked", figure(c.Asked) + "/s", fmt.Sprintf("spans of them; others (rules, callers, the tail) keep %s/s", signed(c.Others))},
		{"level", figure(c.Level) + "/s", "spans that a route gets at the most"},
		{"load", load},
		{"floors", fmt.Sprintf("%s granted, %s deferred", number(c.FloorsGranted), number(c.FloorsDeferred))},
		{"last step", seconds(c.StepSeconds)},
	})
}

// signed is a figure that may be below zero.
func signed(v float64) string {
	if v < 0 {
		return "-" + figure(-v)
	}
	return figure(v)
}

// routeRates is the table of routes, with their history and words where there are some.
func (p *page) routeRates(list []RouteRate) {
	if len(list) == 0 {
		return
	}
	p.heading("ROUTES", "of moved rates, the busiest first")
	rows := [][]string{{"SERVICE", "KIND", "ROUTE", "OFFERED/S", "RATE", "SPANS/S", "REASON", "SINCE"}}
	for i := range list {
		r := &list[i]
		since := ""
		if n := len(r.History); n > 0 {
			since = moment(r.History[n-1].At)
		}
		reason := r.Reason
		if r.Boost != nil {
			reason += ", boosted to " + ratio(r.Boost)
		}
		rows = append(rows, []string{
			r.Service, r.Kind, strings.TrimSpace(r.Method + " " + r.Host + dash(r.Route)), figure(r.Offered), ratio(r.Rate), figure(r.Spans), reason, since,
		})
	}
	p.table(rows, 3, 4, 5)
}

// ratio shows a rate; nil is not the controller's.
func ratio(v *float64) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'g', 3, 64)
}

func (p *page) anomalies(list []Anomaly) {
	if len(list) == 0 {
		return
	}
	p.heading("ANOMALIES", "the latest")
	rows := [][]string{{"AT", "KIND", "SERVICE", "ROUTE", "FOUND", "USUAL"}}
	for _, a := range list {
		show := seconds
		if a.Kind == "error_rate" {
			show = percent
		}
		rows = append(rows, []string{moment(a.At), a.Kind, a.Service, strings.TrimSpace(a.Method + " " + dash(a.Route)), show(a.Value), show(a.Usual)})
	}
	p.table(rows, 4, 5)
}

// WriteHistory prints the changes of each route.
func WriteHistory(w io.Writer, r Rates) error {
	var p page
	for i := range r.Routes {
		one := &r.Routes[i]
		p.heading(strings.TrimSpace(one.Service+" "+one.Kind+" "+one.Method+" "+one.Host+one.Route), one.Reason+" "+ratio(one.Rate))
		rows := [][]string{{"AT", "FROM", "TO", "REASON", "OFFERED/S"}}
		for _, c := range one.History {
			rows = append(rows, []string{moment(c.At), ratio(c.From), ratio(c.To), c.Reason, figure(c.Offered)})
		}
		p.table(rows, 1, 2, 4)
	}
	return p.writeTo(w)
}

// WriteExplanation prints the words on each route.
func WriteExplanation(w io.Writer, r Rates) error {
	var p page
	for i := range r.Routes {
		one := &r.Routes[i]
		p.heading(strings.TrimSpace(one.Service+" "+one.Kind+" "+one.Method+" "+one.Host+one.Route), "")
		for _, words := range one.Words {
			p.text.WriteString("  " + Printable(words) + "\n")
		}
	}
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
