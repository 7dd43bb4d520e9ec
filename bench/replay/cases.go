package main

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/bench/replay/fleet"
	"github.com/inlet-proxy/inlet/bench/replay/workload"
	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// mode is a way of routing.
type mode struct {
	name  string
	begin func(fleet.Config, *workload.Workload, fleet.Gauges) (fleet.Router, error)
}

// modes are the modes that are compared.
var modes = []mode{
	{"round-robin", fleet.Picker("{profile: round-robin}")},
	{"random", fleet.Random},
	{"least-request", fleet.Picker("{profile: least-request}")},
	{"weighted", fleet.Picker("{profile: weighted}")},
	{"sticky", fleet.Picker("{profile: sticky}")},
	{"epp", fleet.EPP},
}

// play is one case: a workload on a fleet.
type play struct {
	name   string
	config fleet.Config
	work   *workload.Workload
	bound  workload.Bound
}

// large is the hardware for traces: a 70B model (Llama 3.1: 80 layers, 8 key-value heads of 128 dimensions) in bfloat16
// with an 8-bit KV cache on 8 H100s, calculated as in engine.Default: 140 GFLOP per token at 40 % of 8 × 989 TFLOP/s; 140
// GB of weights at 8 × 3.35 TB/s take 5.2 ms, about 7 with launch and sampling; a token's keys and values are 160 KiB,
// 1,000 of them take 6.1 µs. A step computes 2,048 tokens, which vLLM's documentation recommends for a short time per
// token: with 8,192 each new prompt would delay the output of all others by a third of a second.
func large(blocks int) engine.Config {
	t := engine.Default
	t.PrefillRate = 22_600
	t.ContextTime = 6100 * time.Nanosecond
	return engine.Config{Blocks: blocks, BlockTokens: 512, MaxNumBatchedTokens: 2048, Timing: t}
}

// small is the hardware for synthetic workloads: modelsim's default, an 8B model on one H100, with the same steps.
func small() engine.Config {
	const tokens = engine.DefaultBlocks * 16
	return engine.Config{Blocks: tokens / 64, BlockTokens: 64, MaxNumBatchedTokens: 2048, Timing: engine.Default}
}

// workersOf is the number of workers of each proxy: two, which share state as wasm VMs do. For large fleets and many
// proxies it is one, as in the native module, whose threads share their state: each worker needs time and memory to know
// what all know.
func workersOf(c fleet.Config) int {
	if c.Replicas > 64 || c.Proxies > 4 {
		return 1
	}
	return 2
}

func casesOf(o options) ([]*play, error) {
	traces, err := tracesOf(o.trace)
	if err != nil {
		return nil, err
	}
	var all []*play
	if o.trace == "" {
		all = append(shareGPTCases(o.quick), madeUp(o.quick)...)
	}
	for _, replicas := range []int{8, 64, 512, 2000} {
		for _, trace := range traces {
			all = append(all, traceCases(trace, o, replicas)...)
		}
	}
	return wanted(o.only, all, modes)
}

// madeUp are the synthetic conversations, with several seeds, because the results are partly random.
func madeUp(quick bool) (all []*play) {
	c := fleet.Config{Replicas: 8, Engine: small()}
	seeds := uint64(5)
	if quick {
		seeds = 1
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		suffix := ""
		if seed > 1 {
			suffix = fmt.Sprintf("-seed%d", seed)
		}
		all = append(all,
			&play{name: "bursty-chat" + suffix, work: workload.BurstyChat(3*time.Minute, seed), config: c},
			&play{name: "agentic" + suffix, work: workload.Agentic(4*time.Minute, seed), config: c})
	}
	return all
}

// includes reports whether a case of a trace is played. Without -full these are the cases that end within about a quarter
// of an hour: the largest fleet only with one proxy, and the trace whose prompts share nothing only on the smallest
// fleet.
func (o options) includes(trace *workload.Workload, replicas, proxies int) bool {
	switch {
	case o.quick:
		return replicas <= 64 && proxies <= 4
	case o.full || o.trace != "":
		return true
	case trace.Name == workload.Azure:
		return replicas == 8
	}
	return replicas <= 512 || proxies == 1
}

// wanted are the cases with a selected mode.
func wanted(only *regexp.Regexp, all []*play, ms []mode) ([]*play, error) {
	all = slices.DeleteFunc(all, func(p *play) bool { return !wants(only, p.name, ms) })
	if len(all) == 0 {
		return nil, fmt.Errorf("no case and mode matches %q", only)
	}
	return all, nil
}

func wants(only *regexp.Regexp, play string, ms []mode) bool {
	return slices.ContainsFunc(ms, func(m mode) bool { return only.MatchString(cellName(play, m)) })
}

// prepare reads the workloads' bodies, each once, and fills in what cases share.
func prepare(all []*play) error {
	for _, p := range all {
		p.config.Seed = 1
		p.config.Proxies = max(1, p.config.Proxies)
		if p.config.Workers == 0 {
			p.config.Workers = workersOf(p.config)
		}
		if p.bound == (workload.Bound{}) {
			p.bound = p.work.Bound()
		}
		if err := p.work.Scan(); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func tracesOf(file string) ([]*workload.Workload, error) {
	if file != "" {
		w, err := workload.Open(file)
		if err == nil {
			err = w.Scan()
		}
		return []*workload.Workload{w}, err
	}
	var all []*workload.Workload
	for _, name := range []string{workload.Mooncake, workload.Azure} {
		w, err := workload.Shipped(name)
		if err == nil {
			err = w.Scan()
		}
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

// traceCases are a trace on one size of fleet, with several numbers of proxies.
func traceCases(trace *workload.Workload, o options, replicas int) (all []*play) {
	var with *play // the requests are the same
	for _, proxies := range []int{1, 4, 16} {
		name := fmt.Sprintf("%s-%dr-%dp", trace.Name, replicas, proxies)
		if !o.includes(trace, replicas, proxies) || !wants(o.only, name, modes) {
			continue
		}
		if with == nil {
			with = traceCase(trace, o, replicas)
		}
		p := *with
		p.name, p.config.Proxies = name, proxies
		all = append(all, &p)
	}
	return all
}

// traceCase plays a trace to a fleet. Fleets of up to 31 replicas get it once. Fleets of up to 64 get one more copy for
// each 32 replicas, like as many tenants that share nothing. Larger ones get the first quarter of it, with one more copy
// for each 64 replicas: enough requests to keep each replica busy for some time, and few enough to finish.
func traceCase(trace *workload.Workload, o options, replicas int) *play {
	w, copies := trace, max(1, replicas/32)
	if replicas > 64 {
		w, copies = trace.Head(len(trace.Requests)/4), replicas/64
	}
	e := large(o.blocks)
	p := &play{config: fleet.Config{Replicas: replicas, Engine: e}, bound: w.Bound().Times(copies)}
	p.work = atLoad(w.Copies(copies), p.bound, e, replicas, o.load)
	return p
}

// atLoad compresses or stretches the arrivals, so that computing the prompts would keep the replicas that busy if they
// shared one infinite cache.
func atLoad(w *workload.Workload, b workload.Bound, e engine.Config, replicas int, load float64) *workload.Workload {
	seconds := float64(b.Uncached) / e.Timing.PrefillRate / float64(replicas) / load
	return w.Over(time.Duration(seconds * float64(time.Second)))
}

// stepOfShareGPT is how long each rate is held.
const stepOfShareGPT = 20 * time.Second

// shareGPTCases are the steps from 100 to 1,000 questions per second, each separately, and all one after the other.
func shareGPTCases(quick bool) []*play {
	c := fleet.Config{Replicas: 10, Engine: small()}
	whole := &play{name: "sharegpt-like-10r", config: c}
	all := []*play{whole}
	var steps []*workload.Workload
	for rate := 100; rate <= 1000; rate += 100 {
		w := workload.ShareGPTLike(float64(rate), stepOfShareGPT, uint64(rate))
		steps = append(steps, w)
		if !quick || rate%300 == 0 {
			all = append(all, &play{name: fmt.Sprintf("sharegpt-like-10r-%dqps", rate), config: c, work: w})
		}
	}
	whole.work = workload.Joined("sharegpt-like", stepOfShareGPT, steps)
	return all
}
