package scrape

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/modelsim/sim"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// The simulated replica has each engine's metrics from a reading of its own of the engines' sources. Found out by auto and scraped over a
// socket, it says what it does: one request at work, one that waits, a tenth of the cache in use.
func TestAgainstTheSimulator(t *testing.T) {
	small := endpoint.Cache{BlockTokens: 16, Blocks: 10}
	for dialect, want := range map[sim.Dialect]Reading{
		sim.VLLM:        {Gauges: gauges(1, 1, 0.1), Cache: small, LoRA: &endpoint.LoRA{Max: 1, Running: []string{"sql"}, Waiting: []string{"law"}}},
		sim.SGLang:      {Gauges: gauges(1, 1, 0.1), Cache: small},
		sim.TensorRTLLM: {Gauges: gauges(1, 1, 0.1), Cache: small},
		sim.Triton:      {Gauges: gauges(1, 1, 0.1), Cache: small},
		sim.JetStream:   {Gauges: gauges(1, 0, 1)},
	} {
		t.Run(string(dialect), func(t *testing.T) {
			replica := sim.New(sim.Config{
				Models: []string{"m"}, LoRAs: []string{"law", "sql"}, Dialect: dialect, MaxNumSeqs: 1, KVBlocks: 10, BlockSize: 16,
			})
			require.NoError(t, replica.Start("127.0.0.1:0"))
			defer replica.Close()
			s := startPlans(t, nil, map[string]Plan{"p": {Engine: Auto, Models: "/v1/models"}})
			s.SetTargets("p", targets(replica.Addr()))

			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			until := func(wanted func(endpoint.Endpoint) bool) endpoint.Endpoint {
				t.Helper()
				for {
					if e := only(t, s); wanted(e) {
						return e
					}
					select {
					case <-s.Changed():
					case <-ctx.Done():
						require.Fail(t, "not seen", "%+v", only(t, s))
					}
				}
			}
			ask := func(model string) { // and never get an answer: the request ends with the replica
				go func() {
					req, err := http.NewRequest(http.MethodPost, replica.URL()+"/v1/completions", strings.NewReader(`{"model":"`+model+`","prompt":"x"}`))
					if err != nil {
						return
					}
					req.Header.Set(sim.FaultHeader, "hang")
					if resp, err := http.DefaultClient.Do(req); err == nil {
						resp.Body.Close()
					}
				}()
			}
			ask("sql")
			until(func(e endpoint.Endpoint) bool { return e.Gauges.Running == 1 || e.Gauges.KVUse == 1 })
			ask("law")
			e := until(func(e endpoint.Endpoint) bool { return e.Gauges.Waiting == 1 && e.Models != nil })
			require.InDelta(t, want.Gauges.KVUse, e.Gauges.KVUse, 1e-9)
			require.Equal(t, want.Gauges.Running, e.Gauges.Running)
			require.Equal(t, want.Cache, e.Cache)
			require.Equal(t, want.LoRA, e.LoRA)
			require.Equal(t, []string{"m"}, e.Models.Names)
			require.Equal(t, []endpoint.Adapter{{Name: "law", Parent: "m"}, {Name: "sql", Parent: "m"}}, e.Models.Adapters)
		})
	}
}

// What a server tells apart from the obvious: a hybrid model's cache in tokens, requests by priority beside their sum, and sleep.
func TestAgainstTheSimulatorsOddities(t *testing.T) {
	state := func(t *testing.T, cfg sim.Config) (*sim.Server, func(wanted func(endpoint.Endpoint) bool) endpoint.Endpoint) {
		cfg.Models = []string{"m"}
		replica := sim.New(cfg)
		require.NoError(t, replica.Start("127.0.0.1:0"))
		t.Cleanup(func() { replica.Close() })
		s := startPlans(t, nil, map[string]Plan{"p": {Engine: Auto}})
		s.SetTargets("p", targets(replica.Addr()))
		<-s.Tried()
		return replica, func(wanted func(endpoint.Endpoint) bool) endpoint.Endpoint {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for {
				if e := only(t, s); wanted(e) {
					return e
				}
				select {
				case <-s.Changed():
				case <-ctx.Done():
					require.Fail(t, "not seen", "%+v", only(t, s))
				}
			}
		}
	}
	ready := func(e endpoint.Endpoint) bool { return e.Ready }

	t.Run("hybrid", func(t *testing.T) {
		_, until := state(t, sim.Config{Engines: 2, KVBlocks: 1000, BlockSize: 16, HybridBlocks: 20})
		e := until(ready)
		require.Equal(t, endpoint.Cache{BlockTokens: 16, Blocks: 2000}, e.Cache)
		require.NotZero(t, e.Started)
	})
	t.Run("priorities", func(t *testing.T) {
		replica, until := state(t, sim.Config{Dialect: sim.SGLang, PriorityScheduling: true, MaxNumSeqs: 1})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 3 {
			go func() {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, replica.URL()+"/v1/completions", strings.NewReader(`{"model":"m","prompt":"x"}`))
				if err != nil {
					return
				}
				req.Header.Set(sim.FaultHeader, "hang")
				if resp, err := http.DefaultClient.Do(req); err == nil {
					resp.Body.Close()
				}
			}()
		}
		e := until(func(e endpoint.Endpoint) bool { return e.Gauges.Waiting >= 2 })
		require.Equal(t, []int{1, 2}, []int{e.Gauges.Running, e.Gauges.Waiting})
	})
	t.Run("sleep", func(t *testing.T) {
		replica, until := state(t, sim.Config{Engines: 2})
		before := until(ready)
		replica.Sleep(1)
		asleep := until(func(e endpoint.Endpoint) bool { return !e.Ready })
		require.True(t, asleep.Gauges.Known)
		require.NotEqual(t, before.Started, asleep.Started, "what it had is gone")
		replica.WakeUp()
		require.Equal(t, asleep.Started, until(ready).Started)
	})
}

// The ranks of a data-parallel engine add up.
func TestAgainstTheSimulatorsRanks(t *testing.T) {
	for _, dialect := range []sim.Dialect{sim.VLLM, sim.SGLang} {
		replica := sim.New(sim.Config{Models: []string{"m"}, Dialect: dialect, Engines: 4, KVBlocks: 10, BlockSize: 16})
		require.NoError(t, replica.Start("127.0.0.1:0"))
		s := startPlans(t, nil, map[string]Plan{"p": {Engine: string(dialect)}})
		s.SetTargets("p", targets(replica.Addr()))
		<-s.Tried()
		require.Equal(t, endpoint.Cache{BlockTokens: 16, Blocks: 40}, only(t, s).Cache)
		require.True(t, only(t, s).Gauges.Known)
		require.NoError(t, replica.Close())
	}
}
