package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/replay/fleet"
	"github.com/inlet-proxy/inlet/bench/replay/workload"
)

// weights are the weights of a cached token relative to a waiting one.
var weights = []int{1, 4, 8, 16, 32, 64}

// sensitivity plays workloads that have little in common, on caches of several sizes and at several loads, with other
// weights: the picker's constant should not fit only one trace.
func sensitivity(ctx context.Context, o options) error {
	var ms []mode
	for _, w := range weights {
		ms = append(ms, mode{fmt.Sprintf("weight-%d", w), fleet.Picker(fmt.Sprintf("{profile: sticky, prefix: {weight: %d}}", w))})
	}
	cases, err := sensitivityCases(o, ms)
	if err != nil {
		return err
	}
	file, err := figures.Create(filepath.Join(filepath.Dir(o.out), "routing-sensitivity.jsonl"))
	if err != nil {
		return err
	}
	_, err = playAll(ctx, o, file, cases, ms)
	file.Table(os.Stdout, "prefix_hit_ratio", "load_imbalance", "ttft_p95_ms", "tpot_p90_ms")
	return errors.Join(err, file.Close())
}

// sensitivityCases are on one proxy with two workers. For traces, the load is that of computing the prompts with one
// infinite cache; synthetic workloads are played faster or slower than their own pace, which is 80 %.
func sensitivityCases(o options, ms []mode) ([]*play, error) {
	traces, err := tracesOf("")
	if err != nil {
		return nil, err
	}
	var all []*play
	add := func(name string, c fleet.Config, w *workload.Workload) {
		all = append(all, &play{name: name, config: c, work: w})
	}
	for _, load := range []float64{0.5, 0.8, 0.95} {
		if o.quick && load != 0.8 {
			continue
		}
		at := fmt.Sprintf("-%.0f%%", 100*load)
		for _, blocks := range []int{10_000, 3_000, 1_000} {
			e := large(blocks)
			add(fmt.Sprintf("mooncake-%d%s", blocks, at), fleet.Config{Replicas: 8, Engine: e}, atLoad(traces[0], traces[0].Bound(), e, 8, load))
		}
		add("azure"+at, fleet.Config{Replicas: 8, Engine: large(10_000)}, atLoad(traces[1], traces[1].Bound(), large(10_000), 8, load))
		add("sharegpt-like"+at, fleet.Config{Replicas: 10, Engine: small()}, workload.ShareGPTLike(500*load, stepOfShareGPT, 1))
		for _, w := range []*workload.Workload{workload.BurstyChat(2*time.Minute, 2), workload.Agentic(3*time.Minute, 2)} {
			add(w.Name+at, fleet.Config{Replicas: 8, Engine: small()}, w.Over(time.Duration(float64(w.Span())*0.8/load)))
		}
	}
	if all, err = wanted(o.only, all, ms); err != nil {
		return nil, err
	}
	return all, prepare(all)
}
