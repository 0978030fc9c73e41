package kernels

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ambit/tests/kernels/report"
)

// row is one of the table's: a fact of each kernel.
type row struct {
	name    string
	since   string // the first Linux that has it; empty where that says nothing
	without string
	cell    func(Finding) string
	// about tells a number that another build of the same series changes a little.
	about bool
	// passing tells what another build of the same series changes in any case.
	passing bool
}

const (
	none = "-"
	// tolerance is by what part a number may differ from the committed one.
	tolerance = 4
)

func rows() []row {
	all := []row{
		{name: "build", cell: func(f Finding) string { return strings.TrimSuffix(f.Detail(report.Kernel)["release"], "-cloud-amd64") }, passing: true},
		{name: "ambit", cell: func(f Finding) string {
			if f.traces() {
				return "traces"
			}
			return "refuses"
		}},
		{name: "attached by", cell: func(f Finding) string {
			for _, method := range []string{report.ByTCX, report.ByClsact} {
				if strings.Contains(f.Detail(report.Traces)["attachments"], " "+method+" ") {
					return method
				}
			}
			return none
		}},
		{name: "programs that load", cell: func(f Finding) string {
			return fmt.Sprintf("%d of %d", len(f.loaded()), len(f.Detail(report.Programs)))
		}},
		{name: "instructions verified", cell: func(f Finding) string {
			sum := 0
			for _, n := range f.verified() {
				sum += n
			}
			return number(sum)
		}, about: true},
		{name: "of these, the dearest program", cell: func(f Finding) string {
			most := 0
			for _, n := range f.verified() {
				most = max(most, n)
			}
			return number(most)
		}, about: true},
	}
	for _, feature := range report.KernelFeatures {
		all = append(all, row{name: feature.Name, since: feature.Since, without: feature.Without, cell: func(f Finding) string {
			return f.Detail(report.Features)[feature.Name]
		}})
	}
	return all
}

// number writes groups of three digits.
func number(n int) string {
	if n == 0 {
		return none
	}
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// Table renders what was found of the kernels: a column for each, and behind the table what ambit says on those that
// it refuses.
func Table(findings []Finding) string {
	var table strings.Builder
	line := func(cells ...string) { fmt.Fprintf(&table, "| %s |\n", strings.Join(cells, " | ")) }
	head := []string{"", "since"}
	for _, f := range findings {
		head = append(head, f.Kernel)
	}
	head = append(head, "without it")
	line(head...)
	line(slices.Repeat([]string{"---"}, len(head))...)
	for _, r := range rows() {
		cells := []string{r.name, r.since}
		for _, f := range findings {
			cells = append(cells, r.cell(f))
		}
		line(append(cells, r.without)...)
	}
	for _, f := range findings {
		if said := f.said(); said != "" {
			fmt.Fprintf(&table, "\nOn %s `ambit run` ends with this line:\n\n```\n%s\n```\n", f.Kernel, said)
		}
	}
	return table.String()
}

// said is what ambit refuses to start with.
func (f Finding) said() string { return f.Detail(report.Refusal)["line"] }

// cellsOf reads a table that Table made, by kernel and row.
func cellsOf(table string) map[string]map[string]string {
	cells := map[string]map[string]string{}
	var head []string
	for line := range strings.Lines(table) {
		inner, ok := strings.CutPrefix(strings.TrimSpace(line), "|")
		if !ok {
			continue
		}
		columns := strings.Split(strings.TrimSuffix(inner, "|"), "|")
		for i := range columns {
			columns[i] = strings.TrimSpace(columns[i])
		}
		if head == nil {
			head = columns
			continue
		}
		for i := 2; i < min(len(head), len(columns)); i++ {
			if cells[head[i]] == nil {
				cells[head[i]] = map[string]string{}
			}
			cells[head[i]][columns[0]] = columns[i]
		}
	}
	return cells
}

// Against compares the finding with a table, and returns a complaint for each difference that is not one of builds.
func (f Finding) Against(table string) []string {
	var complaints []string
	cells := cellsOf(table)[f.Kernel]
	for _, r := range rows() {
		said, is := cells[r.name], r.cell(f)
		if said == is || r.passing && said != "" || r.about && near(said, is) {
			continue
		}
		complaints = append(complaints, fmt.Sprintf("%q of kernel %s is %q, and it was found to be %q", r.name, f.Kernel, said, is))
	}
	// The version in it is that of a build.
	if _, why, _ := strings.Cut(f.said(), " is too old"); !strings.Contains(table, why) {
		complaints = append(complaints, fmt.Sprintf("kernel %s is refused with the line %q", f.Kernel, f.said()))
	}
	return complaints
}

func near(said, is string) bool {
	a, errA := strconv.Atoi(strings.ReplaceAll(said, ",", ""))
	b, errB := strconv.Atoi(strings.ReplaceAll(is, ",", ""))
	return errA == nil && errB == nil && max(a, b)-min(a, b) <= a/tolerance
}

const (
	begin = "<!-- what follows is written by \"make test-kernels\" -->\n"
	end   = "<!-- what is above is written by \"make test-kernels\" -->\n"
)

// Section returns the text between the marks of the page.
func Section(page string) (string, error) {
	_, after, ok := strings.Cut(page, begin)
	section, _, closed := strings.Cut(after, end)
	if !ok || !closed {
		return "", fmt.Errorf("find the table in the page: a line %q and one %q have to stand around it", begin, end)
	}
	return strings.TrimSpace(section) + "\n", nil
}

// Replace puts a table between the marks of the page.
func Replace(page, table string) (string, error) {
	if _, err := Section(page); err != nil {
		return "", err
	}
	before, after, _ := strings.Cut(page, begin)
	_, after, _ = strings.Cut(after, end)
	return before + begin + "\n" + table + "\n" + end + after, nil
}
