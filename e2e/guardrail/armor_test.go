package guardrail_test

import (
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/armor"
)

const template = "projects/p/locations/us-central1/templates/t"

// judge is what the fake says of a text, by words in it.
func judge(r armor.Request) armor.Answer {
	filters := armor.Clean()
	if masked := strings.ReplaceAll(r.Text, "jane@example.com", "[EMAIL_ADDRESS]"); masked != r.Text {
		filters["sdp"] = armor.Deidentified(armor.Ran, armor.Match, masked)
	}
	if strings.Contains(r.Text, "attack") {
		filters["pi_and_jailbreak"] = armor.Injection(armor.Ran, armor.Match)
	}
	if strings.Contains(r.Text, "account") {
		filters["sdp"] = armor.Inspected(armor.Ran, armor.Match)
	}
	if strings.Contains(r.Text, "skipped") {
		filters["csam"] = armor.Csam(armor.Skipped, 0)
	}
	return armor.Answer{Body: armor.Verdict(armor.Result(filters))}
}

// fake is a fake Model Armor whose answers can change.
type fake struct {
	armor.Server
	judge   atomic.Pointer[func(armor.Request) armor.Answer]
	address string
}

func newFake(t *testing.T) *fake {
	f := &fake{}
	f.says(judge)
	f.Judge = func(r armor.Request) armor.Answer { return (*f.judge.Load())(r) }
	server := httptest.NewServer(&f.Server)
	f.address = server.Listener.Addr().String()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return f
}

func (f *fake) says(judge func(armor.Request) armor.Answer) { f.judge.Store(&judge) }

// asked is how often it was asked.
func (f *fake) asked() int {
	all, _ := f.Requests()
	return len(all)
}

// TestModelArmor: every verdict, on prompts, responses and streams.
func TestModelArmor(t *testing.T) {
	chain := chainOf(`      providers:
        - {name: armor, modelArmor: {template: `+template+`, cluster: armor}, timeout: 10s, retries: 0, breaker: {failures: 0}}
        - {name: open, modelArmor: {template: `+template+`, cluster: armor}, timeout: 10s, retries: 0, breaker: {failures: 0}, failureMode: FailOpen}
      policies:
        - {on: both, use: [armor], action: block, models: [blocks]}
        - {on: both, use: [armor], action: redact, models: [redacts]}
        - {on: request, use: [armor], action: report, models: [reports]}
        - {on: request, use: [open], action: redact, models: [open]}
`, "blocks", "redacts", "reports", "open")
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			f := newFake(t)
			g := start(t, abi, clusters{"armor": f.address}, chain)
			for _, c := range []struct {
				ask
				status           int
				code             string
				reaches          string // the replica
				screened, tells  string
				passes, redacted string // of the response
			}{
				{ask: ask{model: "blocks", prompt: "hello", says: "a long walk"}, status: 200, reaches: "hello", passes: "a long walk", screened: "request:scanned,response:scanned"},
				{ask: ask{model: "blocks", prompt: "an attack"}, status: 400, code: "content_policy_violation", tells: "armor/pi_and_jailbreak/block"},
				{ask: ask{model: "blocks", prompt: "an account"}, status: 400, code: "content_policy_violation", tells: "armor/sdp/block"},
				{ask: ask{model: "blocks", prompt: "mail jane@example.com"}, status: 400, code: "content_policy_violation", tells: "armor/sdp/block"},
				{ask: ask{model: "blocks", prompt: "skipped"}, status: 503, code: "guardrail_unavailable", tells: "armor/partial"},
				{ask: ask{model: "blocks", prompt: "hello", says: "an attack"}, status: 400, code: "content_policy_violation", tells: "armor/pi_and_jailbreak/block"},
				{ask: ask{model: "redacts", prompt: "mail jane@example.com now", says: "I mailed jane@example.com."}, status: 200, reaches: "mail [EMAIL_ADDRESS] now", passes: "I mailed [EMAIL_ADDRESS].", screened: "request:scanned,response:scanned", tells: "armor/sdp/redact"},
				{ask: ask{model: "redacts", prompt: "an account"}, status: 400, code: "content_policy_violation", tells: "armor/sdp/block"},
				{ask: ask{model: "reports", prompt: "an attack"}, status: 200, reaches: "an attack", screened: "request:scanned", tells: "armor/pi_and_jailbreak/report"},
				{ask: ask{model: "open", prompt: "skipped"}, status: 200, reaches: "skipped", screened: "request:fail_open", tells: "open/partial"},
				{ask: ask{model: "open", prompt: "skipped, jane@example.com"}, status: 200, reaches: "skipped, [EMAIL_ADDRESS]", screened: "request:fail_open", tells: "open/partial"},
			} {
				r := g.must(c.ask)
				require.Equal(t, c.status, r.status, "%+v: %s", c.ask, r.body)
				require.Equal(t, c.code, r.code, "%+v: %s", c.ask, r.body)
				require.Contains(t, r.why, c.tells, "%+v", c.ask)
				if c.status == 200 {
					require.Equal(t, c.screened, r.screened, "%+v: %s", c.ask, r.why)
					require.Equal(t, sha(c.reaches), r.reached, "%+v", c.ask)
				}
				if c.passes != "" {
					require.Equal(t, c.passes, r.text)
				}
				require.NotContains(t, r.why, "jane")
			}
			t.Run("streams", func(t *testing.T) { testArmorStreams(t, g) })
			requests, wrong := f.Requests()
			require.NoError(t, wrong, "Google's types read every request")
			answers := 0
			for _, r := range requests {
				require.Equal(t, template, r.Template)
				if r.Response {
					require.NotEmpty(t, r.Prompt, "a response is judged with its prompt")
					answers++
				}
			}
			require.Positive(t, answers)
		})
	}
}

func testArmorStreams(t *testing.T, g *gateway) {
	r := g.must(ask{model: "blocks", prompt: "hello", says: "a long walk in the park", stream: true})
	require.Equal(t, "a long walk in the park", r.text)
	require.True(t, r.ended)
	require.Equal(t, "request:scanned,response:scanned", r.screened)

	r = g.must(ask{model: "redacts", prompt: "hello", says: "Mail jane@example.com or joe, or jane@example.com.", stream: true})
	require.Equal(t, "Mail [EMAIL_ADDRESS] or joe, or [EMAIL_ADDRESS].", r.text)
	require.True(t, r.ended)

	r = g.must(ask{model: "blocks", prompt: "hello", says: "This is how to attack, step by step", stream: true})
	require.Equal(t, "content_policy_violation", r.code)
	require.NotContains(t, r.text, "attack")

	r = g.must(ask{model: "blocks", prompt: "hello", says: "This is skipped in a stream", stream: true})
	require.Equal(t, "guardrail_unavailable", r.code)
}
