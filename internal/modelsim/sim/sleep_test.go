package sim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/modelsim/sim"
)

// A sleeping replica is healthy and idle by its gauges; requests wait, and find an empty cache when it is awake.
func TestSleep(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"m"}, Engines: 2, KVBlocks: 100})
	get := func(method, path string) (int, string) {
		t.Helper()
		res, body, err := call(t, method, server.URL()+path, "", "")
		require.NoError(t, err)
		return res.StatusCode, body
	}
	sample := func(series string) (value float64) {
		t.Helper()
		_, text := get(http.MethodGet, "/metrics")
		_, rest, found := strings.Cut(text, "\n"+series+" ")
		require.True(t, found, series)
		_, err := fmt.Sscan(rest, &value)
		require.NoError(t, err)
		return value
	}
	state := func(name string) (engines [2]float64) {
		t.Helper()
		for i := range engines {
			engines[i] = sample(fmt.Sprintf(`vllm:engine_sleep_state{engine="%d",model_name="m",sleep_state=%q}`, i, name))
		}
		return engines
	}
	const body = `{"model":"m","max_tokens":1,"prompt":"0123456789012345678901234567890123456789012345678901234567890123456789"}`
	for range 2 { // one for each engine
		post(t, server.URL()+"/v1/completions", body)
	}
	require.Equal(t, [2]float64{1, 1}, state("awake"))
	for _, level := range []string{"1", "2", "0"} {
		status, _ := get(http.MethodPost, "/sleep?level="+level)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, [2]float64{0, 0}, state("awake"))
		require.Equal(t, level == "1", state("weights_offloaded") == [2]float64{1, 1})
		require.Equal(t, level == "2", state("discard_all") == [2]float64{1, 1})
	}
	_, text := get(http.MethodGet, "/is_sleeping")
	require.JSONEq(t, `{"is_sleeping":true}`, text)
	status, _ := get(http.MethodGet, "/health")
	require.Equal(t, http.StatusOK, status)

	answered := make(chan error, 1)
	go func() {
		_, _, err := call(t, http.MethodPost, server.URL()+"/v1/completions", body, "")
		answered <- err
	}()
	require.Zero(t, sample(`vllm:num_requests_waiting{engine="0",model_name="m"}`)+sample(`vllm:num_requests_running{engine="1",model_name="m"}`))
	require.Empty(t, answered)
	status, _ = get(http.MethodPost, "/wake_up")
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, <-answered)
	require.Equal(t, [2]float64{1, 1}, state("awake"))
	for _, engine := range []string{"0", "1"} {
		require.Zero(t, sample(`vllm:prefix_cache_hits_total{engine="`+engine+`",model_name="m"}`))
	}

	for path, want := range map[string]int{"/sleep?level=3": http.StatusBadRequest, "/sleep?level=x": http.StatusBadRequest} {
		status, _ = get(http.MethodPost, path)
		require.Equal(t, want, status, path)
	}
	status, _ = get(http.MethodGet, "/sleep")
	require.Equal(t, http.StatusMethodNotAllowed, status)
	_, text = get(http.MethodGet, "/is_sleeping")
	require.JSONEq(t, `{"is_sleeping":false}`, text)
	status, _ = get(http.MethodPost, "/wake_up")
	require.Equal(t, http.StatusOK, status, "it is awake")
}

func TestPriorityScheduling(t *testing.T) {
	server := start(t, sim.Config{Models: []string{"m"}, Dialect: sim.SGLang, PriorityScheduling: true})
	got := scrape(t, server)
	for _, priority := range []string{"", "0"} {
		require.Contains(t, got, "sglang:num_queue_reqs{engine_type=unified,model_name=m,pp_rank=0,priority="+priority+",tp_rank=0}")
		require.Contains(t, got, "sglang:num_running_reqs{engine_type=unified,model_name=m,pp_rank=0,priority="+priority+",tp_rank=0}")
	}
}
