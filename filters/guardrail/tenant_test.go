package guardrail_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters/guardrail"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// who is a filter that says who calls, and where the request may go, as headers have it.
type who struct{ filter.Base }

func (who) Needs() filter.Needs { return filter.NeedRequest }

func (who) OnRequest(x *filter.Exchange) filter.Verdict {
	x.Tenant.Name, _ = x.RequestHeaders.Get("x-name")
	x.Tenant.Product, _ = x.RequestHeaders.Get("x-product")
	pools, _ := x.RequestHeaders.Get("x-pools")
	for i, name := range strings.Fields(pools) {
		if i == 0 {
			x.Route.Pool = name
			continue
		}
		x.Route.Fallback = append(x.Route.Fallback, filter.Pool{Name: name})
	}
	return filter.Next
}

// tenants is a chain of a guardrail behind who, in a process that keeps breakers.
func tenants(t require.TestingT, config string) *guarded {
	g := &guarded{metrics: samples{}, now: time.Unix(1_800_000_000, 0)}
	kept := map[string]any{}
	first := filter.Factory{Name: "who", Writes: filter.FactTenant | filter.FactRoute, New: func(*conf.Object, *filter.Deps) filter.Filter { return who{} }}
	c, err := chain.New([]byte("filters: [who: {}, guardrail: "+config+"]"), []filter.Factory{first, guardrail.Factory}, &filter.Deps{
		Now: func() time.Time { return g.now }, Rand: rand.Uint64, Metrics: g.metrics, Log: func(filter.Level, string) {},
		Keep: func(name string, create func() any) any {
			if kept[name] == nil {
				kept[name] = create()
			}
			return kept[name]
		},
	})
	require.NoError(t, err)
	g.chain = c
	return g
}

// by sends a prompt with some headers.
func (g *guarded) by(headers ...[2]string) *guarding {
	h := &guarding{judge: blocking("bad"), stream: g.chain.NewStream()}
	h.request = append(pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}, headers...)
	h.stream.Begin(h)
	h.stream.RequestHeaders(false)
	h.stream.RequestBody([]byte(`{"messages":[{"role":"user","content":"x"}]}`), true)
	return h
}

// TestVerdictsAreOfOneTenant: what a service has said is known to who has asked, and to nobody else.
func TestVerdictsAreOfOneTenant(t *testing.T) {
	g := tenants(t, `{providers: [{name: p, webhook: {cluster: guard}, cache: 10s}, {name: q, webhook: {cluster: guard}, cache: 10s}], policies: [{on: request, use: [p], action: block}, {on: request, use: [q], action: block, headers: {x-q: "1"}}]}`)
	for _, c := range [][2]string{{"", ""}, {"a", ""}, {"", "a"}, {"b", ""}, {"a", "b"}, {"a/b", "c"}, {"a", "b/c"}} {
		for _, want := range []int{1, 0} {
			h := g.by([2]string{"x-name", c[0]}, [2]string{"x-product", c[1]})
			require.Len(t, h.open, want, "%q", c)
			for range h.open {
				h.answer(t, 0)
			}
			h.stream.Done()
		}
	}
	require.Len(t, g.by([2]string{"x-q", "1"}).open, 1, "another provider")
}

// TestWhomAPolicyIsFor: products, values of headers, and pools to which the request may go.
func TestWhomAPolicyIsFor(t *testing.T) {
	for _, c := range []struct {
		policy  string
		headers pairs
		want    int
	}{
		{"products: [gold, silver]", pairs{{"x-product", "silver"}}, 1},
		{"products: [gold, silver]", pairs{{"x-product", "free"}}, 0},
		{"products: [gold, silver]", nil, 0},
		{"headers: {x-team: [a, b]}", pairs{{"x-team", "b"}}, 1},
		{"headers: {x-team: [a, b]}", pairs{{"x-team", "c"}}, 0},
		{"headers: {x-team: [a, b]}", pairs{{"x-team", ""}}, 0},
		{"headers: {x-team: [a, b]}", nil, 0},
		{"headers: {x-team: a, x-env: prod}", pairs{{"x-team", "a"}, {"x-env", "prod"}}, 1},
		{"headers: {x-team: a, x-env: prod}", pairs{{"x-team", "a"}, {"x-env", "test"}}, 0},
		{"pools: [a, b]", pairs{{"x-pools", "b"}}, 1},
		{"pools: [a, b]", pairs{{"x-pools", "c"}}, 0},
		{"pools: [a, b]", pairs{{"x-pools", "c d b"}}, 1},
		{"pools: [a, b]", pairs{{"x-pools", "c d"}}, 0},
		{"pools: [a], products: [gold]", pairs{{"x-pools", "c a"}, {"x-product", "free"}}, 0},
	} {
		g := tenants(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: request, use: [p], action: block, `+c.policy+`}]}`)
		require.Len(t, g.by(c.headers...).open, c.want, "%s %q", c.policy, c.headers)
	}
}

// TestBreakersAreOfOneProvider: two in one cluster fail apart, and who is refused learns how long the breaker is open.
func TestBreakersAreOfOneProvider(t *testing.T) {
	g := tenants(t, `{providers: [{name: p, webhook: {cluster: guard}, retries: 0, breaker: {failures: 1, open: 42s}}, {name: q, webhook: {cluster: guard}}], policies: [{on: request, use: [p], action: block, products: [p]}, {on: request, use: [q], action: block, products: [q]}]}`)
	down := g.by([2]string{"x-product", "p"})
	down.stream.Reply(down.open[0], &filter.Reply{Err: chain.ErrReset})
	require.NotContains(t, down.refused.Headers, [2]string{"retry-after", "42"}, "this one was asked about")
	g.now = g.now.Add(2 * time.Second)
	refused := g.by([2]string{"x-product", "p"})
	require.Empty(t, refused.open)
	require.Contains(t, refused.refused.Headers, [2]string{"retry-after", "40"})
	require.Len(t, g.by([2]string{"x-product", "q"}).open, 1)
}

// TestWhatIsNotScreened: where the filter's own failure mode lets a response go on that cannot be read, the audit says so.
func TestWhatIsNotScreened(t *testing.T) {
	for _, provider := range []string{"webhook: {cluster: guard}", "local: {detect: all}"} {
		g := guard(t, `{failureMode: FailOpen, providers: [{name: p, `+provider+`}], policies: [{on: response, use: [p], action: block}]}`)
		h := &guarding{stream: g.chain.NewStream()}
		h.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
		h.response = pairs{{":status", "200"}, {"content-type", "application/json"}}
		h.stream.Begin(h)
		h.stream.RequestHeaders(false)
		h.stream.RequestBody([]byte(`{"messages":[]}`), true)
		h.held = h.stream.ResponseHeaders(false) == chain.Hold
		h.stream.ResponseBody([]byte(`{"choices":[{"message":{"content":"x"`), true)
		h.stream.Done()
		require.Nil(t, h.refused)
		require.Contains(t, h.why, "screened=response:fail_open")
		require.Equal(t, 1, g.metrics["inlet_guardrail_audit_total[response fail_open ]"], g.metrics)
	}
}

// TestThePromptOfAResponse: a service that judges a response learns what the user has said last, and the end of it if that is long.
func TestThePromptOfAResponse(t *testing.T) {
	long := strings.Repeat("é", 3000) + " the end!" // both bounds are in the middle of a character
	for _, c := range []struct {
		name, messages, limit, want string
	}{
		{"user", `{"role":"user","content":"hello"}`, "64KiB", "hello"},
		{"not others", `{"role":"system","content":"s"},{"role":"user","content":"hello"},{"role":"tool","content":"t"}`, "64KiB", "hello"},
		{"not before", `{"role":"user","content":"old"},{"role":"assistant","content":"a"},{"role":"user","content":"one"},{"role":"user","content":"two"}`, "64KiB", "one\ntwo"},
		{"long", `{"role":"user","content":"` + long + `"}`, "64KiB", long[len(long)-4095:]},
		{"longer than what the service takes", `{"role":"user","content":"` + long + `"}`, "256", long[len(long)-255:]},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := guard(t, remotely("block", 0, c.limit))
			h := &guarding{}
			h.stream = g.prompted(h, &h.envoy, c.messages)
			h.response = pairs{{":status", "200"}, {"content-type", "application/json"}}
			h.stream.ResponseHeaders(false)
			h.stream.ResponseBody([]byte(`{"choices":[{"message":{"content":"x"}}]}`), true)
			require.Len(t, h.open, 1)
			var q struct{ Prompt string }
			require.NoError(t, json.Unmarshal(h.calls[h.open[0]].Body, &q))
			require.True(t, utf8.ValidString(q.Prompt))
			require.Equal(t, c.want, q.Prompt)
		})
	}
}

// TestWhoCanRedact: of the services only some say what a text should be, and a policy that redacts needs one of them.
func TestWhoCanRedact(t *testing.T) {
	for provider, can := range map[string]bool{
		"webhook: {cluster: c}": true, "local: {detect: all}": true, "moderations: {cluster: c}": false, "safetyModel: {cluster: c, model: m}": false,
	} {
		config := fmt.Sprintf("filters: [guardrail: {providers: [{name: p, %s}], policies: [{on: request, use: [p], action: redact}]}]", provider)
		_, err := chain.New([]byte(config), []filter.Factory{guardrail.Factory}, &filter.Deps{Rand: rand.Uint64, Metrics: samples{}})
		if can {
			require.NoError(t, err, provider)
			continue
		}
		require.ErrorContains(t, err, "none of the providers can redact", provider)
	}
}

// TestValidatesWhatIsSaidAgain: a text that a stream repeats when it has ended is no longer for that, and is judged once more by itself.
func TestValidatesWhatIsSaidAgain(t *testing.T) {
	events := func(text, again string) string {
		a, _ := json.Marshal(text)
		b, _ := json.Marshal(again)
		return strings.Join([]string{
			fmt.Sprintf(`data: {"type":"response.output_text.delta","output_index":0,"content_index":0,"item_id":"m","delta":%s}`, a),
			fmt.Sprintf(`data: {"type":"response.output_text.done","output_index":0,"content_index":0,"item_id":"m","text":%s}`, b),
			fmt.Sprintf(`data: {"type":"response.content_part.done","output_index":0,"content_index":0,"item_id":"m","part":{"type":"output_text","text":%s}}`, b),
			fmt.Sprintf(`data: {"type":"response.output_item.done","output_index":0,"item":{"id":"m","content":[{"type":"output_text","text":%s}]}}`, b),
			fmt.Sprintf(`data: {"type":"response.completed","response":{"id":"r","output":[{"id":"m","content":[{"type":"output_text","text":%s}]}]}}`, b),
		}, "\n\n") + "\n\n"
	}
	for _, c := range []struct {
		text, again string
		right       bool
	}{{`{"a":1}`, `{"a":1}`, true}, {`{"a":1}`, `{"b":1}`, false}, {`{"a":1`, `{"a":1`, false}} {
		for _, size := range []int{1, 7, 1 << 20} {
			g := guard(t, `{providers: [{name: p, validate: {required: [a], maxBytes: 10}}], policies: [{on: response, use: [p], action: block}]}`)
			h := &guarding{}
			h.request = pairs{{":method", "POST"}, {":path", "/v1/responses"}, {"content-type", "application/json"}}
			body := events(c.text, c.again)
			h.play(t, g.chain.NewStream(), body, func(n int) int { return min(size, n) - 1 })
			if c.right {
				require.Nil(t, h.refused)
				require.Equal(t, body, string(h.out))
				continue
			}
			require.True(t, h.refused != nil || strings.Contains(string(h.out), "content_policy_violation"), "%s", h.out)
		}
	}
}

// TestPoliciesOfOtherRolesStandAlone: two policies of one service, each for what another one says, are two checks with two actions.
func TestPoliciesOfOtherRolesStandAlone(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}}], policies: [{on: request, use: [p], action: report, roles: [system]}, {on: request, use: [p], action: block, roles: [user]}]}`)
	for _, c := range []struct {
		system, user string
		blocked      bool
	}{{"bad", "ok", false}, {"ok", "bad", true}} {
		h := &guarding{judge: blocking("bad")}
		h.stream = g.prompted(h, &h.envoy, `{"role":"system","content":"`+c.system+`"},{"role":"user","content":"`+c.user+`"}`)
		for len(h.open) > 0 {
			h.answer(t, 0)
		}
		slices.Sort(h.asked)
		require.Equal(t, []string{"bad", "ok"}, h.asked)
		require.Equal(t, c.blocked, h.refused != nil)
	}
}
