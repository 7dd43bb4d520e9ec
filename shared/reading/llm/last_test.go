package llm

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEnded: a stream has ended with its last event, and not before that event's empty line.
func TestEnded(t *testing.T) {
	for _, c := range []struct {
		name   string
		api    API
		stream string // up to and with the last event
		ended  bool
	}{
		{"chat", Chat, "data: {\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n", true},
		{"completions, other line ends", Completions, "data: {}\r\n\r\ndata:[DONE]\r\n\r\n", true},
		{"messages", Messages, "event: message_delta\ndata: {\"type\":\"message_delta\"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", true},
		{"messages, escaped", Messages, `data: {"type":"message\u005fstop"}` + "\n\n", true},
		{"responses, the type comes last", Responses, `data: {"response":{"usage":{"input_tokens":1,"output_tokens":2},"type":"x"},"type":"response.completed"}` + "\n\n", true},
		{"responses, the type comes first", Responses, `data: {"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}` + "\n\n", true},
		{"responses, cut by their limit", Responses, `data: {"type":"response.incomplete","response":{}}` + "\n\n", true},
		{"responses that failed", Responses, `data: {"type":"response.failed","response":{}}` + "\n\n", true},
		{"Cohere's chat", CohereChat, `data: {"type":"message-end","delta":{"finish_reason":"COMPLETE"}}` + "\n\n", true},
		{"Cohere's end of a part", CohereChat, `data: {"type":"content-end","index":0}` + "\n\n", false},
		{"responses that end with the marker", Responses, "data: {\"type\":\"x\"}\n\ndata: [DONE]\n\n", true},

		{"the usage", Chat, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n", false},
		{"more than the marker", Chat, "data: [DONE]]\n\n", false},
		{"the marker within a text", Chat, "data: {\"choices\":[{\"delta\":{\"content\":\"[DONE]\"}}]}\n\n", false},
		{"another API's last event", Chat, "data: {\"type\":\"message_stop\"}\n\n", false},
		{"and another's", Messages, "data: {\"type\":\"response.completed\"}\n\n", false},
		{"a type that begins so", Messages, "data: {\"type\":\"message_stopped\"}\n\n", false},
		{"a type that is longer than any", Responses, "data: {\"type\":\"response.incomplete.and.more\"}\n\n", false},
		{"a type within", Messages, "data: {\"message\":{\"type\":\"message_stop\"},\"delta\":{\"type\":\"message_stop\"}}\n\n", false},
		{"a type that is no string", Messages, "data: {\"type\":[\"message_stop\"]}\n\n", false},
		{"no event", Messages, ": message_stop\n\nevent: message_stop\n\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, size := range []int{1, 7, len(c.stream)} {
				var r ResponseScanner
				r.Reset(c.api, true, "")
				for rest := c.stream; rest != ""; {
					if strings.TrimSpace(rest) != "" {
						require.False(t, r.Ended(), "before its last line has ended")
					}
					n := min(size, len(rest))
					r.Feed([]byte(rest[:n]))
					rest = rest[n:]
				}
				require.Equal(t, c.ended, r.Ended())
				r.Feed([]byte(": a comment\n\n"))
				require.Equal(t, c.ended, r.Ended())
				r.Reset(c.api, true, "")
				require.False(t, r.Ended(), "a new answer")
			}
		})
	}
	t.Run("a document is no stream", func(t *testing.T) {
		var r ResponseScanner
		r.Reset(Messages, false, "")
		r.Feed([]byte(`{"type":"message_stop"}`))
		require.False(t, r.Ended())
	})
	t.Run("a type that does not end", func(t *testing.T) {
		var r ResponseScanner
		r.Reset(Responses, true, "")
		r.Feed([]byte(`data: {"type":"`))
		for range 100 {
			r.Feed([]byte(strings.Repeat("response.completed", 100)))
		}
		r.Feed([]byte("\"}\n\n"))
		require.False(t, r.Ended())
	})
}
