package e2e_test

import (
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestUsageIsAskedFor: OpenAI's own client reads a stream of which a filter has asked for the usage as if nobody had. If the client asks, it gets the usage as
// before. The tokens are counted in both.
func TestUsageIsAskedFor(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Plugin: plugins[abi].probed, Pools: quickPools(), Edit: func(b *bootstrapv3.Bootstrap) { mergeOnScrape(b); nameProbeLabels(b) },
				Chain: "filters:\n  - bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}\n  - probe: {needs: [request]}\n  - picker: {}\n" +
					"companion: {cluster: inlet-companion}",
			})
			waitForPicks(t, s)
			c := openai.NewClient(option.WithBaseURL(s.URL()+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0), option.WithHTTPClient(client))
			asked, plain := streamOf(t, &c, false, "1"), streamOf(t, &c, false, "")
			require.Equal(t, plain, asked, "the same events, and no usage")
			require.Len(t, strings.Split(asked, "|"), 17, "a role and 16 tokens, each with a choice: %s", asked)
			require.NotContains(t, asked, "usage")

			both, own := streamOf(t, &c, true, "1"), streamOf(t, &c, true, "")
			require.Equal(t, own, both)
			require.Equal(t, plain+"|usage 16", own)

			m, err := s.Metrics(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 1, m.Sum("inlet_usage_unknown_total"), "of the stream for which nobody asked")
		})
	}
}

// streamOf returns what a client sees of a stream, event by event.
func streamOf(t *testing.T, c *openai.Client, includes bool, probe string) string {
	t.Helper()
	question := openai.ChatCompletionNewParams{
		Model: "llama", MaxTokens: openai.Int(16), Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")},
	}
	if includes {
		question.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), question, option.WithHeader("x-probe-usage", probe))
	var seen []string
	for stream.Next() {
		switch event := stream.Current(); {
		case len(event.Choices) > 0:
			require.Zero(t, event.Usage.TotalTokens)
			seen = append(seen, event.Choices[0].Delta.Content)
		case event.Usage.TotalTokens > 0:
			seen = append(seen, "usage "+event.Usage.JSON.CompletionTokens.Raw())
		default:
			t.Fatalf("an event of nothing: %s", event.RawJSON())
		}
	}
	require.NoError(t, stream.Err())
	return strings.Join(seen, "|")
}
