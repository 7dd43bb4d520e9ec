package sim_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/modelsim/sim"
)

// cachedOf returns what a response reports about the prompt's cached tokens: cached/prompt.
func cachedOf(t *testing.T, url string, members ...string) string {
	t.Helper()
	res, answer := post(t, url, "{"+strings.Join(members, ",")+"}")
	require.Equal(t, http.StatusOK, res.StatusCode, answer)
	return res.Header.Get("X-Modelsim-Cached")
}

// What the model reads does not depend on the order of the members.
func TestPromptOrder(t *testing.T) {
	long := strings.Repeat("You are a helpful assistant. ", 40) // 1160 bytes
	for path, members := range map[string][]string{
		"/v1/chat/completions": {`"messages":[{"role":"user","content":"` + long + `"}]`, `"tools":[{"type":"function","function":{"name":"f"}}]`, `"max_tokens":1`},
		"/v1/responses":        {`"input":"Why?"`, `"instructions":"` + long + `"`, `"tools":[{"type":"function","name":"f"}]`},
		"/v1/messages":         {`"max_tokens":1`, `"messages":[{"role":"user","content":"Why?"}]`, `"system":"` + long + `"`, `"tools":[{"name":"f"}]`},
	} {
		server := start(t, sim.Config{})
		url := server.URL() + path
		first := cachedOf(t, url, members...)
		require.True(t, strings.HasPrefix(first, "0/"), first)
		again := cachedOf(t, url, members...)
		require.NotEqual(t, first, again)
		for range members {
			members = append(members[1:], members[0])
			require.Equal(t, again, cachedOf(t, url, members...), path)
		}
		slices.Reverse(members)
		require.Equal(t, again, cachedOf(t, url, members...), path)
		for i := range members {
			members[i] = strings.Replace(members[i], `"f"`, `"g"`, 1)
		}
		require.Equal(t, first, cachedOf(t, url, members...), "%s: the tools come first", path)
	}
}

// A billing block that a client puts before its system prompt is not shown to the model.
func TestBillingBlock(t *testing.T) {
	server := start(t, sim.Config{})
	url := server.URL() + "/v1/messages"
	block := func(text string) string { return `{"type":"text","text":"` + text + `"}` }
	long := strings.Repeat("You are a helpful assistant. ", 40)
	asked := func(system string) string {
		return cachedOf(t, url, `"max_tokens":1`, `"messages":[{"role":"user","content":"Why?"}]`, `"system":`+system)
	}
	const cached = "288/295"
	require.Equal(t, "0/295", asked("["+block("x-anthropic-billing-header: cch=1;")+","+block(long)+"]"))
	require.Equal(t, cached, asked("["+block("x-anthropic-billing-header: cch=2;")+","+block(long)+"]"))
	require.Equal(t, cached, asked(`"`+long+`"`))
	require.Equal(t, cached, asked("["+block(long)+","+block("x-anthropic-billing-header")+"]"))
	require.NotEqual(t, cached, asked(`"x-anthropic-billing-header: cch=3;`+long+`"`))
	require.NotEqual(t, cached, asked("["+block(" x-anthropic-billing-header: cch=3;")+","+block(long)+"]"))

	const header = "x-anthropic-billing-header: cch=4;"
	among := func(message string) string {
		return cachedOf(t, url, `"max_tokens":1`, `"system":"`+long+`"`, `"messages":[`+message+`{"role":"user","content":"Why?"}]`)
	}
	for _, left := range []string{
		"", `{"role":"system","content":"` + header + `"},`, `{"content":"` + header + `","role":"system"},`,
		`{"role":"system","content":[` + block(header) + `]},`, `{"content":[` + block(header) + `],"role":"system"},`, `{"role":"system","content":""},`,
	} {
		require.Equal(t, cached, among(left), "a system message of which nothing is left has no turn: %s", left)
	}
	require.NotEqual(t, cached, among(`{"role":"user","content":"`+header+`"},`))
	nothing := asked(`[]`)
	require.Equal(t, nothing, asked("["+block(header)+"]"))
	require.Equal(t, nothing, asked(`""`))
}

// SGLang separates prompts by a client's key, and knows an adapter by another name.
func TestPartitionsOfSGLang(t *testing.T) {
	sglang := start(t, sim.Config{Dialect: sim.SGLang, Models: []string{"gemma"}, LoRAs: []string{"sql"}})
	vllm := start(t, sim.Config{Models: []string{"gemma"}, LoRAs: []string{"sql"}})
	prompt := `"max_tokens":1,"prompt":"` + strings.Repeat("abcd", 100) + `"`
	const no, yes = "0/100", "96/100"
	for _, c := range []struct{ members, sglang, vllm string }{
		{`"model":"gemma"`, no, no},
		{`"model":"gemma"`, yes, yes},
		{`"model":"gemma","extra_key":"a"`, no, yes},
		{`"model":"gemma","extra_key":["a"]`, yes, yes},
		{`"model":"gemma","extra_key":"b"`, no, yes},
		{`"model":"gemma","extra_key":null,"lora_path":null`, yes, yes},
		{`"model":"gemma","cache_salt":"a"`, no, no}, // not the same as the key
		{`"model":"gemma","cache_salt":"a","extra_key":"a"`, no, yes},
		{`"model":"gemma","lora_path":"sql"`, no, yes},
		{`"model":"gemma:sql"`, yes, yes}, // an unknown name for vLLM; a replica that is not strict takes it as its model
		{`"model":"gemma:sql","lora_path":"poem"`, yes, yes},
		{`"model":"sql"`, yes, no}, // the base under another name for SGLang
	} {
		require.Equal(t, c.sglang, cachedOf(t, sglang.URL()+"/v1/completions", c.members, prompt), "%s", c.members)
		require.Equal(t, c.vllm, cachedOf(t, vllm.URL()+"/v1/completions", c.members, prompt), "%s", c.members)
	}
	res, answer := post(t, sglang.URL()+"/v1/completions", `{"prompt":"a","extra_key":["a","b"]}`)
	require.Equal(t, http.StatusBadRequest, res.StatusCode, answer)
}
