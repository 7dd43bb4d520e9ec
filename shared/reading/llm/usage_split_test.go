package llm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The counts of a stream may come one an event, in any order.
func TestCountsOneAnEvent(t *testing.T) {
	event := func(usage string) string { return "data: {\"usage\":{" + usage + "}}\n\n" }
	const prompt, completion = `"prompt_tokens":7`, `"completion_tokens":3`
	want := Usage{Known: true, Prompt: 7, Completion: 3, Total: 10}
	for _, answer := range []string{
		event(prompt) + event(completion), event(completion) + event(prompt), event(prompt + "," + completion),
		event(prompt) + event(completion) + event(""), event(`"prompt_tokens":1`) + event(completion) + event(prompt),
	} {
		got, untold := tokens(Chat, true, []byte(answer))
		require.Equal(t, want, got, answer)
		require.False(t, untold, answer)
	}
}
