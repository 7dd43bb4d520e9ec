package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/upstream"
)

// TestRun runs one short cell, so that the benchmark works when it is needed.
func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "envoy.jsonl")
	require.NoError(t, run(t.Context(), options{
		duration: 100 * time.Millisecond, repeat: 1, modes: "module", cases: "chat-4k-c1", out: out,
	}))
	f, err := os.Open(out)
	require.NoError(t, err)
	defer f.Close()
	values := map[string]float64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var c figures.Cell
		require.NoError(t, json.Unmarshal(lines.Bytes(), &c))
		require.Equal(t, "envoy", c.Bench)
		require.Contains(t, []string{"chat-4k-c1", "idle-8r", "machine"}, c.Case)
		if c.Case == "chat-4k-c1" {
			values[c.Mode+" "+c.Metric] = c.Value
		}
	}
	for _, mode := range []string{"none", "module"} {
		for _, metric := range []string{"rps", "p50_us", "p99_us", "envoy_rss_mb"} {
			require.Positive(t, values[mode+" "+metric], "%s of %s", metric, mode)
		}
		require.Contains(t, values, mode+" total_cpu_us")
	}
	require.Contains(t, values, "module added_p50_us")
	require.Greater(t, values["module total_rss_mb"], values["module envoy_rss_mb"], "with the companion")
}

// TestRunQuota runs what needs no other program than Inlet: the check of the limits, one short cell, and the counters.
func TestRunQuota(t *testing.T) {
	out := filepath.Join(t.TempDir(), "quota.jsonl")
	require.NoError(t, run(t.Context(), options{
		duration: 100 * time.Millisecond, repeat: 1, modes: "module,local-ratelimit", cases: "4k-c1", out: out, quota: true,
	}))
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	for _, mode := range []string{"none", "module", "local-ratelimit"} {
		require.Contains(t, string(text), `{"bench":"quota","case":"4k-c1","mode":"`+mode+`","metric":"added_p50_us"`)
	}
}

// TestRunScreened runs one short turn of the screened stream.
func TestRunScreened(t *testing.T) {
	out := filepath.Join(t.TempDir(), "envoy.jsonl")
	require.NoError(t, run(t.Context(), options{repeat: 1, modes: "screen-module", cases: screened.name, out: out}))
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	for _, mode := range []string{"none", "screen-module"} {
		for _, metric := range []string{"event_p50_us", "added_event_p99_us", "added_first_event_us"} {
			require.Contains(t, string(text), `"mode":"`+mode+`","metric":"`+metric+`"`)
		}
	}
}

func TestReadTrace(t *testing.T) {
	module := `[2026-11-25 20:21:16.526][1][info][main] started
gc 1 @0.041s 1%: 0.010+1.5+0.020 ms clock, 0.020+0.30/1.2/0.5+0.040 ms cpu, 4->4->1 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P
`
	require.InDeltaSlice(t, []float64{330}, readTrace(module, false), 0.01)

	piece := func(thread, text string) string {
		return "[2026-11-25 20:21:16.526][" + thread + "][error][wasm] [source/extensions/common/wasm/context.cc:1157] wasm log inlet: " + text + "\n"
	}
	wasm := piece("7", "gc ") + piece("7", "2") + piece("8", "gc ") + piece("7", " @24.196s 0%: 0.018+1174+0.026 ms clock, 0.018+0.52/0.1") +
		piece("8", "1 @2s 0%: 0.1+3+0.2 ms clock, 0.1+0.3/0/0+0.2 ms cpu, 4->4->1 MB, 1 P") + piece("7", "/0.03+0.026 ms cpu, 32->34->33 MB, 1 P")
	require.ElementsMatch(t, []int{694, 600}, rounded(readTrace(wasm, true)))
	require.Empty(t, readTrace(piece("7", "gc ")+piece("7", "2"), true), "cut off")
}

func rounded(values []float64) (whole []int) {
	for _, v := range values {
		whole = append(whole, int(v+0.5))
	}
	return whole
}

func TestJudge(t *testing.T) {
	const replica = "127.0.0.1:8000"
	c := &cases[0]
	full, peers := mode{spec: spec{chain: fullChain}}, mode{spec: spec{peers: []string{"bbr", "epp"}}}
	for _, tc := range []struct {
		name    string
		mode    *mode
		headers map[string]string // that arrive
		fault   string
	}{
		{"full chain", &full, map[string]string{destination: replica + ",b:1,c:1", "x-gateway-model-name": c.model, "x-gateway-inference-pool": pool}, ""},
		{"full chain without a model", &full, map[string]string{destination: replica + ",b:1,c:1", "x-gateway-inference-pool": pool}, "routing by the body"},
		{"extension", &peers, map[string]string{destination: replica, "x-gateway-model-name": c.model, "x-api-key": key}, ""},
		{"extension without a model", &peers, map[string]string{destination: replica, "x-api-key": key}, "body-based router"},
		{"extension, served by another", &peers, map[string]string{destination: "b:1", "x-gateway-model-name": c.model, "x-api-key": key}, "served"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := http.Header{}
			for name, value := range tc.headers {
				h.Set(name, value)
			}
			err := tc.mode.judge(c, c.body(), &outcome{http.StatusOK, nil, []byte(upstream.Completion), &upstream.Arrived{Address: replica, Header: h, Body: c.body()}})
			if tc.fault == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.fault)
			}
		})
	}
}
