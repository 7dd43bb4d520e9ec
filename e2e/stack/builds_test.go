package stack_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestBothBuildsHaveTheSameMetrics sends the same requests through both and compares two scrapes: names, labels, and the
// values of request counters.
func TestBothBuildsHaveTheSameMetrics(t *testing.T) {
	scrape := func(abi string) (series []string, requests map[string]float64) {
		s := stack.ForTest(t, stack.Options{ABI: abi, Workers: 1, Alone: true, Pools: []stack.Pool{
			{Name: "llama", Replicas: 1, Args: []string{"--model", "llama-3-8b", "--speed", "0"}},
			{Name: "gemma", Replicas: 1, Args: []string{"--model", "gemma", "--speed", "0"}},
		}})
		require.NoError(t, s.WaitForSnapshot(t.Context()))
		ask := func(model string) (requestID string) {
			resp, err := client.Post(s.URL()+"/v1/chat/completions", "application/json",
				strings.NewReader(`{"model":"`+model+`","messages":[{"role":"user","content":"hello"}],"max_tokens":2}`))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, model == "nobody", resp.StatusCode == http.StatusNotFound)
			return resp.Header.Get("x-request-id")
		}
		require.Eventually(t, func() bool { // a wasm worker gets the snapshot at its next tick
			a, err := s.Access(t.Context(), ask("llama"))
			require.NoError(t, err)
			return a.Picked != ""
		}, 10*time.Second, 10*time.Millisecond)
		for _, model := range []string{"gemma", "gemma", "nobody"} {
			ask(model)
		}
		require.Eventually(t, func() bool { // histograms appear when Envoy has merged those of its workers
			m, err := s.Metrics(t.Context())
			require.NoError(t, err)
			return m.Sum("inlet_request_duration_ms_count", "pool", "gemma") == 2
		}, 20*time.Second, 50*time.Millisecond)
		m, err := s.Metrics(t.Context())
		require.NoError(t, err)
		requests = map[string]float64{}
		for _, sample := range m {
			if !strings.HasPrefix(sample.Name, "inlet_") || sample.Labels["le"] != "" ||
				sample.Name == "inlet_filter_failure_total" || sample.Labels["model_name"] == "llama" || // the first requests
				sample.Name == "inlet_configurations" || sample.Name == "inlet_companion_pollers" { // the module's alone
				continue
			}
			name := sample.Name + " " + strings.Join(slices.Sorted(maps.Keys(sample.Labels)), ",")
			if !slices.Contains(series, name) {
				series = append(series, name)
			}
			if sample.Name == "inlet_request_total" {
				requests[sample.Labels["model_name"]+"/"+sample.Labels["pool"]+"/"+sample.Labels["outcome"]] = sample.Value
			}
		}
		slices.Sort(series)
		return series, requests
	}
	wasm, counted := scrape(stack.Wasm)
	module, countedToo := scrape(stack.Module)
	require.Equal(t, wasm, module)
	require.Equal(t, counted, countedToo)
	require.Contains(t, wasm, "inlet_request_total model_name,outcome,pool")
	require.InDelta(t, 2, counted["gemma/gemma/ok"], 0)
}
