package native_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/process"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestHotRestart: a new Envoy takes over under load, with streams in flight. No request fails, all streams end well, the
// new one knows the prompts of the old one from the companion, and the old one exits with 0.
func TestHotRestart(t *testing.T) {
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, HotRestart: true, Port: freePort(t), Drain: 4 * time.Second, ParentShutdown: 15 * time.Second,
		Chain: `{filters: [{bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}}, {picker: {explainHeader: x-why}}], companion: {cluster: inlet-companion}}`,
		Pools: []stack.Pool{{Name: "llama", Replicas: 2, Args: []string{"--token-time", "50ms"}}},
	})
	require.NoError(t, s.WaitForSnapshot(t.Context()))
	long := strings.Replace(chat("llama"), "Hello", strings.Repeat("a long prompt that begins alike ", 100), 1)
	require.Equal(t, http.StatusOK, ask(t, s.URL()+chatPath, long).status)

	const streams = 8
	ended := make(chan string, streams)
	var begun []<-chan struct{}
	for range streams {
		first := make(chan struct{})
		begun = append(begun, first)
		go func() { ended <- stream(t.Context(), s.URL()+chatPath, first) }()
	}
	for _, first := range begun {
		<-first
	}
	stop := load(t, s, false)
	old, err := s.StartNext(context.WithoutCancel(t.Context()))
	require.NoError(t, err)
	require.Empty(t, ended, "all streams are open when the new Envoy serves")
	eventually(t, "the new Envoy has the index", func() bool {
		m, err := s.Metrics(t.Context())
		return err == nil && m.Sum("inlet_prefix_indexer_size") > 0
	})
	for range streams {
		require.Equal(t, "", <-ended, "streams that began before the restart")
	}
	eventually(t, "a request with the prompt reaches the new Envoy, which has never seen it", func() bool {
		a := do(t.Context(), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, s.URL()+chatPath, long)
		require.Equal(t, http.StatusOK, a.status, a)
		require.NotContains(t, a.header.Get("x-why"), "hit=0/", a)
		require.Contains(t, a.header.Get("x-why"), "hit=", a)
		m, err := s.Metrics(t.Context())
		return err == nil && m.Sum("inlet_request_total") > 0
	})
	<-old.Done()
	require.NoError(t, old.Err(), "the old Envoy exits with 0")
	require.NoError(t, stop(), "no request failed")
	require.Equal(t, http.StatusOK, ask(t, s.URL()+chatPath, chat("llama")).status)
	require.NoError(t, s.EndEnvoy(patience))
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := process.FreePort()
	require.NoError(t, err)
	return port
}

// stream reads a stream of ten seconds to its end; "" if it was whole.
func stream(ctx context.Context, url string, first chan<- struct{}) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body := `{"model":"llama","stream":true,"max_tokens":200,"messages":[{"role":"user","content":"Tell me a story"}]}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	req.Header.Set("content-type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		close(first)
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	close(first)
	last, lines := "", bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if text := lines.Text(); text != "" {
			last = text
		}
	}
	switch {
	case lines.Err() != nil:
		return lines.Err().Error()
	case resp.StatusCode != http.StatusOK:
		return resp.Status
	case last != "data: [DONE]":
		return "the last line is " + last
	}
	return ""
}
