package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// snapshot is the part of the companion's snapshot for people that is checked.
type snapshot struct {
	Pools []struct {
		Endpoints []endpoint `json:"endpoints"`
	} `json:"pools"`
}

type endpoint struct {
	Address string   `json:"address"`
	Ready   bool     `json:"ready"`
	Models  []string `json:"models"`
	Gauges  *struct {
		Waiting int `json:"waiting"`
		Running int `json:"running"`
	} `json:"gauges"`
	Cache struct {
		BlockTokens int `json:"blockTokens"`
		Blocks      int `json:"blocks"`
	} `json:"cache"`
}

// companion compares what the companion reports to the proxies about each server with what the server says, once no
// request is in progress any more.
func (c *checks) companion(ctx context.Context) error {
	for _, s := range c.servers {
		m, err := s.metrics(ctx)
		if err != nil {
			return err
		}
		size, err := cacheTokens(m)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		var e endpoint
		err = eventually(ctx, func() (bool, error) {
			told, err := c.snapshot(ctx)
			e = told.endpoint(s.address)
			return e.idle(), err
		})
		if err != nil && ctx.Err() != nil {
			return err
		}
		c.say(err == nil && slices.Equal(e.Models, []string{servedModel}) && e.Cache.BlockTokens*e.Cache.Blocks == size,
			"%s has a cache of %d tokens and is idle; the companion reports %s", s.name, size, mustJSON(e))
	}
	return nil
}

// snapshot asks the companion.
func (c *checks) snapshot(ctx context.Context) (*snapshot, error) {
	told := &snapshot{}
	page, err := fetch(ctx, c.Companion.URL()+"/v1/snapshot.json")
	if err != nil {
		return told, err
	}
	if err := json.Unmarshal(page, told); err != nil {
		return told, fmt.Errorf("%w in %s", err, page)
	}
	return told, nil
}

func (e *endpoint) idle() bool {
	return e.Ready && e.Gauges != nil && e.Gauges.Waiting == 0 && e.Gauges.Running == 0
}

// endpoint is what is reported about an address; empty if it is not there.
func (s *snapshot) endpoint(address string) endpoint {
	for _, p := range s.Pools {
		for _, e := range p.Endpoints {
			if e.Address == address {
				return e
			}
		}
	}
	return endpoint{}
}

// cacheTokens is the size of the KV cache, which vLLM reports as a label.
func cacheTokens(m stack.Metrics) (int, error) {
	for _, sample := range m {
		if sample.Name == "vllm:cache_config_info" {
			return strconv.Atoi(sample.Labels["kv_cache_size_tokens"])
		}
	}
	return 0, fmt.Errorf("no vllm:cache_config_info among the metrics")
}

func mustJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}
