// Command bench measures what Inlet adds to a request in a real Envoy: the same requests through Envoy without a filter,
// with filters that do nothing, with the full chain in each build, with each filter alone, and with the same chain behind
// ext_proc. Each mode has its own Envoy with one worker. All run at the same time and take turns, so that a slow moment
// of the machine affects every mode. Compare only figures of one run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/load"
)

func main() {
	var o options
	var quick bool
	flag.DurationVar(&o.duration, "duration", 400*time.Millisecond, "how long each cell runs each time")
	flag.IntVar(&o.repeat, "repeat", 13, "how many times each cell runs; the median is reported")
	flag.BoolVar(&quick, "quick", false, "5 × 0.2 s per cell, for a quick look")
	flag.StringVar(&o.modes, "modes", "*", "modes to run in addition to the first, as comma-separated patterns: wasm,*-wasm")
	flag.StringVar(&o.cases, "cases", "*", "cases to run, as comma-separated patterns: chat-4k-*")
	flag.BoolVar(&o.peers, "peers", false, "compare with the Gateway API Inference Extension")
	flag.BoolVar(&o.quota, "quota", false, "measure quotas, and Envoy's rate limits beside them")
	flag.StringVar(&o.out, "out", "", "file for the figures, one JSON object per line (default bench/out/envoy.jsonl, with -peers peers.jsonl, with -quota quota.jsonl)")
	flag.Parse()
	if o.out == "" {
		o.out = "bench/out/" + o.name() + ".jsonl"
	}
	if quick {
		o.duration, o.repeat = 200*time.Millisecond, 5
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	duration     time.Duration
	repeat       int
	modes, cases string // patterns
	peers, quota bool
	out          string
}

// name is that of the benchmark.
func (o options) name() string {
	switch {
	case o.quota:
		return "quota"
	case o.peers:
		return "peers"
	}
	return "envoy"
}

// matches reports whether a name matches one of several patterns.
func matches(patterns, name string) bool {
	for p := range strings.SplitSeq(patterns, ",") {
		if ok, _ := path.Match(strings.TrimSpace(p), name); ok {
			return true
		}
	}
	return false
}

func run(ctx context.Context, o options) error {
	f, err := figures.Create(o.out)
	if err != nil {
		return err
	}
	parts := map[string][]func(context.Context, options, *figures.File) error{
		"envoy": {runChats, runScreened, runLarge}, "peers": {runChats, runScraping}, "quota": {runQuota},
	}
	for _, part := range parts[o.name()] {
		if err := part(ctx, o, f); err != nil {
			return err
		}
	}
	fmt.Printf("%d × %s per cell, median\n", o.repeat, o.duration)
	f.Table(os.Stdout)
	return f.Close()
}

// runChats runs the cases of one Envoy worker and 8 replicas.
func runChats(ctx context.Context, o options, f *figures.File) error {
	if o.peers {
		return runCases(ctx, o, f, peerSpecs, cases, nothingAround)
	}
	return runCases(ctx, o, f, specs, cases, nothingAround)
}

func nothingAround(context.Context, *bench) (func() error, error) {
	return func() error { return nil }, nil
}

// runCases runs the chosen modes on the chosen cases. around is called before the measurement, and what it returns after it.
func runCases(ctx context.Context, o options, f *figures.File, specs []spec, cases []chatCase, around func(context.Context, *bench) (after func() error, err error)) error {
	var chosen []chatCase
	for _, c := range cases {
		if matches(o.cases, c.name) {
			chosen = append(chosen, c)
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	var wanted []spec
	for i, s := range specs {
		if i == 0 || matches(o.modes, s.name) {
			wanted = append(wanted, s)
		}
	}
	b, err := start(ctx, wanted, size{workers: 1, replicas: 8})
	if err != nil {
		return err
	}
	defer b.close()
	w, err := b.watch()
	if err != nil {
		return err
	}
	after, err := around(ctx, b)
	if err != nil {
		return err
	}
	cells, err := b.measure(ctx, chosen, o)
	if err != nil {
		return err
	}
	if err := after(); err != nil {
		return err
	}
	b.report(f, chosen, cells)
	cores, err := w.cores(b)
	f.Line("machine", "others", "cpu_cores", cores, "")
	return err
}

// cells are by case and mode.
type cells map[[2]string]*cell

// measure checks every mode on every case, then lets them take turns.
func (b *bench) measure(ctx context.Context, chosen []chatCase, o options) (cells, error) {
	all, answers := cells{}, map[[2]string]int{}
	requests := make([]*load.Request, len(chosen))
	for i := range chosen {
		c := &chosen[i]
		requests[i] = c.request()
		for _, m := range b.modes {
			if !c.runs(m) {
				continue
			}
			key := [2]string{c.name, m.name}
			var err error
			if answers[key], err = b.check(ctx, m, c); err != nil {
				return nil, fmt.Errorf("%s %s: %w", m.name, c.name, err)
			}
			all[key] = &cell{}
		}
	}
	if err := b.rest(ctx, time.Duration(o.repeat)*o.duration); err != nil {
		return nil, err
	}
	for turn := range o.repeat {
		for i := range chosen {
			c := &chosen[i]
			fmt.Fprintf(os.Stderr, "\rturn %d of %d: %-20s", turn+1, o.repeat, c.name)
			for j := range b.modes {
				// Each turn begins with another mode, so that none always follows the same one.
				m := b.modes[(j+turn)%len(b.modes)]
				key := [2]string{c.name, m.name}
				if all[key] == nil {
					continue
				}
				s, err := m.measure(ctx, c, requests[i], answers[key], o.duration)
				if err != nil {
					return nil, fmt.Errorf("%s %s: %w", m.name, c.name, err)
				}
				all[key].add(s)
			}
		}
	}
	fmt.Fprintln(os.Stderr)
	return all, nil
}

// report writes the figures of all cells.
func (b *bench) report(f *figures.File, chosen []chatCase, all cells) {
	for _, m := range b.modes {
		f.Line("idle-8r", m.name, "cpu_cores", m.idle, "")
	}
	for i := range chosen {
		c := &chosen[i]
		none := all[[2]string{c.name, b.modes[0].name}]
		for _, m := range b.modes {
			v := all[[2]string{c.name, m.name}]
			if v == nil {
				continue
			}
			line := func(metric string, value float64, unit string) { f.Line(c.name, m.name, metric, value, unit) }
			line("rps", v.median(func(s sample) float64 { return s.rps }), "1/s")
			line("p50_us", v.median(func(s sample) float64 { return s.p50 }), "us")
			line("p99_us", v.median(func(s sample) float64 { return s.p99 }), "us")
			line("added_p50_us", v.pairwise(none, func(s sample) float64 { return s.p50 }), "us")
			line("envoy_cpu_us", v.median(func(s sample) float64 { return s.envoy }), "us")
			line("total_cpu_us", v.median(func(s sample) float64 { return s.total }), "us")
			line("busy_cpu_us", v.median(func(s sample) float64 { return s.busy }), "us")
			line("envoy_rss_mb", v.median(func(s sample) float64 { return s.envoyRSS }), "MB")
			line("total_rss_mb", v.median(func(s sample) float64 { return s.rss }), "MB")
			if c.events > 0 {
				line("per_event_cpu_us", b.perEvent(c, m, all), "us")
			}
			if gc := v.collections(); len(gc) > 0 {
				line("gc_p99_us", percentile(gc, 0.99), "us")
			}
		}
	}
}

// perEvent is the CPU time that a mode adds to an event of a streamed response: what it adds to the whole exchange, minus
// what it adds to one without a stream if that was measured too. Work without requests is left out, since streams take
// long.
func (b *bench) perEvent(c *chatCase, m *mode, all cells) float64 {
	added := func(name string) float64 {
		v, none := all[[2]string{name, m.name}], all[[2]string{name, b.modes[0].name}]
		if v == nil || none == nil {
			return 0
		}
		return v.pairwise(none, func(s sample) float64 { return s.busy })
	}
	return (added(c.name) - added(unstreamed)) / float64(c.events)
}
