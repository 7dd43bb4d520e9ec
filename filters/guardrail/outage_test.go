package guardrail_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// prompted is a host that has sent a prompt of chat completions.
func (g *guarded) prompted(host chain.Host, e *envoy, messages string) *chain.Stream {
	s := g.chain.NewStream()
	e.request = pairs{{":method", "POST"}, {":path", "/v1/chat/completions"}, {"content-type", "application/json"}}
	s.Begin(host)
	s.RequestHeaders(false)
	s.RequestBody([]byte(`{"messages":[`+messages+`]}`), true)
	return s
}

const twoSpeakers = `{"role":"system","content":"s"},{"role":"user","content":"u"}`

// TestHalfOpenWithSeveralQuestions: a prompt of two questions closes a breaker that is half open, however it is asked.
func TestHalfOpenWithSeveralQuestions(t *testing.T) {
	for _, mode := range []string{"wait", "parallel"} {
		t.Run(mode, func(t *testing.T) {
			g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}, retries: 0, breaker: {failures: 1, open: 1s}}], policies: [{on: request, use: [p], action: block, mode: `+mode+`}]}`)
			send := func() *guarding {
				host := &guarding{judge: func(string) string { return `{"action":"pass"}` }}
				host.stream = g.prompted(host, &host.envoy, twoSpeakers)
				return host
			}
			down := send()
			down.stream.Reply(down.open[0], &filter.Reply{Err: chain.ErrReset})
			down.stream.Done()
			g.now = g.now.Add(time.Second)
			trial := send()
			require.Len(t, trial.open, 1, "one question tries")
			trial.answer(t, 0)
			require.Len(t, trial.open, 1)
			trial.answer(t, 0)
			require.Nil(t, trial.refused)
			require.Contains(t, trial.why, "screened=request:scanned")
			trial.stream.Done()
			require.Len(t, send().open, 2, "it is closed")
		})
	}
}

// TestOpenFailureIsOfOneText: a check that fails open lets pass the text that was not judged, and no other one: what is said of the others
// counts, whichever reply comes first.
func TestOpenFailureIsOfOneText(t *testing.T) {
	const config = `{providers: [{name: p, webhook: {cluster: guard}, failureMode: FailOpen}], policies: [{on: request, use: [p], action: block}]}`
	judge := func(text string) string {
		switch text {
		case "s":
			return `{"error":"cannot judge that"}`
		case "bad":
			return `{"action":"block"}`
		}
		return `{"action":"pass"}`
	}
	for _, c := range []struct {
		user    string
		order   []int
		blocked bool
	}{{"bad", []int{0, 0}, true}, {"bad", []int{1}, true}, {"good", []int{0, 0}, false}, {"good", []int{1, 0}, false}} {
		g := guard(t, config)
		host := &guarding{judge: judge}
		host.stream = g.prompted(host, &host.envoy, `{"role":"system","content":"s"},{"role":"user","content":"`+c.user+`"}`)
		for _, n := range c.order {
			host.answer(t, n)
		}
		require.Equal(t, c.blocked, host.refused != nil, "%v", c)
		if !c.blocked {
			require.Contains(t, host.why, "screened=request:fail_open")
		}
		host.stream.Done()
	}
}

// TestOpenFailureAsksTheRest: what is beyond the most calls at once is asked after a failure, too, and a prompt that is too long is judged as
// far as that goes.
func TestOpenFailureAsksTheRest(t *testing.T) {
	const config = `{providers: [{name: p, webhook: {cluster: guard, limit: 256}, failureMode: FailOpen}], policies: [{on: request, use: [p], action: block}]}`
	for _, c := range []struct {
		words int
		audit string
		asked int
	}{{600, "fail_open", 12}, {10_000, "fail_open", 64}} {
		g := guard(t, config)
		host := &guarding{}
		host.judge = func(string) string {
			if len(host.asked) == 1 {
				return `{"error":"cannot judge that"}`
			}
			return `{"action":"pass"}`
		}
		text := ""
		for i := range c.words {
			text += fmt.Sprintf("%04d ", i)
		}
		host.stream = g.prompted(host, &host.envoy, `{"role":"user","content":"`+text+`"}`)
		for len(host.open) > 0 {
			host.answer(t, 0)
		}
		require.Nil(t, host.refused)
		require.GreaterOrEqual(t, len(host.asked), c.asked)
		require.LessOrEqual(t, len(host.asked), 64)
		require.Contains(t, host.why, "screened=request:"+c.audit)
		host.stream.Done()
	}
}

// unreachable is an Envoy that starts no call.
type unreachable struct {
	envoy
	why   func(cluster string) error
	calls map[string]int
}

func (u *unreachable) Call(_ int, c *filter.Call) error {
	u.calls[c.Cluster]++
	return u.why(c.Cluster)
}

// TestCallsThatCannotStart follow the failure mode of their provider, however many there are, and are not made over and over.
func TestCallsThatCannotStart(t *testing.T) {
	for name, why := range map[string]func(string) error{
		"no cluster":  chain.ErrNoCluster,
		"no endpoint": func(string) error { return filter.ErrNotStarted },
	} {
		for _, mode := range []string{"FailOpen", "FailClosed"} {
			for _, order := range []string{"sequence", "parallel"} {
				t.Run(strings.Join([]string{name, mode, order}, "/"), func(t *testing.T) {
					var providers, names []string
					for i := range 20 {
						names = append(names, fmt.Sprintf("p%d", i))
						providers = append(providers, fmt.Sprintf("{name: p%d, webhook: {cluster: c%d, path: /%d, limit: 256}, failureMode: %s, retries: 5, breaker: {failures: 0}}", i, i/2, i, mode))
					}
					g := guard(t, `{providers: [`+strings.Join(providers, ",")+`], policies: [{on: request, use: [`+strings.Join(names, ",")+`], action: block, order: `+order+`}]}`)
					host := &unreachable{why: why, calls: map[string]int{}}
					s := g.prompted(host, &host.envoy, `{"role":"user","content":"`+strings.Repeat("word ", 600)+`"}`)
					s.Done()
					if mode == "FailClosed" {
						require.Equal(t, 503, host.refused.Status)
						require.Contains(t, string(host.refused.Body), "guardrail_unavailable")
						return
					}
					require.Nil(t, host.refused)
					require.Contains(t, host.envoy.why, "screened=request:fail_open")
					require.Len(t, host.calls, 10)
					for cluster, n := range host.calls {
						require.LessOrEqual(t, n, filter.MaxCalls, cluster)
					}
				})
			}
		}
	}
}

// TestLongRepliesDoNotOpenTheBreaker: they depend on the text, and the breaker is everybody's.
func TestLongRepliesDoNotOpenTheBreaker(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}, breaker: {failures: 1}}], policies: [{on: request, use: [p], action: block}]}`)
	for range 3 {
		host := &guarding{}
		host.stream = g.prompted(host, &host.envoy, twoSpeakers)
		require.Len(t, host.open, 2)
		host.stream.Reply(host.open[0], &filter.Reply{Err: filter.ErrTooLong})
		require.Equal(t, 503, host.refused.Status, "nor is it tried again")
		require.Contains(t, host.why, "guardrail=p/unreadable")
		host.stream.Done()
	}
	require.Empty(t, g.logs.String())
}

// TestOutagesInTheLog: who reads the log learns what is the matter, what it means for requests, and nothing of a text.
func TestOutagesInTheLog(t *testing.T) {
	for _, c := range []struct {
		name  string
		reply filter.Reply
		calls int
		mode  string
		want  string
	}{
		{"reset", filter.Reply{Err: chain.ErrReset}, 2, "FailClosed", `guardrail: provider "p": circuit breaker open for 10s after 2 failed checks, failureMode FailClosed applies; last error: ` + chain.ErrReset.Error()},
		{"status", filter.Reply{Status: 500, Body: []byte("078-05-1120")}, 2, "FailOpen", `guardrail: provider "p": circuit breaker open for 10s after 2 failed checks, failureMode FailOpen applies; last error: status 500`},
		{"refused", filter.Reply{Status: 401, Body: []byte("078-05-1120")}, 2, "FailClosed", `guardrail: provider "p" rejects Inlet's requests (status 401): check its credentials and configuration; failureMode FailClosed applies until then`},
		{"missing", filter.Reply{Err: chain.ErrNoCluster("guard")}, 1, "FailClosed", `guardrail: provider "p" cannot be called: no cluster "guard" in Envoy; failureMode FailClosed applies until there is`},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}, retries: 0, failureMode: `+c.mode+`, breaker: {failures: 2}}], policies: [{on: request, use: [p], action: block}]}`)
			for range c.calls {
				host := &guarding{}
				host.stream = g.prompted(host, &host.envoy, `{"role":"user","content":"u"}`)
				host.stream.Reply(host.open[0], &c.reply)
				host.stream.Done()
			}
			require.Equal(t, c.want, g.logs.String())
		})
	}
}

// TestWhatIsBlockedWasJudged: the audit of a prompt or a response that is blocked says that it was judged, wherever the finding is from.
func TestWhatIsBlockedWasJudged(t *testing.T) {
	for _, c := range []struct{ provider, on, mode, prompt, response, want string }{
		{"local: {deny: [bad]}", "request", "wait", "bad", "", "screened=request:scanned"},
		{"webhook: {cluster: guard}", "request", "wait", "bad", "", "screened=request:scanned"},
		{"webhook: {cluster: guard}", "request", "parallel", "bad", "", "screened=request:scanned"},
		{"local: {deny: [bad]}", "both", "wait", "x", "bad", "screened=request:scanned,response:scanned"},
		{"webhook: {cluster: guard}", "both", "wait", "x", "bad", "screened=request:scanned,response:scanned"},
	} {
		t.Run(c.provider+c.on+c.mode, func(t *testing.T) {
			g := guard(t, `{providers: [{name: p, `+c.provider+`}], policies: [{on: `+c.on+`, use: [p], action: block, mode: `+c.mode+`}]}`)
			host := &guarding{judge: blocking("bad")}
			host.response = pairs{{":status", "200"}, {"content-type", "application/json"}}
			host.stream = g.prompted(host, &host.envoy, `{"role":"user","content":"`+c.prompt+`"}`)
			for len(host.open) > 0 {
				host.answer(t, 0)
			}
			if c.response != "" {
				host.stream.ResponseHeaders(false)
				host.stream.ResponseBody([]byte(`{"choices":[{"message":{"content":"`+c.response+`"}}]}`), true)
				for len(host.open) > 0 {
					host.answer(t, 0)
				}
			}
			require.Equal(t, 400, host.refused.Status)
			require.Contains(t, strings.Fields(host.why), c.want)
			host.stream.Done()
		})
	}
}

// TestOnlyTheTrialEndsTheTrial: clients that leave with calls which were let through before the breaker opened do not let others try while
// one does.
func TestOnlyTheTrialEndsTheTrial(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}, retries: 0, timeout: 1m, breaker: {failures: 1, open: 100ms}}], policies: [{on: request, use: [p], action: block}]}`)
	const prompt = `{"role":"user","content":"x"}`
	send := func() *guarding {
		h := &guarding{}
		h.stream = g.prompted(h, &h.envoy, prompt)
		return h
	}
	before := []*guarding{send(), send()}
	down := send()
	down.stream.Reply(down.open[0], &filter.Reply{Err: fmt.Errorf("reset")})
	require.Equal(t, 503, down.refused.Status)
	g.now = g.now.Add(time.Second)
	trial := send()
	require.Len(t, trial.open, 1)
	for _, h := range before {
		h.stream.Done()
		require.Empty(t, send().open)
	}
	trial.stream.Done()
	require.Len(t, send().open, 1)
}

// TestRetriesCountOnce: however often a question is repeated, the breaker counts one failure; and who says that there are too many requests
// gets no more of them.
func TestRetriesCountOnce(t *testing.T) {
	reset := &filter.Reply{Err: chain.ErrReset}
	for _, c := range []struct {
		name  string
		reply func() *filter.Reply
		calls int
	}{
		{"reset", func() *filter.Reply { return reset }, 6},
		{"status 500", func() *filter.Reply { return &filter.Reply{Status: 500} }, 6},
		{"status 429", func() *filter.Reply { return &filter.Reply{Status: 429} }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}, retries: 5, timeout: 1m, breaker: {failures: 2, open: 10s}}], policies: [{on: request, use: [p], action: block}]}`)
			fails := func() int {
				h := &guarding{}
				h.stream = g.prompted(h, &h.envoy, `{"role":"user","content":"x"}`)
				n := 0
				for ; len(h.open) > 0; n++ {
					number := h.open[0]
					h.open = h.open[1:]
					h.stream.Reply(number, c.reply())
				}
				require.Equal(t, 503, h.refused.Status)
				h.stream.Done()
				return n
			}
			require.Equal(t, c.calls, fails())
			require.Equal(t, c.calls, fails(), "one failure of two")
			require.Zero(t, fails(), "it is open")
			g.now = g.now.Add(10 * time.Second)
			require.Equal(t, 1, fails(), "the one that tries is not repeated")
			require.Zero(t, fails(), "it is open again")
			require.Equal(t, 2, g.metrics["inlet_guardrail_breaker_total[p open ]"], g.metrics)
		})
	}
}

// TestOutOfTimeToRepeat: a failure after which there is no time to ask again counts, too.
func TestOutOfTimeToRepeat(t *testing.T) {
	g := guard(t, `{providers: [{name: p, webhook: {cluster: guard}, retries: 5, timeout: 1s, breaker: {failures: 1}}], policies: [{on: request, use: [p], action: block}]}`)
	h := &guarding{}
	h.stream = g.prompted(h, &h.envoy, `{"role":"user","content":"x"}`)
	g.now = g.now.Add(time.Second)
	h.stream.Reply(h.open[0], &filter.Reply{Status: 500})
	require.Len(t, h.open, 1)
	require.Equal(t, 503, h.refused.Status)
	require.Equal(t, 1, g.metrics["inlet_guardrail_breaker_total[p open ]"], g.metrics)
}
