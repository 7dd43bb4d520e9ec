package figures

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Table prints the figures so far: a row for each case and mode, in the order in which
// they were written, and a column for each given metric, or for all. Above it is the
// machine's description from when the file was made.
func (f *File) Table(w io.Writer, metrics ...string) {
	if len(metrics) == 0 {
		metrics = f.metrics()
	}
	units := map[string]string{}
	values := map[[3]string]float64{}
	var rows [][2]string
	known := map[[2]string]bool{}
	for _, c := range f.cells {
		row := [2]string{c.Case, c.Mode}
		if !known[row] {
			known[row] = true
			rows = append(rows, row)
		}
		units[c.Metric] = c.Unit
		values[[3]string{c.Case, c.Mode, c.Metric}] = c.Value
	}
	fmt.Fprintf(w, "%s\n\n| case | mode |", f.machine)
	for _, m := range metrics {
		fmt.Fprintf(w, " %s |", title(m, units[m]))
	}
	fmt.Fprintf(w, "\n| --- | --- |%s\n", strings.Repeat(" ---: |", len(metrics)))
	before := ""
	for _, row := range rows {
		shown := row[0]
		if shown == before {
			shown = ""
		}
		before = row[0]
		fmt.Fprintf(w, "| %s | %s |", shown, row[1])
		for _, m := range metrics {
			text := ""
			if v, ok := values[[3]string{row[0], row[1], m}]; ok {
				text = Number(v)
			}
			fmt.Fprintf(w, " %s |", text)
		}
		fmt.Fprintln(w)
	}
}

// metrics are all metrics, in the order of their first figure.
func (f *File) metrics() []string {
	var names []string
	known := map[string]bool{}
	for _, c := range f.cells {
		if !known[c.Metric] {
			known[c.Metric] = true
			names = append(names, c.Metric)
		}
	}
	return names
}

// title is a metric's name, and its unit unless the name ends with it.
func title(metric, unit string) string {
	if unit == "" || strings.HasSuffix(strings.ToLower(metric), "_"+strings.ToLower(unit)) {
		return metric
	}
	return metric + ", " + unit
}

// Number formats a value with three digits, or with all before the point.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || a == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
