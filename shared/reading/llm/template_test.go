package llm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// What is neither text nor a list where vectors or a template belong is still one of these, and not the other.
func TestNumbersForTemplatesAndVectors(t *testing.T) {
	for body, want := range map[string]facts{
		`{"messages":[{"content":[{"type":"prompt_embeds","prompt_embeds":5}]}]}`:    {PromptEmbeds: true},
		`{"messages":[{"content":[{"type":"prompt_embeds","prompt_embeds":true}]}]}`: {PromptEmbeds: true},
		`{"messages":[{"content":[{"type":"prompt_embeds","prompt_embeds":null}]}]}`: {},
		`{"chat_template_kwargs":{"chat_template":5}}`:                               {Template: true},
		`{"chat_template_kwargs":{"chat_template":false}}`:                           {Template: true},
		`{"chat_template_kwargs":{"chat_template":null}}`:                            {},
		`{"chat_template_kwargs":{"x":{"chat_template":5}}}`:                         {},
	} {
		got, err := read(Chat, Want{}, jsonscan.Limits{}, []byte(body), []byte(body))
		require.NoError(t, err)
		require.Equal(t, want, got, body)
	}
}
