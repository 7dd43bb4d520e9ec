package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// patience is how long one client may take for all of its checks.
const patience = time.Minute

// prompt is what the scripts send, and what the replicas respond with.
const prompt = `Say "model":"llama-3-8b", please: é, 語, 🦙`

// found is what a client must find without API keys, and with API keys and screened
// prompts.
type found struct{ open, guarded []string }

// openAI is what every client of OpenAI must find, whatever its language.
var openAI = found{
	open: []string{
		`{"check": "chat llama", "sent": "llama-3-8b", "model": "llama", "text": PROMPT, "total": 0}`,
		`{"check": "chat gemma", "sent": "gemma", "model": "gemma", "text": PROMPT, "total": 0}`,
		`{"check": "stream llama", "models": ["llama"], "text": PROMPT, "total": 0}`,
		`{"check": "stream gemma-support", "models": ["gemma-support"], "text": PROMPT, "total": 0}`,
		`{"check": "embedding llama", "model": "llama", "vectors": 2}`,
		`{"check": "response llama", "model": "llama", "text": PROMPT}`,
		`{"check": "response stream llama", "model": "llama", "text": PROMPT}`,
		`{"check": "transcription llama", "bytes": true, "file": true, "sent": true}`,
		`{"check": "models", "ids": ["llama", "gemma", "gemma-support"], "owners": ["inlet"]}`,
		`{"check": "one model", "id": "gemma-support", "object": "model", "parent": "gemma"}`,
		`{"check": "unknown model", "error": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}`,
		`{"check": "unknown model, stream", "error": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}`,
		`{"check": "no such model", "error": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}`,
		`{"check": "no model", "error": "BadRequestError", "status": 400, "code": "invalid_model", "param": "model"}`,
	},
	guarded: []string{
		`{"check": "chat llama", "sent": "llama-3-8b", "model": "llama", "text": PROMPT, "total": 0}`,
		`{"check": "wrong key", "error": "AuthenticationError", "status": 401, "code": "invalid_api_key", "param": null}`,
		`{"check": "wrong key, models", "error": "AuthenticationError", "status": 401, "code": "invalid_api_key", "param": null}`,
		`{"check": "blocked prompt", "error": "BadRequestError", "status": 400, "code": "content_policy_violation", "param": null}`,
	},
}

// anthropic is what the client of Anthropic must find.
var anthropic = found{
	open: []string{
		`{"check": "message llama", "sent": "llama-3-8b", "model": "llama", "text": PROMPT, "counted": true}`,
		`{"check": "message gemma", "sent": "gemma", "model": "gemma", "text": PROMPT, "counted": true}`,
		`{"check": "stream llama", "model": "llama", "text": PROMPT, "counted": true}`,
		`{"check": "stream gemma-support", "model": "gemma-support", "text": PROMPT, "counted": true}`,
		`{"check": "unknown model", "error": "NotFoundError", "status": 404, "type": "not_found_error"}`,
		`{"check": "unknown model, stream", "error": "NotFoundError", "status": 404, "type": "not_found_error"}`,
		`{"check": "no model", "error": "BadRequestError", "status": 400, "type": "invalid_request_error"}`,
	},
	guarded: []string{
		`{"check": "message llama", "sent": "llama-3-8b", "model": "llama", "text": PROMPT, "counted": true}`,
		`{"check": "wrong key", "error": "AuthenticationError", "status": 401, "type": "authentication_error"}`,
		`{"check": "blocked prompt", "error": "BadRequestError", "status": 400, "type": "invalid_request_error"}`,
	},
}

// TestClients runs the clients, as their users have them, against both builds: the configuration of `make run`, and the
// shipped configuration with API keys, unchanged.
func TestClients(t *testing.T) {
	in := &clients.Installer{Progress: os.Stderr}
	for _, abi := range []string{stack.Wasm, stack.Module} {
		for kind, document := range map[string]string{"open": "", "guarded": withKeys(t)} {
			t.Run(abi+", "+kind, func(t *testing.T) {
				s := stack.ForTest(t, stack.Options{ABI: abi, Pools: echoing(), Chain: document, Progress: os.Stderr})
				t.Run("OpenAI, Python", func(t *testing.T) { check(t, s, in.Python, "openai_client.py", kind, openAI) })
				t.Run("OpenAI, Node", func(t *testing.T) { check(t, s, in.Node, "openai_client.cjs", kind, openAI) })
				t.Run("Anthropic, Python", func(t *testing.T) { check(t, s, in.Python, "anthropic_client.py", kind, anthropic) })
				noneAborted(t, s)
				require.Empty(t, s.EnvoyErrors())
			})
		}
	}
}

// noneAborted: a client that has read a response to its last event has it, although OpenAI's clients then close the
// connection.
func noneAborted(t *testing.T, s *stack.Stack) {
	t.Helper()
	var m stack.Metrics
	require.Eventually(t, func() bool {
		var err error
		m, err = s.Metrics(t.Context())
		return err == nil && m.Sum("inlet_in_flight_requests") == 0
	}, 20*time.Second, 10*time.Millisecond)
	require.Zero(t, m.Sum("inlet_request_total", "outcome", "aborted"))
	require.Positive(t, m.Sum("inlet_request_total", "outcome", "ok"))
}

// echoing are the pools of the shipped configuration, with replicas that respond at
// once with the prompt.
func echoing() []stack.Pool {
	pools := stack.DefaultPools()
	for i := range pools {
		pools[i].Args = append(pools[i].Args, "--speed", "0", "--echo")
	}
	return pools
}

// withKeys is the shipped configuration with API keys.
func withKeys(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../envoy/static/inlet-keys.yaml")
	require.NoError(t, err)
	return string(text)
}

// check runs a script and compares what it finds, line by line.
func check(t *testing.T, s *stack.Stack, install func(context.Context) (*clients.Runtime, error), script, kind string, all found) {
	t.Helper()
	want := all.open
	if kind == "guarded" {
		want = all.guarded
	}
	installing, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	with, err := install(installing)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := with.Command(ctx, script, s.URL(), kind)
	cmd.Env = append(cmd.Env, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	require.NoError(t, err, "%s\n%s", stdout.String(), stderr.String())

	found := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	require.Len(t, found, len(want), stdout.String())
	quoted, err := json.Marshal(prompt)
	require.NoError(t, err)
	for i := range want {
		require.JSONEq(t, strings.ReplaceAll(want[i], "PROMPT", string(quoted)), found[i])
	}
}
