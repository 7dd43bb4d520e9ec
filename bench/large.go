package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/upstream"
)

// large is the case of 8 workers and 1,000 replicas, for memory and garbage collection. It has one request at a time:
// with more, workers would wait for a core in the middle of a collection, which would count as part of it.
var large = chatCase{name: "8w-1000r", conns: 1, size: 4 << 10, model: upstream.Model}

const (
	// scrapeMany is the scrape interval, on a machine that has other things to do.
	scrapeMany = 500 * time.Millisecond
	// rounds of a mode, each on a new connection, which any worker may get.
	rounds = 40
)

// runLarge measures that case in each build.
func runLarge(ctx context.Context, o options, f *figures.File) error {
	if !matches(o.cases, large.name) {
		return nil
	}
	for _, s := range specs {
		if s.name == "none" || s.full() && !s.extProc && matches(o.modes, s.name) {
			if err := runLargeMode(ctx, s, o, f); err != nil {
				return fmt.Errorf("%s %s: %w", large.name, s.name, err)
			}
		}
	}
	return nil
}

func runLargeMode(ctx context.Context, s spec, o options, f *figures.File) error {
	b, err := start(ctx, []spec{s}, size{workers: 8, replicas: 1000})
	if err != nil {
		return err
	}
	defer b.close()
	m := b.modes[0]
	answer, err := b.check(ctx, m, &large)
	if err != nil {
		return err
	}
	request := large.request()
	all := &cell{}
	for i := range rounds {
		fmt.Fprintf(os.Stderr, "\r%s %s: round %d of %d ", large.name, s.name, i+1, rounds)
		one, err := m.measure(ctx, &large, request, answer, o.duration)
		if err != nil {
			return err
		}
		all.add(one)
	}
	fmt.Fprintln(os.Stderr)
	f.Line(large.name, m.name, "envoy_rss_mb", all.samples[rounds-1].envoyRSS, "MB")
	f.Line(large.name, m.name, "total_rss_mb", all.samples[rounds-1].rss, "MB")
	f.Line(large.name, m.name, "p99_us", all.median(func(s sample) float64 { return s.p99 }), "us")
	if gc := all.collections(); len(gc) > 0 {
		f.Line(large.name, m.name, "gc_p50_us", percentile(gc, 0.5), "us")
		f.Line(large.name, m.name, "gc_p99_us", percentile(gc, 0.99), "us")
		f.Line(large.name, m.name, "gc_n", float64(len(gc)), "")
	}
	return nil
}
