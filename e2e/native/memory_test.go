package native_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// The long run: make soak-memory.
var soakFlag = flag.Int("soak", 50_000, "TestMemory: how many requests are sent")

// mostMB is what the module may add to Envoy's resident memory at rest.
const mostMB = 40

// TestMemory: what the module takes at rest beside an Envoy without it, and that requests leave nothing behind.
func TestMemory(t *testing.T) {
	pools := []stack.Pool{{Name: "llama", Replicas: 2, Args: []string{"--model", "llama-3-8b", "--speed", "0"}}, {Name: "gemma"}}
	plain := stack.ForTest(t, stack.Options{ABI: stack.None, Pools: pools, DefaultPool: "llama"})
	with := stack.ForTest(t, stack.Options{ABI: stack.Module, Pools: pools})
	require.NoError(t, with.WaitForSnapshot(t.Context()))
	without, rest := atRest(t, plain), atRest(t, with)
	t.Logf("resident at rest: %.1f MB, without the module %.1f MB: %.1f MB more", rest, without, rest-without)
	require.LessOrEqual(t, rest-without, float64(mostMB))

	const rounds = 20
	var resident []float64
	for round := range rounds {
		send(t, with, *soakFlag/rounds)
		resident = append(resident, atRest(t, with))
		if round == 0 {
			send(t, plain, 1000) // what Envoy itself takes for the first requests
		}
	}
	t.Logf("resident after each of %d times %d requests: %.1f MB", rounds, *soakFlag/rounds, resident)
	settled := resident[rounds/2:]
	slope, noise := trend(settled)
	served, without := resident[rounds-1], atRest(t, plain)
	t.Logf("growth over the second half: %.2f MB, noise %.2f MB; without the module %.1f MB: %.1f MB more", slope*float64(len(settled)), noise, without, served-without)
	require.LessOrEqual(t, served-without, float64(mostMB), "at rest again")
	require.Less(t, slope*float64(len(settled)), max(3*noise, 1), "resident memory grows with the number of requests")
}

// atRest is the median of samples of the resident memory of an Envoy without requests.
func atRest(t *testing.T, s *stack.Stack) float64 {
	t.Helper()
	var samples []float64
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	for range 25 {
		<-ticks.C
		samples = append(samples, residentMB(t, s.EnvoyPID()))
	}
	return median(samples)
}

// send sends requests with 200 different prompts over kept connections.
func send(t *testing.T, s *stack.Stack, n int) {
	t.Helper()
	const clients, prompts = 8, 200
	var next, failed atomic.Int64
	var all sync.WaitGroup
	var first atomic.Pointer[answer]
	for range clients {
		client := &http.Client{Transport: &http.Transport{}}
		all.Go(func() {
			defer client.CloseIdleConnections()
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				body := strings.Replace(chat("llama"), "Hello", fmt.Sprintf("prompt %d %s", i%prompts, strings.Repeat("of some length ", 60)), 1)
				if a := do(context.WithoutCancel(t.Context()), client, s.URL()+chatPath, body); a.err != nil || a.status != http.StatusOK {
					failed.Add(1)
					first.CompareAndSwap(nil, &a)
				}
			}
		})
	}
	all.Wait()
	require.Zero(t, failed.Load(), "%v", first.Load())
}
