package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/upstream"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// quotaChain has a key for a product with three limits that are never reached, and one with small limits for the check.
// The companion allocates. Each build has applications of its own. Limits are by the day, so that no counter goes meanwhile.
func quotaChain(abi string) string {
	return document(`quota:
      keys:
        from: [x-api-key]
        list:
          - {name: ` + freeKey + abi + `, sha256: ` + digest(freeKey) + `, products: [free]}
          - {name: ` + smallKey + abi + `, sha256: ` + digest(smallKey) + `, products: [small]}
      products:
        - {name: free, requests: 1000M/day, tokens: {total: 1000M/day, completion: 1000M/day}}
        - {name: small, requests: 1000M/day, tokens: {total: ` + fmt.Sprint(fewTokens) + `/day, completion: 1000M/day}}`)
}

// quotaSpecs are the modes of the quota benchmark.
var quotaSpecs = []spec{
	{name: "none", abi: stack.None},
	{name: "module", abi: stack.Module, chain: quotaChain(stack.Module)},
	{name: "wasm", abi: stack.Wasm, chain: quotaChain(stack.Wasm)},
	{name: "local-ratelimit", abi: stack.None, limiter: "local"},
	{name: "ratelimit-redis", abi: stack.None, limiter: "calls"},
	{name: "ratelimit-redis-tokens", abi: stack.None, limiter: "tokens"},
}

var quotaCases = []chatCase{
	{name: "4k-c1", conns: 1, size: 4 << 10, model: upstream.Model},
	{name: "4k-c16", conns: 16, size: 4 << 10, model: upstream.Model},
}

// runQuota measures what limits cost.
func runQuota(ctx context.Context, o options, f *figures.File) error {
	return runCases(ctx, o, f, quotaSpecs, quotaCases, limitsAreReal)
}

// limitsAreReal checks every mode's limits before the measurement; afterwards it compares the counters with the requests
// that were sent.
func limitsAreReal(ctx context.Context, b *bench) (func() error, error) {
	for _, m := range b.modes {
		if err := b.checkLimit(ctx, m); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		m.sent = 0
	}
	return func() error {
		for _, m := range b.modes {
			if err := b.countedAll(ctx, m); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
		return nil
	}, nil
}

// passing is how many requests with the small key pass in a mode.
func (m *mode) passing() int {
	switch {
	case m.has("quota"):
		return fewTokens / tokensEach // which takes no request that may not fit
	case m.limiter == "tokens":
		return fewTokens/tokensEach + 1 // the last one is charged when it has ended
	}
	return fewCalls
}

// checkLimit sends requests with the small key: as many pass as should, the next one gets 429, and what passed was
// counted, in tokens where the limit is one of tokens.
func (b *bench) checkLimit(ctx context.Context, m *mode) error {
	if m.chain == "" && m.limiter == "" {
		return nil
	}
	for n := range m.passing() + 1 {
		o, err := b.send(ctx, m, http.MethodPost, "/v1/chat/completions", quotaCases[0].body(), map[string]string{"x-api-key": smallKey})
		if err != nil {
			return err
		}
		want := http.StatusOK
		if n == m.passing() {
			want = http.StatusTooManyRequests
		}
		if o.status != want {
			return fmt.Errorf("request %d with the small key: status %d, want %d: %s", n+1, o.status, want, o.body)
		}
		if o.status == http.StatusOK {
			if err := b.waitForCount(ctx, m, smallKey, n+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// countedAll compares a mode's counters with what was sent.
func (b *bench) countedAll(ctx context.Context, m *mode) error {
	return b.waitForCount(ctx, m, freeKey, m.sent)
}

// waitForCount waits until n requests of a key are counted, and their tokens: these are known when the response has gone.
func (b *bench) waitForCount(ctx context.Context, m *mode, key string, n int) error {
	calls, tokens := int64(n), int64(n)*tokensEach
	want := map[string]int64{}
	count := func(name string) (int64, error) { return b.limits.Counted(ctx, "bench_"+name+"_"+key+"_*") }
	switch {
	case m.limiter == "calls":
		want["calls"] = calls
	case m.limiter == "tokens":
		want["token-calls"], want["tokens"] = calls, tokens
	case m.has("quota"):
		want["/requests"], want["/total-tokens"], want["/completion-tokens"] = calls, tokens, calls
		count = func(name string) (int64, error) { return b.shared.Used(ctx, name, "app="+key+m.abi) }
	}
	for name, wanted := range want {
		for end := time.Now().Add(10 * time.Second); ; {
			got, err := count(name)
			if err != nil {
				return err
			}
			if got == wanted {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("%d %s of %s were counted after %d requests, want %d", got, name, key, n, wanted)
			}
			if err := wait(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}
