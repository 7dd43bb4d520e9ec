package llm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// TestFurtherAPIs: what is prompt in the APIs beside generation.
func TestFurtherAPIs(t *testing.T) {
	for name, c := range map[string]struct {
		api    API
		body   string
		prompt string
		tokens int
	}{
		"tokens of a text":         {Tokenize, `{"model":"m","prompt":"hello"}`, "hello", 0},
		"tokens of a conversation": {Tokenize, `{"model":"m","messages":[{"role":"user","content":"hello"}],"tools":[{"name":"t"}]}`, "hello\nt", 0},
		"tokens of an input":       {Tokenize, `{"model":"m","instructions":"short","input":"hello"}`, "short\nhello", 0},
		"text of tokens":           {Detokenize, `{"model":"m","tokens":[1,2],"x":"hello"}`, "", 0},
		"tokens for tokens":        {Generate, `{"model":"m","token_ids":[1,2,3],"sampling_params":{"stop":"x"}}`, "x", 3},
		"a video":                  {Videos, `{"model":"m","prompt":"hello","seconds":"4"}`, "hello\n4", 0},
		"a moderation":             {Moderations, `{"model":"m","input":["a","b"]}`, "a\nb", 0},
		"another":                  {Other, `{"model":"m","messages":[[{"content":"a"}],[{"content":"b"}]],"texts":["c"]}`, "a\nb\nc", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var s RequestScanner
			s.Reset(c.api, Want{Prompt: true, PrefixBlocks: 8}, jsonscan.Limits{})
			require.NoError(t, s.Feed([]byte(c.body)))
			require.NoError(t, s.End())
			r := s.Request()
			require.Equal(t, "m", r.Model)
			require.Equal(t, c.prompt, string(r.Prompt))
			require.Equal(t, c.tokens, r.PromptTokens)
			require.Empty(t, r.Prefix, "no engine keeps a prefix of it")
		})
	}
}
