package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/replay/workload"
)

// A given trace is replayed to all fleets; there are figures for each case and mode.
func TestATraceOfOnesOwn(t *testing.T) {
	dir := t.TempDir()
	trace := filepath.Join(dir, "mine.csv")
	text := "TIMESTAMP,ContextTokens,GeneratedTokens\n" + strings.Repeat("2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n", 20)
	require.NoError(t, os.WriteFile(trace, []byte(text), 0o600))
	o := options{trace: trace, blocks: 100, load: 0.8, only: regexp.MustCompile("8r|64r-16p"), jobs: 2, out: filepath.Join(dir, "routing.jsonl"), pictures: dir}
	require.NoError(t, run(context.Background(), o))
	out, err := os.ReadFile(o.out)
	require.NoError(t, err)
	cases, metrics, told := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(out)) {
		var c figures.Cell
		require.NoError(t, json.Unmarshal([]byte(line), &c))
		require.Equal(t, "routing", c.Bench)
		cases[c.Case], metrics[c.Metric], told[c.Mode] = true, true, true
	}
	require.Equal(t, map[string]bool{"mine-8r-1p": true, "mine-8r-4p": true, "mine-8r-16p": true, "mine-64r-16p": true}, cases)
	require.Len(t, metrics, 8)
	require.Len(t, told, len(modes)+1)

	for _, picture := range []string{"routing-ttft-mine.png", "routing-ttft-mine.svg"} {
		require.FileExists(t, filepath.Join(dir, picture))
	}

	o.only = regexp.MustCompile("none")
	require.ErrorContains(t, run(context.Background(), o), "no case and mode matches")
	o.trace = filepath.Join(dir, "none.csv")
	require.ErrorIs(t, run(context.Background(), o), os.ErrNotExist)
}

// The simulation may differ a little, but not more.
func TestCompare(t *testing.T) {
	simulated := outcome{hits: 0.30, p95: 2 * time.Second}
	for _, c := range []struct {
		real outcome
		want string
	}{
		{outcome{hits: 0.319, p95: 2200 * time.Millisecond}, ""},
		{outcome{hits: 0.281, p95: 1800 * time.Millisecond}, ""},
		{outcome{hits: 0.33, p95: 2 * time.Second}, "hit ratio"},
		{outcome{hits: 0.27, p95: 2 * time.Second}, "hit ratio"},
		{outcome{hits: 0.30, p95: 2400 * time.Millisecond}, "TTFT p95"},
		{outcome{hits: 0.30, p95: 1600 * time.Millisecond}, "TTFT p95"},
	} {
		err := compare(simulated, c.real)
		if c.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.want)
		}
	}
}

// The picker gets and accepts the other weights.
func TestSensitivity(t *testing.T) {
	o := options{only: regexp.MustCompile("sharegpt-like-50%"), jobs: 2, out: filepath.Join(t.TempDir(), "routing.jsonl"), sensitivity: true}
	require.NoError(t, run(context.Background(), o))
	out, err := os.ReadFile(filepath.Join(filepath.Dir(o.out), "routing-sensitivity.jsonl"))
	require.NoError(t, err)
	require.Contains(t, string(out), `"bench":"routing-sensitivity","case":"sharegpt-like-50%","mode":"weight-64","metric":"ttft_p95_ms"`)
}

// Without -full there are some of the cases, which include each size of a fleet and each number of proxies; with it, or
// for a given trace, all.
func TestIncludes(t *testing.T) {
	mooncake, azure := &workload.Workload{Name: workload.Mooncake}, &workload.Workload{Name: workload.Azure}
	fleets, proxies := map[int]bool{}, map[int]bool{}
	for _, r := range []int{8, 64, 512, 2000} {
		for _, p := range []int{1, 4, 16} {
			if (options{}).includes(mooncake, r, p) {
				fleets[r], proxies[p] = true, true
			}
			require.Equal(t, r == 8, options{}.includes(azure, r, p))
			require.Equal(t, r <= 64 && p <= 4, options{quick: true}.includes(azure, r, p))
			require.True(t, options{full: true}.includes(azure, r, p))
			require.True(t, options{trace: "mine.csv"}.includes(azure, r, p))
		}
	}
	require.Len(t, fleets, 4)
	require.Len(t, proxies, 3)
}

// The cases of the quick run have the names that documents refer to.
func TestCases(t *testing.T) {
	all, err := casesOf(options{blocks: 10_000, load: 0.8, quick: true, only: regexp.MustCompile("")})
	require.NoError(t, err)
	var names []string
	for _, p := range all {
		names = append(names, p.name)
	}
	require.Subset(t, names, []string{
		"mooncake_conversation_trace-8r-1p", "mooncake_conversation_trace-64r-4p", "azure_llm_inference_trace_conv-8r-4p",
		"sharegpt-like-10r", "sharegpt-like-10r-300qps", "bursty-chat", "agentic",
	})
}
