package e2e_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"
)

// ask is one request to `make run`, and what comes back.
type ask struct {
	path, key, body string
	status          int
	code            string // of the error, or the fault's text
}

// TestRunWithQuota runs `make run` with the configurations that have products, in both builds, as their users would.
func TestRunWithQuota(t *testing.T) {
	program := buildProgram(t, "./cmd/inletctl")
	const gemma = `{"model":"gemma","messages":[{"role":"user","content":"hello"}],"max_tokens":4}`
	large := strings.Replace(smallChat, `"max_tokens":4`, `"max_tokens":400`, 1)
	ok := ask{chatPath, "trial-key", smallChat, http.StatusOK, ""}
	for config, asks := range map[string][]ask{
		"envoy/static/inlet-quota.yaml": {
			{chatPath, "", smallChat, http.StatusUnauthorized, "missing_api_key"},
			{chatPath, "other-key", smallChat, http.StatusUnauthorized, "invalid_api_key"},
			{chatPath, "trial-key", large, http.StatusTooManyRequests, "request_exceeds_limit"},
			ok, ok, ok, ok, ok,
			{chatPath, "trial-key", smallChat, http.StatusTooManyRequests, "rate_limit_exceeded"},
			{chatPath, "standard-key", smallChat, http.StatusOK, ""},
			{chatPath, "standard-key", gemma, http.StatusForbidden, "model_not_permitted"},
		},
		"envoy/static/inlet-apigee.yaml": {
			{chatPath, "", smallChat, http.StatusUnauthorized, "Raising fault. Fault name : RF-insufficient-request-raise-fault"},
			{chatPath, "sample-key", smallChat, http.StatusOK, ""},
			{"/v1/completions", "sample-key", `{"model":"/gcs/google/gemma-3-1b-it","prompt":"hello","max_tokens":4}`, http.StatusOK, ""},
			{"/v1/embeddings", "sample-key", `{"model":"llama","input":"hello"}`, http.StatusForbidden, ""},
			{chatPath, "sample-key", strings.Replace(smallChat, `"max_tokens":4`, `"max_tokens":9990`, 1), http.StatusTooManyRequests, "Rate limit quota violation. Quota limit exceeded."},
		},
	} {
		for _, abi := range abis {
			t.Run(config+", "+abi, func(t *testing.T) {
				port := freePort(t)
				cmd, lines, _ := startRun(t, program, port, abi, config)
				waitForMinute(t)
				for i, q := range asks {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", port, q.path), strings.NewReader(q.body))
					require.NoError(t, err)
					req.Header.Set("content-type", "application/json")
					if q.key != "" {
						req.Header.Set("x-api-key", q.key)
					}
					a := do(req)
					require.NoError(t, a.err)
					require.Equal(t, q.status, a.status, "request %d: %s", i+1, a.body)
					switch { // as the README says
					case q.code == "request_exceeds_limit":
						require.Empty(t, a.header.Get("retry-after"))
						require.Equal(t, "false", a.header.Get("x-should-retry"))
					case q.key == "trial-key" && a.status == http.StatusOK:
						require.Equal(t, "5", a.header.Get("x-ratelimit-limit-requests"))
						require.Equal(t, strconv.Itoa(7-i), a.header.Get("x-ratelimit-remaining-requests"))
						require.Equal(t, "300", a.header.Get("x-ratelimit-limit-tokens"))
					}
					told := gjson.GetBytes(a.body, "error.code").Str + gjson.GetBytes(a.body, "fault.faultstring").Str
					require.Contains(t, told, q.code, "request %d: %s", i+1, a.body)
				}
				endRun(t, cmd, lines)
			})
		}
	}
}

// waitForMinute waits for the next minute if this one is over soon: the limits are those of a minute of the clock.
func waitForMinute(t *testing.T) {
	t.Helper()
	eventually(t, "the minute has begun", func() (bool, error) { return time.Now().Second() < 45, nil })
}
