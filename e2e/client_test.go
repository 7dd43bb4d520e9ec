package e2e_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// client keeps connections open, as real clients do.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 30 * time.Second}

// answer is the response that a client got.
type answer struct {
	began  time.Time
	status int
	header http.Header
	body   []byte
	err    error // no response, or not all of it
}

func (a *answer) ok() bool { return a.err == nil && a.status == http.StatusOK }

// do sends a request and reads the whole response.
func do(req *http.Request) answer {
	a := answer{began: time.Now()}
	resp, err := client.Do(req)
	if err != nil {
		a.err = err
		return a
	}
	defer func() { _ = resp.Body.Close() }()
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

// post sends a body to the gateway; headers alternates names and values.
func post(ctx context.Context, s *stack.Stack, path, body string, headers ...string) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+path, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("content-type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return do(req)
}

const (
	chatPath  = "/v1/chat/completions"
	smallChat = `{"model":"llama","messages":[{"role":"user","content":"hello"}],"max_tokens":4}`
)

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, ask func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, poll(ctx, what, ask))
}

// waitForPicks waits until all workers pick replicas: the first requests may arrive
// before the companion's first snapshot.
func waitForPicks(t *testing.T, s *stack.Stack) {
	t.Helper()
	picked := 0
	eventually(t, "every worker picks replicas", func() (bool, error) {
		// New connections, so that all workers get some.
		a := post(t.Context(), s, chatPath, smallChat, "connection", "close")
		if !a.ok() {
			return false, a.err
		}
		if strings.Contains(a.header.Get("x-modelsim-headers"), "x-gateway-destination-endpoint") {
			picked++
		} else {
			picked = 0
		}
		return picked == 50, nil
	})
}
