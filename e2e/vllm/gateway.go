package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// publicModel is the clients' name for the model; also the pool's name.
const publicModel = "llama"

const chain = `
filters:
  - bbr: {models: [{name: ` + publicModel + `, targets: [{model: ` + servedModel + `, pool: ` + publicModel + `}]}]}
  - picker: {profile: sticky, endpoints: 2}
companion: {cluster: inlet-companion}
`

// patience is how long counters and gauges may lag behind the end of a response.
const patience = 20 * time.Second

// gateway is an Envoy with Inlet before the servers.
type gateway struct {
	*stack.Stack
	servers []*server
}

func startGateway(ctx context.Context, abi string, servers []*server, progress io.Writer) (*gateway, error) {
	pool := stack.Pool{Name: publicModel}
	for _, s := range servers {
		pool.Addresses = append(pool.Addresses, s.address)
	}
	s, err := stack.Start(context.WithoutCancel(ctx), stack.Options{ABI: abi, Chain: chain, Pools: []stack.Pool{pool}, Progress: progress})
	if err != nil {
		return nil, err
	}
	g := &gateway{Stack: s, servers: servers}
	if err := s.WaitForSnapshot(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("%w\n%s", err, s.Logs())
	}
	return g, nil
}

// counts are the counters of Inlet and of all servers together.
type counts struct {
	inletRequests, inletUnknown, serverRequests int

	inlet, server tokens // cached: for Inlet, what the picker expected, in its own blocks
	hashed        int    // tokens of prompts that the picker sees: full blocks only
	queried       int    // the same of the servers
}

func (c counts) minus(d counts) counts {
	return counts{
		inletRequests: c.inletRequests - d.inletRequests, inletUnknown: c.inletUnknown - d.inletUnknown,
		serverRequests: c.serverRequests - d.serverRequests,
		inlet:          tokens{c.inlet.input - d.inlet.input, c.inlet.cached - d.inlet.cached, c.inlet.output - d.inlet.output},
		server:         tokens{c.server.input - d.server.input, c.server.cached - d.server.cached, c.server.output - d.server.output},
		hashed:         c.hashed - d.hashed, queried: c.queried - d.queried,
	}
}

// counts reads all counters.
func (g *gateway) counts(ctx context.Context) (counts, error) {
	m, err := g.Metrics(ctx)
	if err != nil {
		return counts{}, err
	}
	c := counts{
		inletRequests: sum(m, "inlet_request_total"),
		inletUnknown:  sum(m, "inlet_usage_unknown_total"),
		inlet: tokens{
			input:  sum(m, "inlet_input_tokens_total"),
			cached: sum(m, "inlet_prefix_indexer_hit_tokens_total"),
			output: sum(m, "inlet_output_tokens_total"),
		},
		hashed: sum(m, "inlet_prefix_indexer_prompt_tokens_total"),
	}
	for _, s := range g.servers {
		m, err := s.metrics(ctx)
		if err != nil {
			return counts{}, err
		}
		c.serverRequests += sum(m, "vllm:request_success_total")
		c.server = c.server.plus(tokens{
			input:  sum(m, "vllm:prompt_tokens_total"),
			cached: sum(m, "vllm:prefix_cache_hits_total"),
			output: sum(m, "vllm:generation_tokens_total"),
		})
		c.queried += sum(m, "vllm:prefix_cache_queries_total")
	}
	return c, nil
}

func sum(m stack.Metrics, name string) int { return int(math.Round(m.Sum(name))) }

// since is the increase after before, once n requests have been counted everywhere.
func (g *gateway) since(ctx context.Context, before counts, n int) (d counts, err error) {
	counted := false
	err = eventually(ctx, func() (bool, error) {
		now, err := g.counts(ctx)
		d = now.minus(before)
		// From the scrape before this one: a scrape may see a request before its tokens are counted.
		done := counted
		counted = d.inletRequests >= n && d.serverRequests >= n
		return done, err
	})
	if err != nil {
		err = fmt.Errorf("%d requests were answered; Inlet has counted %d and vLLM %d: %w", n, d.inletRequests, d.serverRequests, err)
	}
	return d, err
}

// eventually polls ok until it is true, it fails, or the patience is over.
func eventually(ctx context.Context, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
