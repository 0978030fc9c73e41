package admin

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// page collects text for people: headings, and tables whose columns are aligned. What it is given is made
// printable, so that nothing from the network reaches the terminal as it is.
type page struct{ text strings.Builder }

// heading begins a section.
func (p *page) heading(title, note string) {
	if p.text.Len() > 0 {
		p.text.WriteByte('\n')
	}
	p.text.WriteString(title)
	if note != "" {
		p.text.WriteString("  " + Printable(note))
	}
	p.text.WriteByte('\n')
}

// table aligns rows; numbers says which columns are flush right, counted from 0.
func (p *page) table(rows [][]string, numbers ...int) {
	widths := []int{}
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(Printable(cell))))
		}
	}
	w := tabwriter.NewWriter(&p.text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		line := "  "
		for i, cell := range row {
			cell = Printable(cell)
			if slices.Contains(numbers, i) {
				cell = strings.Repeat(" ", widths[i]-len([]rune(cell))) + cell
			}
			if i > 0 {
				line += "\t"
			}
			line += cell
		}
		fmt.Fprintln(w, line)
	}
	w.Flush()
}

// writeTo ends no line with blanks.
func (p *page) writeTo(w io.Writer) error {
	var out strings.Builder
	for line := range strings.Lines(p.text.String()) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// counts makes a row of each name that is not zero, in order of name.
func counts(of map[string]uint64) (rows [][]string) {
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if of[name] != 0 {
			rows = append(rows, []string{name, number(of[name])})
		}
	}
	return rows
}

// number groups digits by thousands.
func number(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// size gives bytes a unit that keeps three digits or a little more.
func size(n uint64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1023.95 && unit < 3 {
		value, unit = value/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %s", value, [...]string{"KiB", "MiB", "GiB", "TiB"}[unit])
}

// span gives nanoseconds a unit that keeps three digits.
func span(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", ns)
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g us", float64(ns)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(ns)/1e6)
	}
	return d.Round(10 * time.Millisecond).String()
}

// uptime is in whole seconds; days are 24 hours.
func uptime(seconds float64) string {
	d := time.Duration(seconds) * time.Second
	if days := d / (24 * time.Hour); days > 0 {
		return fmt.Sprintf("%dd%s", days, (d % (24 * time.Hour)).Truncate(time.Minute))
	}
	return d.String()
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
