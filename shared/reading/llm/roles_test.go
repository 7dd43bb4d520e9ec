package llm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRoles: who speaks in each string, and in which message, also where the role follows what was said.
func TestRoles(t *testing.T) {
	type said struct {
		text string
		role Role
		turn int
	}
	var scan RequestScanner
	for _, c := range []struct {
		name string
		api  API
		body string
		want []said
	}{
		{
			"chat", Chat, `{"messages":[{"role":"system","content":"s"},{"content":"u","role":"user"},{"role":"assistant","content":"a","tool_calls":[{"function":{"arguments":"{}"}}]},{"role":"tool","content":"t"},{"role":"weird","content":"w"}],"tools":[{"function":{"name":"f"}}],"new":"n"}`,
			[]said{{"s", SystemRole, 1}, {"u", UserRole, 2}, {"a", AssistantRole, 3}, {"{}", CallRole, 3}, {"t", ToolRole, 4}, {"weird", UserRole, 5}, {"w", UserRole, 5}, {"f", SystemRole, 0}, {"n", UserRole, 0}},
		},
		{
			"parts", Messages, `{"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"content":[{"type":"text","text":"t"}],"type":"tool_result"},{"type":"text","text":"u"}]},{"role":"assistant","content":[{"type":"tool_use","input":{"k":"c"}},{"type":"text","text":"a"}]}]}`,
			[]said{{"s", SystemRole, 0}, {"t", ToolRole, 1}, {"u", UserRole, 1}, {"c", CallRole, 2}, {"a", AssistantRole, 2}},
		},
		{
			"responses", Responses, `{"instructions":"s","input":[{"role":"developer","content":"d"},{"type":"message","content":[{"type":"input_text","text":"u"}]},{"type":"function_call","arguments":"{}"},{"type":"function_call_output","output":"t"}]}`,
			[]said{{"s", SystemRole, 0}, {"d", SystemRole, 1}, {"u", UserRole, 2}, {"{}", CallRole, 3}, {"t", ToolRole, 4}},
		},
		{"no conversation", Completions, `{"prompt":["x","y"]}`, []said{{"x", UserRole, 0}, {"y", UserRole, 0}}},
		{"input", Responses, `{"input":"x"}`, []said{{"x", UserRole, 0}}},
	} {
		for _, size := range []int{1, 1 << 20} {
			r := withStrings(t, &scan, c.api, c.body, size)
			var got []said
			for _, s := range r.Strings {
				got = append(got, said{string(r.Prompt[s.From:s.To]), s.Role, s.Turn})
			}
			require.Equal(t, c.want, got, c.name)
		}
	}
}

func TestEarlier(t *testing.T) {
	var scan RequestScanner
	for _, c := range []struct {
		api  API
		body string
		want bool
	}{
		{Responses, `{"previous_response_id":"r","input":"x"}`, true},
		{Responses, `{"previous_response_id":null,"input":"x"}`, false},
		{Responses, `{"previous_response_id":"","input":"x"}`, false},
		{Responses, `{"conversation":"c","input":"x"}`, true},
		{Responses, `{"conversation":{"id":"c"},"input":"x"}`, true},
		{Responses, `{"conversation":null,"input":"x"}`, false},
		{Responses, `{"prompt":{"id":"p","variables":{"a":"b"}}}`, true},
		{Responses, `{"prompt":null,"input":"x"}`, false},
		{Responses, `{"input":[{"type":"item_reference","id":"m"}]}`, true},
		{Responses, `{"input":[{"id":"m"}]}`, true},
		{Responses, `{"input":[{"id":"m","type":null}]}`, true},
		{Responses, `{"input":[{"role":"user","content":"x"},{"id":"m"}]}`, true},
		{Responses, `{"input":[{"id":"m","type":"message","role":"assistant","content":[{"type":"output_text","text":"x"}]}]}`, false},
		{Responses, `{"input":[{"id":"m","type":"function_call","name":"f","arguments":"{\"type\":\"item_reference\"}"}]}`, false},
		{Responses, `{"input":"x","tools":[{"type":"function","name":"f","parameters":{"properties":{"audio":{"id":"m"}}}}]}`, false},
		{Chat, `{"messages":[{"role":"assistant","audio":{"id":"a"}},{"role":"user","content":"x"}]}`, true},
		{Chat, `{"messages":[{"role":"assistant","audio":null,"content":"y"},{"role":"user","content":"x"}]}`, false},
		{Chat, `{"audio":{"voice":"v"},"messages":[{"role":"user","content":"x"}]}`, false},
		{Completions, `{"prompt":"x"}`, false},
		{Chat, `{"conversation":"x","prompt":"x","messages":[{"role":"user","content":"x"}]}`, false},
	} {
		for size := 1; size < 4; size++ {
			require.Equal(t, c.want, withStrings(t, &scan, c.api, c.body, size).Earlier, c.body)
		}
	}
}
