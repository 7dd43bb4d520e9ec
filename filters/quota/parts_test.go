package quota

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, fits, others string
	}{
		{"llama", "llama", "llam llamas gemma"},
		{"gemma-*", "gemma- gemma-2 gemma-2-it", "gemma xgemma-2"},
		{"*-it", "-it gemma-it", "it gemma-it-"},
		{"*", "a gemma", ""},
		{"a*b*c", "abc axbyc abcbc abbc", "ab ac acb xabc abcx"},
		{"a**c", "ac abc", "a c"},
		{"org/*@v*", "org/x@v1 org/@v org/a@b@v2", "org/x org@v1"},
		{"aa*aa", "aaaa aaxaa", "aaa aa"},
		{"*ab*ab", "abab xabyab abxabab", "ab aba xab"},
	} {
		for _, s := range strings.Fields(c.fits) {
			require.True(t, pattern(c.pattern).match(s), "%s %s", c.pattern, s)
		}
		for _, s := range strings.Fields(c.others) {
			require.False(t, pattern(c.pattern).match(s), "%s %s", c.pattern, s)
		}
	}
	require.True(t, patterns(nil).match("anything"))
	require.False(t, patterns{"a", "b"}.match("c"))
}

// Of several patterns the most exact counts, in whatever order they stand.
func TestMostExactPattern(t *testing.T) {
	for _, order := range [][]string{{"*", "gemma-*", "gemma-2-*", "gemma-2-it"}, {"gemma-2-it", "gemma-2-*", "gemma-*", "*"}} {
		var m forModel[string]
		for _, name := range order {
			m.set(name, name)
		}
		for model, want := range map[string]string{"gemma-2-it": "gemma-2-it", "gemma-2-x": "gemma-2-*", "gemma-3": "gemma-*", "llama": "*"} {
			got, ok := m.get(model)
			require.True(t, ok)
			require.Equal(t, want, got)
		}
	}
	var m forModel[int]
	require.True(t, m.empty())
	m.set("a*", 1)
	_, ok := m.get("b")
	require.False(t, ok)
	require.False(t, m.empty())
}

func TestOperations(t *testing.T) {
	p := &product{operations: []operation{{path: "/v1/chat/completions", methods: []string{"POST"}}, {path: "/v1/models", prefix: true}}}
	for _, c := range []struct {
		method, path string
		want         bool
	}{
		{"POST", "/v1/chat/completions", true},
		{"POST", "/v1/chat/completions?a=b", true},
		{"GET", "/v1/chat/completions", false},
		{"POST", "/v1/chat/completions/render", false},
		{"GET", "/v1/models", true},
		{"HEAD", "/v1/models/llama", true},
		{"GET", "/v1/model", false},
		{"GET", "/?/v1/models", false},
	} {
		require.Equal(t, c.want, p.permits(c.method, c.path), "%s %s", c.method, c.path)
	}
	require.True(t, (&product{}).permits("GET", "/anything"))
}

// A request that names no model is one of a product with models only if it needs none.
func TestRequestsWithoutAModel(t *testing.T) {
	r := newRig(t, subscribed("models: [llama]"))
	for api, want := range map[llm.API]filter.Verdict{llm.Models: filter.Next, llm.Chat: {}, llm.Embeddings: {}} {
		x := &filter.Exchange{}
		x.Reset(1)
		x.API, x.Start, x.RequestHeaders, x.Request = api, r.clock, headers{"x-api-key: demo"}, &llm.Request{}
		require.Equal(t, filter.Next, r.f.OnRequestHeaders(x))
		v := r.f.OnRequest(x)
		if api == llm.Models {
			require.Equal(t, want, v)
			continue
		}
		require.Equal(t, "model_not_permitted", v.Refusal().Code)
	}
}

func TestUnescaped(t *testing.T) {
	for in, want := range map[string]string{"": "", "demo": "demo", "%64emo": "demo", "dem%6F": "demo", "100%": "100%", "%zz": "%zz", "%6": "%6", "%25%36": "%6"} {
		require.Equal(t, want, unescaped(in))
	}
	for c, want := range map[byte]bool{'a': true, 'z': true, 'A': true, 'Z': true, '0': true, '9': true, '-': true, '_': true, '.': false, ' ': false, '@': false, '{': false, '[': false, '`': false, '/': false, ':': false} {
		require.Equal(t, want, inWord(c), "%c", c)
	}
}

// Addresses of one IPv6 network are one client, however they are written.
func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "10.0.0.1", "": "", "pipe": "pipe",
		"2001:db8::1": "2001:db8:0:0::", "2001:db8::2": "2001:db8:0:0::", "2001:db8:0:0:1::7": "2001:db8:0:0::", "2001:DB8:0:0:ffff:ffff:ffff:ffff": "2001:db8:0:0::",
		"2001:db8:0:1::1": "2001:db8:0:1::", "2001:db8:a:b:1:2:3:4": "2001:db8:a:b::", "fe80::1%eth0": "fe80:0:0:0::", "::": "0:0:0:0::", "::1": "0:0:0:0::",
		"64:ff9b::10.0.0.1": "64:ff9b:0:0::", "1::2:3:4:5:6:7": "1:0:2:3::", "::2:3:4:5:6:7:8": "0:2:3:4::",
		"1:2:3": "1:2:3", "1:2:3:4:5:6:7:8:9": "1:2:3:4:5:6:7:8:9", "1::2::3": "1::2::3", "g::1": "g::1", "1:2:3:4::5:6:7:8": "1:2:3:4::5:6:7:8", "1:": "1:", "12345::": "12345::",
	} {
		require.Equal(t, want, string(appendAddress(nil, address)), address)
	}
	dst := make([]byte, 0, 64)
	require.Zero(t, testing.AllocsPerRun(100, func() { dst = appendAddress(dst[:0], "2001:db8:a:b:1:2:3:4") }))
	r := newRig(t, twoKeys+"limits: [{name: l, per: [ip], requests: 1/day}]")
	require.Equal(t, 200, r.send(body{client: "2001:db8::1"}).end(ends{status: 200}).status())
	require.Equal(t, 429, r.send(body{client: "2001:db8::2"}).end(ends{}).status())
	require.Equal(t, 200, r.send(body{client: "2001:db8:0:1::1"}).end(ends{status: 200}).status())
}

// Whose accounts a limit has can be read.
func TestScopes(t *testing.T) {
	doc := subscribed("requests: 5/min, budget: 25.00/month, scope: local") + `
prices: {"*": {prompt: 1, completion: 1}}
limits: [{name: all, spike: 10/s}, {name: team, per: [developer, model], tokens: {prompt: 1k/2h}, concurrency: 3}]
`
	require.Equal(t, []string{
		"p: limit of 5 requests per minute for each app, in each Envoy",
		"p: monthly budget for each app, in each Envoy",
		"all: limit of 10 requests per second for all callers together, in each Envoy",
		"team: limit of 1000 prompt tokens per 2 hours for each developer and model, in all Envoys together",
		"team: limit of 3 requests in progress for each developer and model, in all Envoys together",
	}, join(t, newCompanion(t), doc).f.Scopes())
	require.Equal(t, []string{"p: limit of 5 requests per minute for each app, in each Envoy"}, load(t, subscribed("requests: 5/min")).Scopes())
	require.Empty(t, join(t, newCompanion(t), "source: companion").f.Scopes())
}

// What a client is told, word by word.
func TestMessages(t *testing.T) {
	for _, c := range []struct {
		amounts string
		b       body
		want    string
	}{
		{"requests: 10/min", body{}, "You have reached your limit of 10 requests per minute. Please try again in 2s."},
		{"requests: 10/2h", body{}, "You have reached your limit of 10 requests per 2 hours. Please try again in 1h59m2s."},
		{"tokens: {total: 1000/day}", body{max: 100}, "You have reached your limit of 1000 tokens per day. Please try again in 11h59m2s."},
		{"tokens: {prompt: 1000/week}", body{prompt: 400}, "You have reached your limit of 1000 prompt tokens per week. Please try again in 155h59m2s."},
		{"tokens: {completion: 1000/month}", body{max: 100}, "You have reached your limit of 1000 completion tokens per month. Please try again in 11h59m2s."},
		{"concurrency: 10", body{}, "You have reached your limit of 10 requests in progress. Please try again in 1s."},
		{"spike: 1/10s", body{}, "You have reached your limit of 1 request per 10 seconds. Please try again in 10s."},
		{"spike: 2/3s", body{}, "You have reached your limit of 2 requests per 3 seconds. Please try again in 2s."},
		{"budget: 0.001/day", body{max: 100}, "You have reached your daily budget. Please try again in 11h59m2s."},
		{"tokens: {total: 1000/day}", body{max: 2000}, "Your request needs more than your whole limit of 1000 tokens per day. Reduce the prompt or max_tokens."},
		{"requests: 0/min", body{}, "Your product allows no requests."},
		{"tokens: {total: 0/min}", body{}, "Your product allows no tokens."},
		{"spike: 0/s", body{}, "Your product allows no requests."},
		{"budget: 0/day", body{}, "Your product allows no budget."},
		{"models: [llama]}]\nlimits: [{name: l, per: [app], requests: 0/min", body{}, "Your limits allow no requests."},
	} {
		r := newRig(t, subscribed(c.amounts)+"prices: {\"*\": {prompt: 1, completion: 1}}\n")
		var last *call
		for range 11 {
			if last = r.send(c.b); last.v.Refusal() != nil {
				break
			}
			if !strings.Contains(c.amounts, "concurrency") {
				last.end(ends{status: 200, usage: told(c.b.prompt/4, c.b.max)})
			}
		}
		require.Equal(t, c.want, last.v.Refusal().Message)
	}
}

// What the companion grants is for the request that asked: others that come before it goes on ask for themselves.
func TestAsksOnce(t *testing.T) {
	c := newCompanion(t)
	r := join(t, c, subscribed("requests: 5000/day"))
	call := r.rig.send(body{})
	reply := c.answer(r.clock, call.v.Calls()[0].Body)
	require.NoError(t, r.f.link.apply(reply))
	require.True(t, r.rig.send(body{}).v.Asks())
	call.v = r.f.OnReply(call.x, reply)
	require.Equal(t, 200, call.status())
}

// A request asks the companion a few times, and waits for half a second at most.
func TestAsksAFewTimes(t *testing.T) {
	for round, want := range map[time.Duration]int{time.Millisecond: maxAsked, 200 * time.Millisecond: 3} {
		r := join(t, newCompanion(t), subscribed("requests: 5000/day"))
		began := r.clock
		call := r.rig.send(body{})
		calls := 0
		for call.v.Asks() {
			calls++
			require.LessOrEqual(t, calls, 20)
			require.LessOrEqual(t, call.v.Calls()[0].Timeout, askTimeout)
			require.LessOrEqual(t, r.clock.Add(call.v.Calls()[0].Timeout).Sub(began), maxWait)
			asked := r.clock
			r.pass(min(round, call.v.Calls()[0].Timeout))
			empty := account.Reply{Generation: 7, Time: asked.UnixMilli(), Now: asked.UnixMilli(), Proxies: 1}
			call.v = r.f.OnReply(call.x, &filter.Reply{Status: 200, Body: empty.Append(nil)})
		}
		require.Equal(t, want, calls)
		require.Equal(t, 503, call.status(), "nobody has said that nothing is left")
		require.Equal(t, time.Second, call.v.Refusal().RetryAfter)
	}
}

// A table that is full forgets nobody who has used something: further accounts share one, and a metric says so.
func TestMoreAccountsThanFit(t *testing.T) {
	r := newRig(t, twoKeys+"limits: [{name: l, per: [tenant], header: x-tenant, requests: 2/day}]")
	r.f.table = account.NewMemory(account.Options{Accounts: 10}, r.deps.Mutex())
	ask := func(i int) int {
		return r.send(body{headers: headers{fmt.Sprintf("x-tenant: %d", i)}}).end(ends{status: 200}).status()
	}
	require.Equal(t, 200, ask(0))
	require.Equal(t, 200, ask(0))
	for i := range 100 {
		ask(i + 1)
	}
	require.Equal(t, 429, ask(0))
	require.Positive(t, r.samples["inlet_quota_crowded_total overflow"])
	require.Zero(t, r.samples["inlet_quota_crowded_total full"])
}

// What depends on the model or the pool stands behind bbr.
func TestReads(t *testing.T) {
	for doc, want := range map[string]filter.Facts{
		twoKeys: 0,
		twoKeys + "limits: [{name: l, per: [app, ip], requests: 1/s}]":              0,
		subscribed("requests: 1/s, tokens: {total: 1/s}"):                           0,
		subscribed("models: [llama]"):                                               filter.FactRoute,
		subscribed("budget: 1/day") + "prices: {\"*\": {prompt: 1, completion: 1}}": filter.FactRoute,
		twoKeys + "limits: [{name: l, per: [model], requests: 1/s}]":                filter.FactRoute,
		twoKeys + "limits: [{name: l, per: [pool], requests: 1/s}]":                 filter.FactRoute,
		twoKeys + "limits: [{name: l, match: {models: [a]}, requests: 1/s}]":        filter.FactRoute,
		twoKeys + "limits: [{name: l, match: {pools: [a]}, requests: 1/s}]":         filter.FactRoute,
	} {
		require.Equal(t, want, load(t, doc).Reads(), doc)
	}
	require.Equal(t, filter.FactRoute, join(t, newCompanion(t), "source: companion").f.Reads())
}

// No more is read of requests than the limits need.
func TestNeeds(t *testing.T) {
	const usage = filter.NeedRequest | filter.NeedUsage
	for doc, want := range map[string]filter.Needs{
		twoKeys:                                 0,
		subscribed("requests: 1/s"):             0,
		subscribed("concurrency: 1"):            0,
		subscribed("models: [llama]"):           filter.NeedModel,
		subscribed("tokens: {prompt: 1/s}"):     usage,
		subscribed("tokens: {completion: 1/s}"): usage,
		subscribed("budget: 1/day") + "prices: {\"*\": {prompt: 1, completion: 1}}": usage,
		twoKeys + "limits: [{name: l, per: [ip], requests: 1/s}]":                   filter.NeedClient,
		twoKeys + "limits: [{name: l, per: [model], requests: 1/s}]":                filter.NeedModel,
		twoKeys + "limits: [{name: l, match: {models: [a]}, requests: 1/s}]":        filter.NeedModel,
		twoKeys + "limits: [{name: l, per: [app], tokens: {total: 1/s}}]":           usage,
	} {
		require.Equal(t, want, load(t, doc).Needs(), doc)
	}
	require.Equal(t, usage, join(t, newCompanion(t), "source: companion").f.Needs())
}
