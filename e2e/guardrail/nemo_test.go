package guardrail_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNemo: a real server of NeMo Guardrails passes, blocks, masks and fails. One is enough for both builds.
func TestNemo(t *testing.T) {
	address := startNemo(t)
	provider := func(name, more string) string {
		return "        - {name: " + name + ", nemo: {cluster: nemo, " + more + "}, timeout: 20s, retries: 0, breaker: {failures: 0}}\n"
	}
	chain := chainOf("      providers:\n"+
		provider("guard", "config: guard")+provider("masks", "config: mask, masks: true, rails: [mask names on input]")+
		provider("unmasked", "config: mask")+provider("broken", "config: broken")+provider("prompts", "config: input")+provider("unknown", "config: nowhere")+
		`      policies:
        - {on: both, use: [guard], action: block, models: [guard]}
        - {on: both, use: [masks], action: redact, models: [masks]}
        - {on: request, use: [unmasked], action: block, models: [unmasked]}
        - {on: request, use: [broken], action: block, models: [broken]}
        - {on: both, use: [prompts], action: block, models: [prompts]}
        - {on: request, use: [unknown], action: block, models: [unknown]}
`, "guard", "masks", "unmasked", "broken", "prompts", "unknown")
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			g := start(t, abi, clusters{"nemo": address}, chain)
			for _, c := range []struct {
				ask
				status         int
				code           string
				reaches, tells string
				passes         string
			}{
				{ask: ask{model: "guard", prompt: "hello", says: "a long walk"}, status: 200, reaches: "hello", passes: "a long walk"},
				{ask: ask{model: "guard", prompt: "the launch code"}, status: 400, code: "content_policy_violation", tells: "guard/regex_check_input/block"},
				{ask: ask{model: "guard", prompt: "hello", says: "It is the launch code."}, status: 400, code: "content_policy_violation", tells: "guard/regex_check_output/block"},
				{ask: ask{model: "masks", prompt: "hello Jane", says: "Jane is well"}, status: 200, reaches: "hello [NAME]", passes: "[NAME] is well", tells: "masks/mask/redact"},
				{ask: ask{model: "masks", prompt: "explode"}, status: 503, code: "guardrail_unavailable", tells: "masks/internal"},
				{ask: ask{model: "unmasked", prompt: "hello Jane"}, status: 503, code: "guardrail_unavailable", tells: "unmasked/unreadable"},
				{ask: ask{model: "unmasked", prompt: "hello"}, status: 200, reaches: "hello"},
				{ask: ask{model: "broken", prompt: "hello"}, status: 503, code: "guardrail_unavailable", tells: "broken/status"},
				{ask: ask{model: "prompts", prompt: "the launch code"}, status: 400, code: "content_policy_violation"},
				{ask: ask{model: "prompts", prompt: "hello", says: "a long walk"}, status: 503, code: "guardrail_unavailable", tells: "prompts/status"},
				{ask: ask{model: "unknown", prompt: "hello"}, status: 503, code: "guardrail_unavailable", tells: "unknown/status"},
			} {
				r := g.must(c.ask)
				require.Equal(t, c.status, r.status, "%+v: %s", c.ask, r.body)
				require.Equal(t, c.code, r.code, "%+v: %s", c.ask, r.body)
				require.Contains(t, r.why, c.tells, "%+v", c.ask)
				if c.status == 200 {
					require.Equal(t, sha(c.reaches), r.reached, "%+v", c.ask)
				}
				if c.passes != "" {
					require.Equal(t, c.passes, r.text)
				}
			}
			r := g.must(ask{model: "guard", prompt: "hello", says: "Now I tell you the launch code, which is 12345", stream: true})
			require.Equal(t, "content_policy_violation", r.code)
			require.NotContains(t, r.text, "launch code")
			r = g.must(ask{model: "masks", prompt: "hello", says: "Jane and Joe, and Jane.", stream: true})
			require.Equal(t, "[NAME] and Joe, and [NAME].", r.text)
			require.True(t, r.ended)
		})
	}
}
