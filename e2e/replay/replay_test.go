package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// conversations are a trace like that of a chat service: all prompts begin alike,
// and each turn goes on from the one before.
func conversations(n, turns int) []request {
	rng := rand.New(rand.NewPCG(1, 2))
	var all []request
	open := make([][]int, n)
	block := 0
	for i := range n * turns {
		c := rng.IntN(n)
		if len(open[c]) == 0 {
			open[c] = []int{0}
		}
		for range 2 + rng.IntN(8) {
			block++
			open[c] = append(open[c], block)
		}
		blocks := append([]int(nil), open[c]...)
		all = append(all, request{Timestamp: int64(10 * i), Input: 512 * len(blocks), Output: 100, Blocks: blocks})
	}
	return all
}

var small = fleet{replicas: 4, blocks: 100_000, prefill: 16_000, decode: 20 * time.Millisecond, scrape: 500 * time.Millisecond, load: 0.8}

// What the picker is for, held to numbers: it finds nearly all that one infinite
// cache would hold, and all replicas work.
func TestConversationsStayAndWorkIsShared(t *testing.T) {
	requests := conversations(200, 5)
	found, tokens := infinite(requests)
	stretch := tokens / small.prefill / float64(small.replicas) / small.load / (float64(requests[len(requests)-1].Timestamp) / 1000)
	for _, workers := range []int{1, 8} {
		sticky, err := replay(small, requests, stretch, "{profile: sticky}", workers)
		require.NoError(t, err)
		require.Greater(t, sticky.hits, 0.93*found, "%d workers", workers)
		require.Less(t, sticky.imbalance(), 1.1)
		blind, err := replay(small, requests, stretch, "{profile: round-robin}", workers)
		require.NoError(t, err)
		require.Less(t, blind.hits, 0.7*found)
		require.Less(t, 2*sticky.ttft(0.95), blind.ttft(0.95))
	}
}

func TestRun(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace.jsonl")
	require.ErrorContains(t, run(small, trace, nil, 1), "trace.jsonl")
	write := func(text string) { require.NoError(t, os.WriteFile(trace, []byte(text), 0o600)) }
	write("{}\n")
	require.ErrorContains(t, run(small, trace, nil, 1), "holds no trace")
	write("{}\nx\n")
	require.ErrorContains(t, run(small, trace, nil, 1), "line 2")
	var lines []byte
	for _, r := range conversations(10, 2) {
		line, err := json.Marshal(r)
		require.NoError(t, err)
		lines = append(append(lines, line...), '\n')
	}
	write(string(lines))
	require.NoError(t, run(small, trace, []string{"{}"}, 2))
	require.ErrorContains(t, run(small, trace, []string{"{profile: x}"}, 1), "is not one of")
}
