// Command bench measures what Inlet adds to a request in a real Envoy: the same
// requests through Envoy without a filter, with filters that do nothing, and
// with the full chain in each build. Each mode has an Envoy of its own with one
// worker; all run at once and take turns, so that a slow moment of the machine
// hits every mode. Only differences and ratios within one run mean something.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/inlet-proxy/inlet/e2e/bench/figures"
)

func main() {
	var o options
	flag.DurationVar(&o.duration, "duration", 2*time.Second, "how long each cell runs each time")
	flag.IntVar(&o.repeat, "repeat", 5, "how many times each cell runs; the median is told")
	flag.StringVar(&o.out, "out", "bench/out/envoy.jsonl", "file for the figures, one JSON object a line")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	duration time.Duration
	repeat   int
	out      string
}

func run(ctx context.Context, o options) error {
	modes, err := startModes(ctx)
	defer modes.close()
	if err != nil {
		return err
	}
	cases := chatCases()
	for _, c := range cases {
		for _, m := range modes {
			if err := m.check(ctx, c); err != nil {
				return fmt.Errorf("%s %s: %w", m.name, c.name, err)
			}
		}
	}
	cells := map[string]*cell{}
	for turn := range o.repeat {
		for _, c := range cases {
			fmt.Fprintf(os.Stderr, "\rturn %d of %d: %-20s", turn+1, o.repeat, c.name)
			for i := range modes {
				// Each turn begins with another mode, so that none always runs
				// in the wake of the same one.
				m := modes[(i+turn)%len(modes)]
				s, err := m.measure(ctx, c, o.duration)
				if err != nil {
					return fmt.Errorf("%s %s: %w", m.name, c.name, err)
				}
				key := c.name + "/" + m.name
				if cells[key] == nil {
					cells[key] = &cell{}
				}
				cells[key].add(s)
			}
		}
	}
	fmt.Fprintln(os.Stderr)
	return report(o, cases, modes, cells)
}

// report prints the table and writes the file.
func report(o options, cases []chatCase, modes modes, cells map[string]*cell) error {
	f, err := figures.Create(o.out)
	if err != nil {
		return err
	}
	for _, c := range cases {
		none := cells[c.name+"/none"]
		for _, m := range modes {
			v := cells[c.name+"/"+m.name]
			f.Line(c.name, m.name, "rps", v.median(func(s sample) float64 { return s.rps }), "1/s")
			f.Line(c.name, m.name, "p50_us", v.median(func(s sample) float64 { return s.p50 }), "us")
			f.Line(c.name, m.name, "p99_us", v.median(func(s sample) float64 { return s.p99 }), "us")
			f.Line(c.name, m.name, "added_p50_us", v.pairwise(none, func(s sample) float64 { return s.p50 }), "us")
			f.Line(c.name, m.name, "envoy_cpu_us", v.median(func(s sample) float64 { return s.cpu }), "us")
			f.Line(c.name, m.name, "rss_mb", v.median(func(s sample) float64 { return s.rss }), "MB")
		}
	}
	fmt.Printf("%d × %s a cell, median; one Envoy worker, %d replicas\n", o.repeat, o.duration, replicas)
	f.Table(os.Stdout)
	return f.Close()
}

// sample is one run of one cell.
type sample struct {
	rps, p50, p99 float64 // p50, p99: µs
	cpu           float64 // of Envoy, µs a request
	rss           float64 // of Envoy, MB
}

// cell is all runs of one mode and case, in order of the turns.
type cell struct{ samples []sample }

func (c *cell) add(s sample) { c.samples = append(c.samples, s) }

func (c *cell) median(of func(sample) float64) float64 {
	return median(c.samples, func(_ int, s sample) float64 { return of(s) })
}

// pairwise is the median over the turns of the difference to another mode.
func (c *cell) pairwise(other *cell, of func(sample) float64) float64 {
	return median(c.samples, func(i int, s sample) float64 { return of(s) - of(other.samples[i]) })
}

func median(samples []sample, of func(int, sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(i, s)
	}
	slices.Sort(values)
	mid := len(values) / 2
	if len(values)%2 == 1 {
		return values[mid]
	}
	return (values[mid-1] + values[mid]) / 2
}
