package guardrail

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

const doc = `
providers:
  - name: secrets
    local: {patterns: ['(?i)launch code', '\b\d{3}-\d{2}-\d{4}\b']}
  - name: unused
    local: {patterns: ['hello']}
policies: [{on: request, use: [secrets], action: block}]
`

// counts are metrics, by their labels.
type counts map[filter.Values]int

func (c counts) Counter(string, ...string) filter.Metric   { return c }
func (c counts) Gauge(string, ...string) filter.Metric     { return c }
func (c counts) Histogram(string, ...string) filter.Metric { return c }
func (c counts) Record(n int64, v filter.Values)           { c[v] += int(n) }

func newGuard(t testing.TB) *Filter { return guardOf(t, doc) }

func guardOf(t testing.TB, doc string) *Filter {
	var f filter.Filter
	require.NoError(t, conf.Decode([]byte(doc), func(o *conf.Object) { f = newFilter(o, &filter.Deps{Metrics: counts{}, Rand: rand.Uint64}) }))
	return f.(*Filter)
}

func screen(t testing.TB, f *Filter, limit int, body string) (*filter.Exchange, filter.Verdict) {
	var scan llm.RequestScanner
	api := llm.Chat
	if strings.Contains(body, "prompt") {
		api = llm.Completions
	}
	scan.Reset(api, llm.Want{Prompt: true, PromptLimit: limit, Strings: true}, jsonscan.Limits{})
	require.NoError(t, scan.Feed([]byte(body)))
	require.NoError(t, scan.End())
	x := &filter.Exchange{}
	x.Reset(1)
	x.API, x.Request = llm.Chat, scan.Request()
	return x, f.OnRequest(x)
}

func TestScreening(t *testing.T) {
	for _, c := range []struct{ name, body, code string }{
		{"clean", `{"messages":[{"role":"user","content":"hello"}]}`, ""},
		{"blocked", `{"messages":[{"role":"user","content":"tell me the Launch Code"}]}`, "content_policy_violation"},
		{"escaped", `{"messages":[{"role":"user","content":"l\u0061unch\u0020code"}]}`, "content_policy_violation"},
		{"in a part", `{"messages":[{"role":"user","content":[{"type":"text","text":"ok"},{"type":"text","text":"078-05-1120"}]}]}`, "content_policy_violation"},
		{"in the system prompt", `{"messages":[{"role":"system","content":"launch code"},{"role":"user","content":"x"}]}`, "content_policy_violation"},
		{"split over parts", `{"messages":[{"role":"user","content":[{"type":"text","text":"laun"},{"type":"text","text":"ch code"}]}]}`, "content_policy_violation"},
		{"words in parts of their own", `{"messages":[{"role":"user","content":[{"type":"text","text":"a\n078"},{"type":"text","text":"-05-1120"}]}]}`, "content_policy_violation"},
		{"split over messages", `{"messages":[{"role":"user","content":"laun"},{"role":"user","content":"ch code"}]}`, ""},
		{"in a tool", `{"messages":[],"tools":[{"function":{"name":"f","description":"launch code"}}]}`, "content_policy_violation"},
		{"escaped twice in arguments", `{"messages":[{"tool_calls":[{"function":{"arguments":"{\"a\":\"launch\\u0020code\"}"}}]}]}`, "content_policy_violation"},
		{"a template", `{"messages":[],"chat_template":"{{ 'laun' + 'ch code' }}"}`, "template_not_allowed"},
		{"a template in arguments", `{"messages":[],"chat_template_kwargs":{"chat_template":"x"}}`, "template_not_allowed"},
		{"arguments of the server's template", `{"messages":[],"chat_template_kwargs":{"enable_thinking":false}}`, ""},
		{"embeddings", `{"prompt_embeds":"QUJD"}`, "prompt_not_text"},
		{"token numbers", `{"prompt":[1,2,3]}`, "prompt_not_text"},
		{"elsewhere in the body", `{"user":"launch code","messages":[]}`, ""},
		{"more than can be screened", `{"messages":[{"role":"user","content":"` + strings.Repeat("a", 10000) + `"}]}`, "prompt_too_large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, v := screen(t, newGuard(t), 1000, c.body)
			if c.code == "" {
				require.Equal(t, filter.Next, v)
				return
			}
			require.Equal(t, c.code, v.Refusal().Code)
			require.NotContains(t, v.Refusal().Message+string(x.Why()), "078-05", "the response contains nothing of the prompt")
		})
	}
}

func BenchmarkOnRequest(b *testing.B) {
	f := newGuard(b)
	x, _ := screen(b, f, 1<<20, `{"messages":[{"role":"user","content":"`+strings.Repeat("a", 10000)+`"}]}`)
	b.SetBytes(10000)
	b.ReportAllocs()
	for b.Loop() {
		if f.OnRequest(x) != filter.Next {
			b.Fatal("blocked")
		}
	}
}

// TestAllocatesNothing: where nothing is found, neither a prompt nor a response costs an allocation.
func TestAllocatesNothing(t *testing.T) {
	f := guardOf(t, `
providers: [{name: all, local: {detect: all, deny: [Project Nightfall], patterns: ['(?i)launch code']}}]
policies: [{on: both, use: [all], action: redact}, {on: request, use: [all], action: report}]
`)
	x, v := screen(t, f, 1<<20, `{"messages":[{"role":"user","content":"Hello, it is 10:30 on 2026-11-30.\n"},{"role":"assistant","tool_calls":[{"function":{"arguments":"{\"a\":\"b\\n\"}"}}]}]}`)
	require.Equal(t, filter.Next, v)
	require.Zero(t, testing.AllocsPerRun(100, func() { f.OnRequest(x) }))
	u := &filter.Unit{Stream: true}
	unit := func() {
		u.Pieces = append(u.Pieces[:0], filter.Piece{Channel: llm.Channel{Kind: llm.AnswerText}, Text: []byte(nil)})
		u.Pieces[0].Text = append(u.Pieces[0].Text, "some words of a model "...)
		if f.OnResponse(x, u) != filter.Next || u.Pieces[0].Keep != 0 {
			t.Fatal("something was found")
		}
	}
	unit()
	require.LessOrEqual(t, testing.AllocsPerRun(100, unit), 1.0, "that of the test")
}

// TestSixtyFourPolicies: sets of policies are bits.
func TestSixtyFourPolicies(t *testing.T) {
	read := func(n int) error {
		doc := "providers: [{name: a, local: {detect: all}}]\npolicies:\n" + strings.Repeat("  - {on: request, use: [a], action: block}\n", n)
		return conf.Decode([]byte(doc), func(o *conf.Object) { newFilter(o, &filter.Deps{Metrics: counts{}}) })
	}
	require.NoError(t, read(64))
	require.ErrorContains(t, read(65), "policies: 3:3: has 65 entries (want 64 or less)")
}

// TestLastAnswered: the latest turn begins after the last message of the model's that the user has answered.
func TestLastAnswered(t *testing.T) {
	for said, want := range map[string]int{
		"": 0, "u": 0, "su": 0, "a": 0, "ua": 0, "uau": 2, "uaua": 2, "uauat": 2, "uauatc": 2, "uact": 0, "uactu": 3, "uatau": 4, "suauu": 3, "o": 0, "oua": 0,
	} {
		var all []llm.String
		for i, who := range said {
			s := llm.String{Turn: i + 1, Role: map[rune]llm.Role{'u': llm.UserRole, 's': llm.SystemRole, 'a': llm.AssistantRole, 't': llm.ToolRole, 'c': llm.CallRole}[who]}
			if who == 'o' {
				s.Turn = 0
			}
			all = append(all, s)
		}
		require.Equal(t, want, lastAnswered(all), said)
	}
}

// TestHolds: a policy by pool holds where the request may go.
func TestHolds(t *testing.T) {
	x := &filter.Exchange{Route: filter.Route{Pool: "a", Fallback: []filter.Pool{{Name: "b"}}}, Tenant: filter.Tenant{Product: "gold"}}
	for _, c := range []struct {
		p    policy
		want bool
	}{
		{policy{}, true},
		{policy{pools: []string{"a"}}, true},
		{policy{pools: []string{"x", "b"}}, true},
		{policy{pools: []string{"x"}}, false},
		{policy{products: []string{"gold"}}, true},
		{policy{products: []string{"free"}}, false},
		{policy{pools: []string{"a"}, products: []string{"free"}}, false},
	} {
		require.Equal(t, c.want, c.p.holds(x), "%+v", c.p)
	}
}
