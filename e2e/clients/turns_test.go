package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// turnsChain tells the client what the picker knew.
const turnsChain = `
filters:
  - bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}
  - picker: {explainHeader: x-inlet-why}
companion: {cluster: inlet-companion}
`

// turns is how long a conversation is.
const turns = 8

// talk is a client's task: conversations of this many turns with one model, one for each instruction, in turn.
type talk struct {
	Model        string   `json:"model"`
	Instructions []string `json:"instructions"`
	Turns        int      `json:"turns"`
}

// said is a client's report about one turn: the response's headers.
type said struct {
	Conversation int
	Turn         int
	Why          string
	Cached       string
	Replica      string
}

// TestConversations has conversations through each official client, whose members have their own order, and checks how
// much of the earlier turns is found again: by Inlet, and in the replicas' caches.
func TestConversations(t *testing.T) {
	in := &clients.Installer{Progress: os.Stderr}
	script := func(install func(context.Context) (*clients.Runtime, error), name string) command {
		runtime, err := install(t.Context())
		require.NoError(t, err)
		return func(ctx context.Context, args ...string) *exec.Cmd { return runtime.Command(ctx, name, args...) }
	}
	languages := map[string]command{
		"Python": script(in.Python, "turns.py"),
		"Node":   script(in.Node, "turns.cjs"),
		"Go":     buildGoClients(t),
	}
	for _, abi := range []string{stack.Wasm, stack.Module} {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Chain: turnsChain, Workers: 1, Progress: os.Stderr,
				Pools: []stack.Pool{{Name: "llama", Replicas: 3, Args: []string{"--model", "llama-3-8b", "--speed", "0"}}},
			})
			require.NoError(t, s.WaitForSnapshot(t.Context()))
			for language, run := range languages {
				t.Run(language, func(t *testing.T) {
					for _, api := range []string{"chat", "responses", "messages"} {
						t.Run(api, func(t *testing.T) {
							converse(t, s, run, api, talk{"llama", []string{instruction(t.Name(), 1), instruction(t.Name(), 2)}, turns})
						})
					}
				})
			}
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

// instruction is a text of 1,500 words that no other conversation has.
func instruction(name string, n int) string {
	var b strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&b, "%s-%d-%d ", name[len(name)-4:], n, i)
	}
	return name + "\n" + b.String()
}

// command makes a process of a client.
type command func(ctx context.Context, args ...string) *exec.Cmd

// buildGoClients builds the program that uses the clients for Go.
func buildGoClients(t *testing.T) command {
	program := filepath.Join(t.TempDir(), "goclients")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	cmd.Dir, cmd.Env = "goclients", append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return func(ctx context.Context, args ...string) *exec.Cmd { return exec.CommandContext(ctx, program, args...) }
}

// converse has the conversations and checks, for each turn from the second on, how much of the turn before is found
// again.
func converse(t *testing.T, s *stack.Stack, run command, api string, what talk) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	task, err := json.Marshal(what)
	require.NoError(t, err)
	cmd := run(ctx, s.URL(), api)
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(task), &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s\n%s", &stdout, &stderr)

	before := make([]said, len(what.Instructions))
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	require.Len(t, lines, what.Turns*len(what.Instructions))
	for i, line := range lines {
		var now said
		require.NoError(t, json.Unmarshal([]byte(line), &now))
		require.Equal(t, i/len(what.Instructions), now.Turn)
		hit, blocks := ratio(t, `hit=(\d+)/(\d+)`, now.Why)
		cached, tokens := ratio(t, `^(\d+)/(\d+)$`, now.Cached)
		require.Greater(t, tokens, 2000, "the instruction is part of the prompt")
		require.Greater(t, blocks, 30)
		if now.Turn > 0 {
			last := before[now.Conversation]
			_, possible := ratio(t, `hit=(\d+)/(\d+)`, last.Why)
			_, computed := ratio(t, `^(\d+)/(\d+)$`, last.Cached)
			require.GreaterOrEqual(t, float64(hit), 0.95*float64(possible), "turn %d: Inlet found %d blocks of %d", now.Turn, hit, possible)
			require.GreaterOrEqual(t, float64(cached), 0.95*float64(computed), "turn %d: the replica found %d tokens of %d", now.Turn, cached, computed)
			require.InDelta(t, cached, hit*64, 256, "turn %d: both count the same", now.Turn)
			require.Equal(t, last.Replica, now.Replica)
		}
		before[now.Conversation] = now
	}
}

// ratio finds two numbers in a text.
func ratio(t *testing.T, pattern, text string) (part, whole int) {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	require.NotNil(t, found, text)
	part, err := strconv.Atoi(found[1])
	require.NoError(t, err)
	whole, err = strconv.Atoi(found[2])
	require.NoError(t, err)
	return part, whole
}
