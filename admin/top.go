package admin

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Top is the routes at one moment. docs/metrics.md defines the numbers.
type Top struct {
	SinceSeconds float64  `json:"since_seconds"` // how long rates and quantiles are over
	Unnamed      int      `json:"unnamed"`       // routes whose name is not known yet
	Rows         []TopRow `json:"rows"`
}

// TopRow is one route, or what has none of its own.
type TopRow struct {
	Service    string  `json:"service"`
	Kind       string  `json:"kind"`
	Method     string  `json:"method"`
	Route      string  `json:"route"` // the template; "" where Other
	Host       string  `json:"host"`  // that a client called, "" is unknown or a server's
	Other      bool    `json:"other"`
	Count      uint64  `json:"count"`
	Rate       float64 `json:"rate"` // exchange sides a second
	ErrorShare float64 `json:"error_share"`
	P50        float64 `json:"p50_seconds"`
	P99        float64 `json:"p99_seconds"`
	KeptShare  float64 `json:"kept_share"`
	Rule       string  `json:"rule,omitempty"`
	Reason     string  `json:"reason,omitempty"`
}

// TopColumn is a column of the table of routes.
type TopColumn struct {
	Title string
	// Number says that it is flush right, and sorted from the largest down at first.
	Number bool
	// Show is the cell; it may hold what a request carried.
	Show func(*TopRow) string
	// Compare orders by it, ascending.
	Compare func(a, b *TopRow) int
}

// TopColumns are the columns in their order.
var TopColumns = []TopColumn{
	text("SERVICE", func(r *TopRow) string { return r.Service }),
	text("KIND", func(r *TopRow) string { return r.Kind }),
	text("METHOD", func(r *TopRow) string { return r.Method }),
	text("ROUTE", topRoute),
	amount("RATE/S", func(r *TopRow) float64 { return r.Rate }, func(r *TopRow) string { return figure(r.Rate) }),
	amount("ERRORS", func(r *TopRow) float64 { return r.ErrorShare }, func(r *TopRow) string { return percent(r.ErrorShare) }),
	amount("P50", func(r *TopRow) float64 { return r.P50 }, func(r *TopRow) string { return seconds(r.P50) }),
	amount("P99", func(r *TopRow) float64 { return r.P99 }, func(r *TopRow) string { return seconds(r.P99) }),
	amount("KEPT", func(r *TopRow) float64 { return r.KeptShare }, func(r *TopRow) string { return percent(r.KeptShare) }),
	text("DECIDED BY", func(r *TopRow) string { return strings.TrimSpace(r.Rule + " " + r.Reason) }),
}

func text(title string, of func(*TopRow) string) TopColumn {
	return TopColumn{Title: title, Show: of, Compare: func(a, b *TopRow) int { return cmp.Compare(of(a), of(b)) }}
}

func amount(title string, of func(*TopRow) float64, show func(*TopRow) string) TopColumn {
	return TopColumn{Title: title, Number: true, Show: show, Compare: func(a, b *TopRow) int { return cmp.Compare(of(a), of(b)) }}
}

// topRoute is the route with what a client called before it.
func topRoute(r *TopRow) string {
	if r.Other {
		return "(other)"
	}
	return r.Host + cmp.Or(r.Route, "?")
}

// RateColumn is the place of the column that the table is sorted by at first.
var RateColumn = slices.IndexFunc(TopColumns, func(c TopColumn) bool { return c.Title == "RATE/S" })

// SortTop orders rows by a column; rows that are equal there are in the order of what tells them apart.
func SortTop(rows []TopRow, column int, descending bool) {
	slices.SortStableFunc(rows, func(a, b TopRow) int {
		n := TopColumns[column].Compare(&a, &b)
		if descending {
			n = -n
		}
		return cmp.Or(n, cmp.Compare(a.Service, b.Service), cmp.Compare(a.Kind, b.Kind), cmp.Compare(topRoute(&a), topRoute(&b)), cmp.Compare(a.Method, b.Method))
	})
}

// WriteTop prints the table once, busiest routes first.
func WriteTop(w io.Writer, t Top) error {
	if len(t.Rows) == 0 {
		_, err := fmt.Fprintln(w, "nothing was counted yet")
		return err
	}
	rows := slices.Clone(t.Rows)
	SortTop(rows, RateColumn, true)
	table := [][]string{nil}
	var numbers []int
	for i, c := range TopColumns {
		table[0] = append(table[0], c.Title)
		if c.Number {
			numbers = append(numbers, i)
		}
	}
	for i := range rows {
		var cells []string
		for _, c := range TopColumns {
			cells = append(cells, c.Show(&rows[i]))
		}
		table = append(table, cells)
	}
	var p page
	p.heading("ROUTES", fmt.Sprintf("over the last %s", seconds(t.SinceSeconds)))
	p.table(table, numbers...)
	return p.writeTo(w)
}

// figure has three digits where there are that many.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 9.995:
		return fmt.Sprintf("%.2f", v)
	case v < 99.95:
		return fmt.Sprintf("%.1f", v)
	}
	return number(uint64(v + 0.5))
}

// percent shows that a share is not quite nothing or all.
func percent(share float64) string {
	switch p := share * 100; {
	case p == 0, p == 100:
		return fmt.Sprintf("%.0f%%", p)
	case p < 0.1:
		return "<0.1%"
	case p > 99.9:
		return ">99.9%"
	default:
		return fmt.Sprintf("%.1f%%", p)
	}
}

func seconds(s float64) string {
	if s == 0 {
		return "<1 us"
	}
	return span(int64(s * float64(time.Second)))
}

func (a api) top(w http.ResponseWriter, r *http.Request) {
	top, err := a.backend.Top(r.Context())
	if top.Rows == nil {
		top.Rows = []TopRow{}
	}
	answer(w, top, err)
}
