package quota_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// kept keeps connections open, as real clients do.
var kept = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: patience}

// served are the tokens that the replicas of a stack report in their metrics.
type served struct{ prompt, generated int64 }

func (s served) total() int64 { return s.prompt + s.generated }

func (s served) less(before served) served {
	return served{s.prompt - before.prompt, s.generated - before.generated}
}

func servedBy(ctx context.Context, s *stack.Stack) (sum served, err error) {
	for _, r := range s.Replicas {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL()+"/metrics", nil)
		if err != nil {
			return sum, err
		}
		a, err := send(kept, req)
		if err != nil {
			return sum, err
		}
		m, err := stack.ParseMetrics(a.body)
		if err != nil {
			return sum, err
		}
		sum.prompt += int64(m.Sum("vllm:prompt_tokens_total"))
		sum.generated += int64(m.Sum("vllm:generation_tokens_total"))
	}
	return sum, nil
}

// request is one kind of request: its path and how its body is made from a prompt and a number of tokens.
type request struct{ path, body string }

// kinds are the requests that a replica reports tokens for.
var kinds = []request{
	{chatPath, `{"model":"llama","messages":[{"role":"user","content":"PROMPT"}],"max_tokens":MAX}`},
	{chatPath, `{"model":"llama","messages":[{"role":"user","content":"PROMPT"}],"max_tokens":MAX,"stream":true}`},
	{chatPath, `{"model":"llama","messages":[{"role":"user","content":"PROMPT"}],"max_completion_tokens":MAX,"stream":true,"stream_options":{"include_usage":true}}`},
	{chatPath, `{"model":"llama","messages":[{"role":"user","content":"PROMPT"}]}`},
	{"/v1/completions", `{"model":"llama","prompt":"PROMPT","max_tokens":MAX}`},
	{"/v1/completions", `{"model":"llama","prompt":"PROMPT","max_tokens":MAX,"stream":true}`},
	{"/v1/messages", `{"model":"llama","messages":[{"role":"user","content":"PROMPT"}],"max_tokens":MAX}`},
	{"/v1/messages", `{"model":"llama","messages":[{"role":"user","content":"PROMPT"}],"max_tokens":MAX,"stream":true}`},
	{"/v1/responses", `{"model":"llama","input":"PROMPT","max_output_tokens":MAX}`},
	{"/v1/responses", `{"model":"llama","input":"PROMPT","max_output_tokens":MAX,"stream":true}`},
	{"/v1/embeddings", `{"model":"llama","input":"PROMPT"}`},
}

// random makes a request. Prompts share their beginnings, so that replicas find part of them in their caches.
func random(r *rand.Rand) request {
	k := kinds[r.IntN(len(kinds))]
	return request{k.path, k.with(strings.Repeat("tell me more ", 1+r.IntN(100)), 1+r.IntN(24))}
}

func (k request) with(prompt string, most int) string {
	return strings.NewReplacer("PROMPT", prompt, "MAX", fmt.Sprint(most)).Replace(k.body)
}

// testSoak sends all kinds of requests through both Envoys for a time: what was charged is what the replicas report, to
// the token.
func testSoak(t *testing.T, s *stack.Stack, urls ...string) {
	const clients = 12
	before, err := servedBy(t.Context(), s)
	require.NoError(t, err)
	end := time.Now().Add(*soak)
	counts := make(chan int, clients)
	for n := range clients {
		go func() {
			r := rand.New(rand.NewPCG(uint64(n), 12))
			count := 0
			defer func() { counts <- count }()
			for time.Now().Before(end) {
				q := random(r)
				got, err := post(t.Context(), kept, urls[r.IntN(len(urls))]+q.path, q.body, "x-api-key", keyOf("soak"))
				if err == nil && got.status == http.StatusServiceUnavailable {
					continue // the companion was late
				}
				if err != nil || got.status != http.StatusOK {
					t.Errorf("%s: %v %+v", q.path, err, got)
					return
				}
				count++
			}
		}()
	}
	total := 0
	for range clients {
		total += <-counts
	}
	after, err := servedBy(t.Context(), s)
	require.NoError(t, err)
	want := after.less(before)
	for account, tokens := range map[string]int64{"total-tokens": want.total(), "prompt-tokens": want.prompt, "completion-tokens": want.generated, "requests": int64(total)} {
		settled(t, s, tokens, "free/"+account, "app=soak")
	}
	t.Logf("%d requests in %v: %d tokens charged, %d reported by the replicas", total, *soak, want.total(), want.total())
}
