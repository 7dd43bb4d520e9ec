package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// snapshot is what is looked at of the companion's snapshot for people.
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

// companion compares what the companion tells the proxies about each server with what the server says. Nothing is under way meanwhile.
func (c *checks) companion(ctx context.Context) error {
	page, err := fetch(ctx, c.Companion.URL()+"/v1/snapshot.json")
	if err != nil {
		return err
	}
	var told snapshot
	if err := json.Unmarshal(page, &told); err != nil {
		return fmt.Errorf("%w in %s", err, page)
	}
	for _, s := range c.servers {
		m, err := s.metrics(ctx)
		if err != nil {
			return err
		}
		size, err := cacheTokens(m)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		e := told.endpoint(s.address)
		c.say(e.Ready && e.Gauges != nil && e.Gauges.Waiting == 0 && e.Gauges.Running == 0 && len(e.Models) == 1 && e.Models[0] == servedModel && e.Cache.BlockTokens*e.Cache.Blocks == size,
			"%s: vLLM has a cache of %d tokens; the companion tells %s", s.name, size, mustJSON(e))
	}
	return nil
}

// endpoint is what is told of an address; nothing, if it is not there.
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

// cacheTokens is the size of the KV cache, which vLLM tells as a label.
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
