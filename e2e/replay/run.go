package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/e2e/bench/figures"
	"github.com/inlet-proxy/inlet/e2e/replay/fleet"
)

// cell is one mode of one case.
type cell struct {
	play   *play
	mode   string
	result *fleet.Result
}

// results are all cells, case by case in order, each with all its modes.
type results []*cell

// playAll simulates every mode of every case, some at once.
func playAll(ctx context.Context, jobs int, cases []*play, ms []mode) (results, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all results
	slots := make(chan struct{}, max(1, jobs))
	var done sync.WaitGroup
	began := time.Now()
	for _, p := range cases {
		for _, m := range ms {
			c := &cell{play: p, mode: m.name}
			all = append(all, c)
			slots <- struct{}{}
			if ctx.Err() != nil {
				break
			}
			fmt.Fprintf(os.Stderr, "\r%5.0f s: %-60s", time.Since(began).Seconds(), p.name+" "+m.name)
			done.Go(func() {
				defer func() { <-slots }()
				var err error
				if c.result, err = fleet.Run(p.config, p.work, m.begin); err != nil {
					cancel(fmt.Errorf("%s, %s: %w", p.name, m.name, err))
				}
			})
		}
	}
	done.Wait()
	fmt.Fprintf(os.Stderr, "\r%5.0f s: %-60s\n", time.Since(began).Seconds(), "done")
	return all, context.Cause(ctx)
}

// write writes the figures.
func (rs results) write(f *figures.File) {
	for i, c := range rs {
		if i == 0 || rs[i-1].play != c.play {
			f.Line(c.play.name, "infinite-cache", "prefix_hit_ratio", c.play.bound.HitRatio(), "")
		}
		r := c.result
		line := func(metric string, value float64, unit string) { f.Line(c.play.name, c.mode, metric, value, unit) }
		line("prefix_hit_ratio", r.HitRatio(), "")
		line("load_imbalance", r.Imbalance(), "")
		line("ttft_p50_ms", milliseconds(r.TTFT(0.5)), "ms")
		line("ttft_p95_ms", milliseconds(r.TTFT(0.95)), "ms")
		line("ttft_p99_ms", milliseconds(r.TTFT(0.99)), "ms")
		line("tpot_p90_ms", milliseconds(r.TPOT(0.9)), "ms")
		line("e2e_p90_ms", milliseconds(r.E2E(0.9)), "ms")
		line("throughput_tok_s", r.Throughput(), "tokens/s")
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
