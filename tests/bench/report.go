package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// report is everything that one run measured.
type report struct {
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"` // that it took
	Kernel  string    `json:"kernel"`  // release
	CPU     string    `json:"cpu"`
	CPUs    int       `json:"cpus"`
	// Load is the load average over one minute before the run: what else kept the machine busy.
	Load string `json:"load"`
	Rows []row  `json:"rows"`
}

// row is one measured value.
type row struct {
	Part  string  `json:"part"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Bound is "<=" or ">=" where there is a Target, else empty: the row only informs.
	Bound  string  `json:"bound,omitempty"`
	Target float64 `json:"target,omitempty"`
	// Samples are what Value is the median of, in the order in which they were taken.
	Samples []float64 `json:"samples,omitempty"`
	// Note says what belongs to the value: the least of the samples, or what else was seen.
	Note string `json:"note,omitempty"`
}

func (r row) met() bool {
	switch r.Bound {
	case "<=":
		return r.Value <= r.Target
	case ">=":
		return r.Value >= r.Target
	}
	return true
}

// verdict is what the last column says.
func (r row) verdict() string {
	switch {
	case r.Bound == "":
		return ""
	case r.met():
		return "met"
	}
	return "NOT MET"
}

func newReport(s *settings) (*report, error) {
	r := &report{Began: time.Now(), CPUs: runtime.NumCPU()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	r.Kernel = unix.ByteSliceToString(u.Release[:])
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, fmt.Errorf("ask for the CPU: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			r.CPU = strings.TrimSpace(value)
			break
		}
	}
	if text, err = os.ReadFile("/proc/loadavg"); err != nil {
		return nil, fmt.Errorf("ask for the load: %w", err)
	}
	r.Load, _, _ = strings.Cut(string(text), " ")
	return r, nil
}

func (r *report) add(rows ...row) { r.Rows = append(r.Rows, rows...) }

func (r *report) met() bool {
	return !slices.ContainsFunc(r.Rows, func(row row) bool { return !row.met() })
}

func (r *report) print(out io.Writer) error {
	fmt.Fprintf(out, "%s, %d CPUs (%s), Linux %s, load before %s, took %.0f s\n\n",
		r.Began.Format(time.DateTime), r.CPUs, r.CPU, r.Kernel, r.Load, r.Seconds)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "part\twhat\tvalue\ttarget\t\tbeside it")
	for _, row := range r.Rows {
		target := ""
		if row.Bound != "" {
			target = row.Bound + " " + number(row.Target)
		}
		fmt.Fprintf(table, "%s\t%s\t%s %s\t%s\t%s\t%s\n", row.Part, row.Name, number(row.Value), row.Unit, target, row.verdict(), row.Note)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, row := range r.Rows {
		if len(row.Samples) < 2 {
			continue
		}
		fmt.Fprintf(out, "%s, %s:", row.Part, row.Name)
		for _, sample := range row.Samples {
			fmt.Fprintf(out, " %s", number(sample))
		}
		fmt.Fprintln(out)
	}
	return nil
}

// number shows three or four digits of v, and all before the point.
func number(v float64) string {
	switch {
	case v >= 1000:
		return thousands(fmt.Sprintf("%.0f", v))
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func thousands(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// median of samples, which are left as they are.
func median(samples []float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	if len(sorted) == 0 {
		return 0
	}
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// medianRow is a row of the median of samples.
func medianRow(part, name, unit, bound string, target float64, samples []float64, note string) row {
	return row{
		Part: part, Name: name, Value: median(samples), Unit: unit, Bound: bound, Target: target, Samples: samples, Note: note,
	}
}
