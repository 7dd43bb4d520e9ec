// Command replay sends a trace of requests through the picker and simulated
// replicas, in virtual time, and tells how much of the prompts was found in their
// caches and how long answers took to begin.
//
//	go run ./e2e/replay -trace mooncake_conversation_trace.jsonl
//
// The trace has one JSON object a line: timestamp (ms), input_length and
// output_length (tokens) and hash_ids, one for each block of 512 tokens of the
// prompt, equal ones for equal prefixes (kvcache-ai/Mooncake, FAST25-release/traces).
//
// A replica computes one prompt after the other at a fixed rate, keeps their blocks
// in a cache that forgets what was not used for longest, and writes all its answers
// at the same time at a fixed rate. Workers are pickers that share a store and
// nothing else, as wasm VMs do.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// block is the size of the trace's blocks, in tokens.
const block = 512

// request is one line of the trace.
type request struct {
	Timestamp int64 `json:"timestamp"`
	Input     int   `json:"input_length"`
	Output    int   `json:"output_length"`
	Blocks    []int `json:"hash_ids"`
}

// fleet is what is simulated.
type fleet struct {
	replicas int
	blocks   int           // of each one's cache
	prefill  float64       // tokens a second
	decode   time.Duration // for a token
	scrape   time.Duration // how often gauges are read
	load     float64       // share of time that one infinite shared cache would leave them busy
}

func main() {
	var f fleet
	trace := flag.String("trace", "", "the trace")
	pickers := flag.String("pickers", "{profile: round-robin};{profile: least-request};{profile: weighted};{profile: sticky}",
		"configurations of the picker, with ; between them")
	workers := flag.Int("workers", 1, "workers that share the traffic")
	flag.IntVar(&f.replicas, "replicas", 8, "replicas")
	flag.IntVar(&f.blocks, "blocks", 10_000, "blocks of 512 tokens in each one's cache")
	flag.Float64Var(&f.prefill, "prefill", 16_000, "tokens of prompts a second")
	flag.DurationVar(&f.decode, "decode", 20*time.Millisecond, "time for a token of an answer")
	flag.DurationVar(&f.scrape, "scrape", 500*time.Millisecond, "how often the gauges are read")
	flag.Float64Var(&f.load, "load", 0.8, "how busy one infinite shared cache would leave the replicas")
	flag.Parse()
	if err := run(f, *trace, strings.Split(*pickers, ";"), *workers); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func run(f fleet, trace string, pickers []string, workers int) error {
	requests, err := read(trace)
	if err != nil {
		return err
	}
	found, tokens := infinite(requests)
	// Arrivals are pushed together, or drawn apart, to the load.
	span := float64(requests[len(requests)-1].Timestamp) / 1000
	stretch := tokens / f.prefill / float64(f.replicas) / f.load / span
	fmt.Printf("%d requests in %.0f s; of their blocks one infinite cache would have %.3f\n\n", len(requests), span*stretch, found)
	fmt.Printf("%-40s %7s %7s %9s %10s %9s %9s\n", "picker", "hits", "of inf.", "imbalance", "TTFT p50", "p95", "p99")
	for _, p := range pickers {
		r, err := replay(f, requests, stretch, p, workers)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		fmt.Printf("%-40s %7.4f %6.1f%% %9.3f %9.2fs %8.2fs %8.2fs\n",
			p, r.hits, 100*r.hits/found, r.imbalance(), r.ttft(0.5), r.ttft(0.95), r.ttft(0.99))
	}
	return nil
}

func read(trace string) ([]request, error) {
	file, err := os.Open(trace)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	var all []request
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		all = append(all, r)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(all) < 2 {
		return nil, fmt.Errorf("%s holds no trace", trace)
	}
	return all, nil
}

// infinite returns the share of blocks that one infinite cache would have, and the
// tokens that are to be computed in spite of it.
func infinite(requests []request) (found, tokens float64) {
	seen := map[int]bool{}
	total := 0.0
	for _, r := range requests {
		for i, b := range r.Blocks {
			total++
			if seen[b] {
				found++
				continue
			}
			seen[b] = true
			tokens += float64(min(block, r.Input-block*i))
		}
	}
	return found / total, tokens
}
