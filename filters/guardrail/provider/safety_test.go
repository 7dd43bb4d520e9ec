package provider

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSafetyModelRequest(t *testing.T) {
	p := of(t, "safetyModel", `{model: llama-guard}`)
	for _, c := range []struct {
		q        Question
		messages string
	}{
		{Question{Text: []byte("hi"), Role: "system"}, `[{"role":"user","content":"hi"}]`},
		{Question{Text: []byte("hi"), Response: true, Prompt: []byte("ho")}, `[{"role":"user","content":"ho"},{"role":"assistant","content":"hi"}]`},
		{Question{Text: []byte("hi"), Response: true}, `[{"role":"user","content":""},{"role":"assistant","content":"hi"}]`},
	} {
		r := p.Ask(&c.q)
		require.Equal(t, "/v1/chat/completions", r.Path)
		require.Equal(t, `{"model":"llama-guard","messages":`+c.messages+`,"temperature":0,"max_tokens":64,"stream":false}`, string(r.Body))
	}
}

// said is a completion with a text.
func said(text string) string {
	content, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return `{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":` + string(content) + `,"tool_calls":null},"finish_reason":"stop"}],"usage":{"total_tokens":3}}`
}

func TestSafetyModel(t *testing.T) {
	readings(t, of(t, "safetyModel", `{model: m}`), []reading{
		{"safe", said("safe"), "pass"},
		{"safe, with space", said("\n\nSafe \n"), "pass"},
		{"unsafe", said("unsafe\nS1"), "block violent_crimes"},
		{"unsafe, more", said("\n\nunsafe\nS2,S10\n"), "block non_violent_crimes, hate"},
		{"unsafe, spaced", said("unsafe\r\nS2, S10"), "block non_violent_crimes, hate"},
		{"unsafe, unknown", said("unsafe\nS99, O3, S1"), "block other, violent_crimes"},
		{"unsafe, alone", said("unsafe"), "block other"},
		{"safe, and more", said("safe\nS1"), "unreadable"},
		{"a sentence", said("The text is safe."), "unreadable"},
		{"unsafe in a sentence", said("unsafe: S1"), "unreadable"},
		{"a refusal", said("I can't help with that."), "unreadable"},
		{"nothing", said(""), "unreadable"},
		{"no text", strings.Replace(said("x"), `"x"`, "null", 1), "unreadable"},
		{"parts", strings.Replace(said("x"), `"x"`, `[{"type":"text","text":"safe"}]`, 1), "unreadable"},
		{"no choices", `{"choices":[]}`, "unreadable"},
		{"two choices", `{"choices":[{"message":{"content":"safe"}},{"message":{"content":"safe"}}]}`, "unreadable"},
		{"two choices, one unsafe", `{"choices":[{"message":{"content":"safe"}},{"message":{"content":"unsafe\nS1"}}]}`, "block violent_crimes"},
		{"error", `{"error":{"message":"no such model"}}`, "unreadable"},
		{"error beside", `{"error":"x",` + said("safe")[1:], "unreadable"},
		{"a stream", "data: " + said("safe") + "\n\ndata: [DONE]\n\n", "unreadable"},
		{"a completion of the older API", `{"choices":[{"text":"safe"}]}`, "unreadable"},
	})
	readings(t, of(t, "safetyModel", `{model: m, categories: {O1: own}}`), []reading{
		{"own category", said("unsafe\nO1,S1"), "block own, other"},
	})
}

// FuzzSafetyModel: a pass is one choice that says "safe", and one that says "unsafe" is blocked.
func FuzzSafetyModel(f *testing.F) {
	for _, s := range []string{"safe", "unsafe\nS1", "safe\nS1", "no"} {
		f.Add([]byte(said(s)))
	}
	p := of(f, "safetyModel", `{model: m}`)
	f.Fuzz(func(t *testing.T, body []byte) {
		got := outcome(t, p, &Question{Text: []byte("x")}, 200, string(body))
		var m map[string]any
		valid := json.Unmarshal(body, &m) == nil
		var contents []string
		choices, _ := m["choices"].([]any)
		for _, c := range choices {
			choice, _ := c.(map[string]any)
			message, _ := choice["message"].(map[string]any)
			if s, ok := message["content"].(string); ok {
				contents = append(contents, strings.ToLower(strings.TrimSpace(s)))
			}
		}
		if got == "pass" {
			require.True(t, valid && len(contents) == 1 && contents[0] == "safe", "%s", body)
		}
		for _, s := range contents {
			if valid && s == "unsafe" {
				require.Regexp(t, "^block", got)
			}
		}
	})
}
