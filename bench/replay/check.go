package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/replay/fleet"
	"github.com/inlet-proxy/inlet/bench/replay/workload"
	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// How much the simulation may differ from real processes.
const (
	mostHits = 0.02 // of the hit ratio
	mostTTFT = 0.15 // of the TTFT p95
)

// The part of the trace that is played in real time: computing prompts keeps the replicas two thirds busy, in less than a
// minute. Arrivals are evenly spread. The trace has ten in one millisecond, which a client cannot send: how a busy
// machine handles that does not depend on routing.
const (
	checkRequests = 600
	checkReplicas = 8
	checkLoad     = 0.65
)

func evenly(w *workload.Workload) *workload.Workload {
	span := w.Span()
	for i := range w.Requests {
		w.Requests[i].At = span * time.Duration(i) / time.Duration(len(w.Requests))
	}
	return w
}

// check plays the beginning of the trace to real replicas (modelsim) behind a real Envoy with the companion, in real
// time, and in the simulation: same bodies, same times. The chain is the wasm build with two workers. It is an error if
// the two differ.
func check(ctx context.Context, f *figures.File) error {
	trace, err := workload.Shipped(workload.Mooncake)
	if err != nil {
		return err
	}
	w, e := evenly(trace.Head(checkRequests)), large(10_000)
	p := &play{
		name:   fmt.Sprintf("real-%dr-1p", checkReplicas),
		config: fleet.Config{Replicas: checkReplicas, Workers: 2, Engine: e},
		work:   atLoad(w, w.Bound(), e, checkReplicas, checkLoad),
	}
	if err := prepare([]*play{p}); err != nil {
		return err
	}
	simulated, err := median(p)
	if err != nil {
		return err
	}
	real, err := playReal(ctx, p)
	if err != nil {
		return err
	}
	for _, r := range []struct {
		mode string
		outcome
	}{{"sticky", simulated}, {"sticky-real", real}} {
		f.Line(p.name, r.mode, "prefix_hit_ratio", r.hits, "")
		f.Line(p.name, r.mode, "ttft_p50_ms", milliseconds(r.p50), "ms")
		f.Line(p.name, r.mode, "ttft_p95_ms", milliseconds(r.p95), "ms")
		fmt.Printf("%s %-12s hit ratio %.3f, TTFT p50 %v, p95 %v\n", p.name, r.mode, r.hits, r.p50.Round(time.Millisecond), r.p95.Round(time.Millisecond))
	}
	return compare(simulated, real)
}

// outcome has the numbers that are compared.
type outcome struct {
	hits     float64
	p50, p95 time.Duration
}

func compare(simulated, real outcome) error {
	var err error
	if d := real.hits - simulated.hits; max(d, -d) > mostHits {
		err = fmt.Errorf("hit ratio: simulated %.3f, real %.3f: more than %v apart", simulated.hits, real.hits, mostHits)
	}
	if d := float64(real.p95-simulated.p95) / float64(simulated.p95); max(d, -d) > mostTTFT {
		err = errors.Join(err, fmt.Errorf("TTFT p95: simulated %v, real %v: more than %v apart", simulated.p95, real.p95, mostTTFT))
	}
	return err
}

// median simulates with several seeds: in Envoy, too, the worker of a request is random.
func median(p *play) (outcome, error) {
	const seeds = 5
	var hits []float64
	var p50, p95 []time.Duration
	for seed := range uint64(seeds) {
		c := p.config
		c.Seed = seed + 1
		r, err := fleet.Run(c, p.work, fleet.Picker("{profile: sticky}"))
		if err != nil {
			return outcome{}, err
		}
		hits, p50, p95 = append(hits, r.HitRatio()), append(p50, r.TTFT(0.5)), append(p95, r.TTFT(0.95))
	}
	slices.Sort(hits)
	slices.Sort(p50)
	slices.Sort(p95)
	return outcome{hits[seeds/2], p50[seeds/2], p95[seeds/2]}, nil
}

const checkDocument = `filters:
  - bbr: {models: [{name: ` + workload.Model + `, targets: [{pool: llama}]}]}
  - picker: {profile: sticky}
companion: {cluster: inlet-companion}
`

// flags are modelsim's arguments for the given engine.
func flags(e engine.Config) []string {
	t := &e.Timing
	return []string{
		"--model", workload.Model, "--kv-blocks", strconv.Itoa(e.Blocks), "--block-size", strconv.Itoa(e.BlockTokens),
		"--max-num-batched-tokens", strconv.Itoa(e.MaxNumBatchedTokens),
		"--overhead", t.Overhead.String(), "--prefill-rate", strconv.FormatFloat(t.PrefillRate, 'g', -1, 64),
		"--token-time", t.TokenTime.String(), "--token-time-per-seq", t.TokenTimePerSeq.String(), "--context-time", t.ContextTime.String(),
	}
}

func playReal(ctx context.Context, p *play) (outcome, error) {
	s, err := stack.Start(ctx, stack.Options{
		Chain: checkDocument, Workers: p.config.Workers, Progress: os.Stderr,
		Pools: []stack.Pool{{Name: "llama", Replicas: p.config.Replicas, Args: flags(p.config.Engine)}},
	})
	if err != nil {
		return outcome{}, err
	}
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	defer client.CloseIdleConnections()
	if err := settled(ctx, client, s.URL()); err != nil {
		return outcome{}, err
	}

	requests := p.work.Requests
	bodies := make([][]byte, len(requests))
	for i := range requests {
		bodies[i] = p.work.AppendBody(nil, &requests[i])
	}
	answers := make([]answer, len(requests))
	failures := make([]error, len(requests))
	var done sync.WaitGroup
	began := time.Now()
	for i := range requests {
		select {
		case <-time.After(time.Until(began.Add(requests[i].At))):
		case <-ctx.Done():
			return outcome{}, context.Cause(ctx)
		}
		done.Go(func() { answers[i], failures[i] = send(ctx, client, s.URL(), bodies[i]) })
	}
	done.Wait()
	if err := errors.Join(failures...); err != nil {
		return outcome{}, err
	}
	blocks, found := 0, 0
	var waits []time.Duration
	for i, a := range answers {
		blocks += len(requests[i].Blocks)
		found += a.cached / p.work.BlockTokens
		waits = append(waits, a.first)
	}
	slices.Sort(waits)
	last := float64(len(waits) - 1)
	return outcome{float64(found) / float64(blocks), waits[int(0.5*last)], waits[int(0.95*last)]}, nil
}

// settled waits until the picker serves, which needs a snapshot in each worker.
func settled(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	body := []byte(`{"model":"` + workload.Model + `","max_tokens":1,"messages":[{"role":"user","content":"Hello"}]}`)
	for good := 0; good < 20; good++ {
		res, err := post(ctx, client, url, body)
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			good = 0
		}
	}
	return nil
}

func post(ctx context.Context, client *http.Client, url string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("content-type", "application/json")
	return client.Do(req)
}

// answer is a response as the client sees it.
type answer struct {
	first  time.Duration // from the sending of the request to the first event
	cached int           // tokens of the prompt, by the usage
}

func send(ctx context.Context, client *http.Client, url string, body []byte) (a answer, err error) {
	began := time.Now()
	res, err := post(ctx, client, url, body)
	if err != nil {
		return a, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body) // the status shows it already
		return a, fmt.Errorf("%s: %s", res.Status, text)
	}
	lines := bufio.NewScanner(res.Body)
	usage := false
	for lines.Scan() {
		event, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		if a.first == 0 {
			a.first = time.Since(began)
		}
		if !bytes.Contains(event, []byte(`"cached_tokens"`)) {
			continue
		}
		var last struct {
			Usage struct {
				Details struct {
					Cached int `json:"cached_tokens"`
				} `json:"prompt_tokens_details"`
			} `json:"usage"`
		}
		if err := json.Unmarshal(event, &last); err != nil {
			return a, err
		}
		a.cached, usage = last.Usage.Details.Cached, true
	}
	if err := lines.Err(); err != nil {
		return a, err
	}
	if !usage {
		return a, errors.New("a response without usage")
	}
	return a, nil
}
