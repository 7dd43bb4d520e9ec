package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/replay/fleet"
)

// cell is one mode of one case.
type cell struct {
	play   *play
	mode   mode
	result *fleet.Result
}

func (c *cell) name() string { return cellName(c.play.name, c.mode) }

// cellName is the name that patterns select cells by.
func cellName(play string, m mode) string { return play + " " + m.name }

// results are the finished cells.
type results []*cell

// playAll simulates every mode of every selected case, some concurrently. Figures are written as soon as they are known.
func playAll(ctx context.Context, o options, f *figures.File, cases []*play, ms []mode) (results, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cells := cellsOf(o.only, cases, ms)
	var all results
	slots := make(chan struct{}, max(1, o.jobs))
	var mu sync.Mutex // of all and f
	var done sync.WaitGroup
	began := time.Now()
	for _, c := range cells {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		done.Go(func() {
			defer func() { <-slots }()
			own := time.Now()
			r, err := fleet.Run(c.play.config, c.play.work, c.mode.begin)
			if err != nil {
				cancel(fmt.Errorf("%s: %w", c.name(), err))
				return
			}
			c.result = r
			mu.Lock()
			defer mu.Unlock()
			all = append(all, c)
			all.write(f)
			fmt.Fprintf(os.Stderr, "%5.0f s: %d of %d, %s: hit ratio %.3f, imbalance %.2f, TTFT p95 %.2f s (took %.1f s)\n", time.Since(began).Seconds(),
				len(all), len(cells), c.name(), r.HitRatio(), r.Imbalance(), r.TTFT(0.95).Seconds(), time.Since(own).Seconds())
		})
	}
	done.Wait()
	return all, context.Cause(ctx)
}

func cellsOf(only *regexp.Regexp, cases []*play, ms []mode) (all []*cell) {
	for _, p := range cases {
		for _, m := range ms {
			if c := (&cell{play: p, mode: m}); only.MatchString(c.name()) {
				all = append(all, c)
			}
		}
	}
	return all
}

// write writes the figures of the last cell, and the theoretical limit if it is the first of its case.
func (rs results) write(f *figures.File) {
	c := rs[len(rs)-1]
	if !slices.ContainsFunc(rs[:len(rs)-1], func(o *cell) bool { return o.play == c.play }) {
		f.Line(c.play.name, "infinite-cache", "prefix_hit_ratio", c.play.bound.HitRatio(), "")
	}
	r := c.result
	line := func(metric string, value float64, unit string) { f.Line(c.play.name, c.mode.name, metric, value, unit) }
	line("prefix_hit_ratio", r.HitRatio(), "")
	line("load_imbalance", r.Imbalance(), "")
	line("ttft_p50_ms", milliseconds(r.TTFT(0.5)), "ms")
	line("ttft_p95_ms", milliseconds(r.TTFT(0.95)), "ms")
	line("ttft_p99_ms", milliseconds(r.TTFT(0.99)), "ms")
	line("tpot_p90_ms", milliseconds(r.TPOT(0.9)), "ms")
	line("e2e_p90_ms", milliseconds(r.E2E(0.9)), "ms")
	line("throughput_tok_s", r.Throughput(), "tokens/s")
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
