package quota

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// Sequences that limiters get wrong, as collected from public reports of gateways. Times are those of the virtual
// clock, which begins at 12:00:58.

const demoKey = "keys: {list: [{name: demo, products: [p], sha256: KEY(demo)}, {name: other, products: [p], sha256: KEY(other)}]}\n"

const twoKeys = "keys: {list: [{name: demo, sha256: KEY(demo)}, {name: other, sha256: KEY(other)}]}\n"

// subscribed is a document with one product, which both keys have.
func subscribed(amounts string) string { return demoKey + "products: [{name: p, " + amounts + "}]\n" }

func (r *rig) pass(d time.Duration) { r.clock = r.clock.Add(d) }

// A request that one limit refuses takes nothing of the others.
func TestRefusalTakesFromNone(t *testing.T) {
	r := newRig(t, subscribed("requests: 2/min, concurrency: 1"))
	a := r.send(body{})
	require.Equal(t, 200, a.status())
	b := r.send(body{}).end(ends{})
	require.Equal(t, 429, b.status())
	require.Equal(t, "concurrency_limit", b.v.Refusal().Reason)
	a.end(ends{status: 200})
	require.Equal(t, 200, r.send(body{}).end(ends{status: 200}).status())
	d := r.send(body{}).end(ends{})
	require.Equal(t, 429, d.status())
	require.Equal(t, "requests_limit", d.v.Refusal().Reason)
}

// Whichever of several limits refuses, and wherever it stands, the others stay as they were.
func TestRefusalTakesFromNoneInAnyOrder(t *testing.T) {
	for _, tight := range []string{"requests: 1/min", "tokens: {total: 4/min}", "tokens: {prompt: 3/min}", "tokens: {completion: 3/min}", "budget: 0.000003/min", "spike: 1/min"} {
		for _, first := range []bool{true, false} {
			limits := []string{"{name: wide, per: [app], requests: 3/min, tokens: {total: 12/min, prompt: 100/min, completion: 100/min}}", "{name: tight, per: [app], " + tight + "}"}
			if first {
				limits[0], limits[1] = limits[1], limits[0]
			}
			r := newRig(t, "keys: {list: [{name: demo, sha256: KEY(demo)}]}\nprices: {\"*\": {prompt: 1, completion: 0.5}}\nlimits: ["+strings.Join(limits, ", ")+"]")
			ask := body{prompt: 8, max: 2}
			require.Equal(t, 200, r.send(ask).end(ends{status: 200, usage: told(2, 2)}).status(), tight)
			for range 5 {
				require.Equal(t, 429, r.send(ask).end(ends{}).status(), tight)
			}
			r.load("keys: {list: [{name: demo, sha256: KEY(demo)}]}\nlimits: [{name: wide, per: [app], requests: 3/min, tokens: {total: 12/min, prompt: 100/min, completion: 100/min}}]")
			require.Equal(t, 200, r.send(ask).end(ends{status: 200, usage: told(2, 2)}).status(), tight)
			require.Equal(t, 200, r.send(ask).end(ends{status: 200, usage: told(2, 2)}).status(), tight)
			require.Equal(t, 429, r.send(ask).end(ends{}).status(), tight)
		}
	}
}

// However a request ends, it gives its reservation back, once.
func TestEveryEndingGivesTheReservationBack(t *testing.T) {
	for name, e := range map[string]ends{
		"closed by the client before the response": {},
		"closed in the response":                   {status: 200, cut: true},
		"broken off by the replica":                {status: 200, cut: true, events: 1},
		"an error of the replica":                  {status: 500},
		"an error of Envoy":                        {status: 503, origin: filter.OfProxy},
		"a timeout":                                {status: 504, origin: filter.OfFailure},
		"refused by another filter":                {refused: true, served: "-"},
		"complete":                                 {status: 200, usage: told(1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, subscribed("tokens: {total: 10/min}, concurrency: 2"))
			r.pass(2 * time.Second) // the whole minute is left
			for range 3 {
				c := r.send(body{prompt: 4, max: 3})
				require.Equal(t, 200, c.status())
				c.end(e)
				r.f.OnDone(c.x, filter.End{Complete: true, Status: 200}) // a second time changes nothing
			}
			require.Equal(t, 200, r.send(body{prompt: 4, max: 3}).status())
		})
	}
}

// What is never settled expires by itself, and other requests do not renew it.
func TestWhatIsNeverSettledExpires(t *testing.T) {
	r := newRig(t, subscribed("tokens: {total: 10/day}, start: flexi")+"hold: 1m\n")
	require.Equal(t, 200, r.send(body{max: 4}).status()) // its worker dies
	require.Equal(t, 200, r.send(body{max: 4}).status())
	for range 8 {
		r.pass(10 * time.Second)
		require.Equal(t, 200, r.send(body{max: 1}).end(ends{refused: true, served: "-"}).status())
	}
	require.Equal(t, 200, r.send(body{max: 9}).status())
}

// A request is settled in the window in which it was reserved, or not at all.
func TestSettledInItsOwnWindow(t *testing.T) {
	r := newRig(t, subscribed("tokens: {total: 1000/min}"))
	a := r.send(body{max: 800})
	require.Equal(t, 200, a.status())
	r.pass(4 * time.Second)
	require.Equal(t, 200, r.send(body{max: 900}).status())
	r.pass(8 * time.Second)
	a.end(ends{status: 200, usage: told(50, 50)})
	c := r.send(body{max: 200})
	require.Equal(t, 429, c.status())
	require.LessOrEqual(t, c.v.Refusal().RetryAfter, 50*time.Second)
	require.Equal(t, 200, r.send(body{max: 100}).status())
}

// Each counter has a window of its own.
func TestEachCounterHasItsWindow(t *testing.T) {
	r := newRig(t, subscribed("requests: 500/min, tokens: {total: 186/min}, start: flexi"))
	for i := range 6 {
		require.Equal(t, 200, r.send(body{max: 31}).end(ends{status: 200, usage: told(1, 30)}).status(), i)
		r.pass(10 * time.Second)
	}
	c := r.send(body{max: 31}).end(ends{status: 200, usage: told(1, 30)})
	require.Equal(t, 200, c.status())
	require.Equal(t, "155", c.header("x-ratelimit-remaining-tokens"), "31 less a second time, before it was settled")
}

// The estimate takes the model's own maximum and no more, whatever the client says.
func TestEstimateIsBounded(t *testing.T) {
	for _, c := range []struct {
		name   string
		first  body
		second body
	}{
		{"no bound", body{}, body{}},
		{"a huge bound", body{max: 999_999_999}, body{max: 999_999_999}},
		{"many answers of the default", body{n: 2}, body{}},
	} {
		r := newRig(t, subscribed("tokens: {total: 2000/day}")+"estimate: {completion: 400, max: {llama: 800}}\n")
		require.Equal(t, 200, r.send(c.first).status(), c.name)
		require.Equal(t, 200, r.send(c.second).status(), c.name)
	}
}

// Demand that is larger than the whole limit is refused at once, and nothing is taken.
func TestDemandLargerThanTheLimit(t *testing.T) {
	r := newRig(t, subscribed("requests: 10/min, tokens: {total: 100/min}"))
	for _, b := range []body{{max: 200}, {prompt: 804}, {prompt: 200, max: 51}, {max: 34, n: 3}, {max: 10000}} {
		c := r.send(b).end(ends{})
		require.Equal(t, 429, c.status())
		require.Equal(t, "request_exceeds_limit", c.v.Refusal().Code)
		require.Negative(t, c.v.Refusal().RetryAfter)
		require.Equal(t, "false", c.header("x-should-retry"))
		require.Equal(t, "100", c.header("x-ratelimit-remaining-tokens"))
		require.Equal(t, "10", c.header("x-ratelimit-remaining-requests"))
	}
	require.Equal(t, 200, r.send(body{max: 100}).status())
}

// Of several limits that are reached the longest wait is told, and the request is admitted then.
func TestTheLongestWaitIsTold(t *testing.T) {
	r := newRig(t, subscribed("requests: \"1/min, 1/month\""))
	r.clock = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC).Add(-12 * time.Second)
	require.Equal(t, 200, r.send(body{}).end(ends{status: 200}).status())
	r.clock = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	c := r.send(body{}).end(ends{})
	require.Equal(t, 429, c.status())
	require.Equal(t, 9*24*time.Hour, c.v.Refusal().RetryAfter)
	require.Equal(t, "false", c.header("x-should-retry"))
	require.Equal(t, "no-store", c.header("cache-control"))
	r.pass(c.v.Refusal().RetryAfter - time.Second)
	require.Equal(t, 429, r.send(body{}).end(ends{}).status())
	r.pass(time.Second)
	require.Equal(t, 200, r.send(body{}).status())
}

// A short wait says nothing more than when to come again, and is right to the second.
func TestShortWaits(t *testing.T) {
	for _, left := range []time.Duration{59 * time.Second, 12 * time.Second, time.Second, 300 * time.Millisecond} {
		r := newRig(t, subscribed("requests: 1/min"))
		r.clock = noon.Truncate(time.Minute).Add(time.Minute - left)
		require.Equal(t, 200, r.send(body{}).end(ends{status: 200}).status())
		c := r.send(body{}).end(ends{})
		require.Equal(t, max(left, time.Second), c.v.Refusal().RetryAfter)
		require.Empty(t, c.header("x-should-retry"))
		r.pass(left)
		require.Equal(t, 200, r.send(body{}).status())
	}
}

// The headers are Inlet's own, of the tightest limit, and as the clients of each API read them.
func TestHeaders(t *testing.T) {
	r := newRig(t, subscribed("requests: \"5/min, 100/day\", tokens: {total: 1k/day, completion: 100/min}"))
	upstream := headers{"x-ratelimit-remaining-requests: 4999", "x-ratelimit-reset-tokens-usage-based: 1s", "anthropic-ratelimit-tokens-limit: 9", "retry-after: 7", "x-other: 1"}
	c := r.send(body{max: 10}).end(ends{status: 200, answer: upstream})
	for name, want := range map[string]string{
		"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "4", "x-ratelimit-reset-requests": "2s",
		"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": "90", "x-ratelimit-reset-tokens": "2s",
		"anthropic-ratelimit-tokens-limit": "",
	} {
		require.Equal(t, want, c.header(name), name)
	}
	var removed []string
	for _, e := range c.x.Effects().Response {
		if e.Remove {
			removed = append(removed, e.Name)
		}
	}
	require.Equal(t, []string{"x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens-usage-based", "anthropic-ratelimit-tokens-limit"}, removed)

	m := r.send(body{api: llm.Messages, path: "/v1/messages", max: 10}).end(ends{status: 200})
	for name, want := range map[string]string{
		"anthropic-ratelimit-requests-limit": "5", "anthropic-ratelimit-requests-remaining": "3", "anthropic-ratelimit-requests-reset": "2026-11-30T12:01:00Z",
		"anthropic-ratelimit-tokens-limit": "100", "anthropic-ratelimit-tokens-remaining": "80",
		"x-ratelimit-limit-requests": "",
	} {
		require.Equal(t, want, m.header(name), name)
	}
}

// Long resets are told as OpenAI tells them.
func TestResets(t *testing.T) {
	for _, c := range []struct {
		rate, want string
		at         time.Time
	}{
		{"5/min", "1s", noon.Add(1300 * time.Millisecond)},
		{"5/10min", "6m0s", noon.Truncate(time.Hour).Add(4 * time.Minute)},
		{"5/h", "59m2s", noon},
		{"5/day", "11h59m2s", noon},
	} {
		r := newRig(t, subscribed("requests: "+c.rate))
		r.clock = c.at
		require.Equal(t, c.want, r.send(body{}).end(ends{status: 200}).header("x-ratelimit-reset-requests"), c.rate)
	}
}

// Both counts of a usage count for a total. An unknown usage is neither 0 nor 1, and a true 0 adds nothing.
func TestUnknownIsNotZero(t *testing.T) {
	r := newRig(t, subscribed("tokens: {total: 20k/min}"))
	spent := func(e ends) string {
		before := r.send(body{}).end(ends{status: 200, usage: told(0, 0)})
		c := r.send(body{prompt: 4000, max: 2000}).end(e)
		require.Equal(t, 200, c.status())
		after := r.send(body{}).end(ends{status: 200, usage: told(0, 0)})
		return fmt.Sprint(number(t, before) - number(t, after))
	}
	require.Equal(t, "10000", spent(ends{status: 200, usage: told(7000, 3000)}))
	r.pass(time.Minute)
	require.Equal(t, "3000", spent(ends{status: 200}), "what was reserved")
	require.EqualValues(t, 1, r.samples["inlet_quota_usage_unknown_total p"])
	r.pass(time.Minute)
	require.Equal(t, "0", spent(ends{status: 200, usage: told(0, 0)}))
	require.EqualValues(t, 1, r.samples["inlet_quota_usage_unknown_total p"])
}

func number(t *testing.T, c *call) (n int) {
	_, err := fmt.Sscan(c.header("x-ratelimit-remaining-tokens"), &n)
	require.NoError(t, err)
	return n
}

// remaining are the tokens and requests that are left, without taking any.
func (r *rig) remaining() (ofTokens, ofRequests int64) {
	c := r.send(body{prompt: 0, max: 1})
	require.Equal(r.t, 200, c.status())
	for i, l := range c.x.State().(*request).limits {
		s := r.f.table.Standing(r.clock, &c.x.State().(*request).demands[i])
		switch l.measure {
		case totalTokens:
			ofTokens = s.Remaining + 1
		case requests:
			ofRequests = s.Remaining + 1
		}
	}
	c.end(ends{refused: true, served: "-"})
	return ofTokens, ofRequests
}

// What a request that fails is charged, and whether it counts as one.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name             string
		e                ends
		tokens, requests int64
	}{
		{"400 of the replica", ends{status: 400}, 0, 1},
		{"an error that reports a usage", ends{status: 500, usage: told(1000, 7)}, 1007, 1},
		{"502 of the replica", ends{status: 502}, 0, 1},
		{"the replica could not be reached", ends{status: 503, origin: filter.OfFailure}, 0, 1},
		{"Envoy had nobody to ask", ends{status: 503, origin: filter.OfProxy, served: "-"}, 0, 0},
		{"blocked by a guardrail", ends{refused: true, served: "-"}, 0, 0},
		{"the client left before a replica was asked", ends{served: "-"}, 0, 0},
		{"the client left while the prompt was computed", ends{}, 1000, 1},
		{"the stream died without a usage", ends{status: 200, broken: true, events: 150}, 1150, 1},
		{"... and never costs more than was reserved", ends{status: 200, broken: true, events: 15000}, 1500, 1},
		{"the stream died with a usage", ends{status: 200, broken: true, events: 150, usage: told(1200, 700)}, 1900, 1},
		{"... in a first event", ends{status: 200, broken: true, events: 150, since: 149, usage: told(1200, 1)}, 1350, 1},
		{"the client left in the stream", ends{status: 200, cut: true, events: 150}, 1150, 1},
		{"... and pays all that went through", ends{status: 200, cut: true, events: 15000}, 16000, 1},
		{"... after a first event with a usage", ends{status: 200, cut: true, events: 150, since: 149, usage: told(1200, 1)}, 1350, 1},
		{"... after the usage, before the last event", ends{status: 200, cut: true, events: 90, usage: told(1200, 70)}, 1270, 1},
		{"a prompt told, and no answer", ends{status: 200, cut: true, events: 20, since: 20, usage: llm.Usage{Prompt: 1100}}, 1120, 1},
		{"... and the replica broke off", ends{status: 200, broken: true, events: 2000, since: 2000, usage: llm.Usage{Prompt: 1100}}, 1600, 1},
		{"blocked in the response", ends{status: 200, refused: true, events: 20}, 1020, 1},
		{"blocked while the prompt was computed", ends{refused: true}, 1000, 1},
		{"blocked when all had come, and nothing had gone on", ends{status: 200, refused: true, events: 20, usage: told(1200, 40)}, 1240, 1},
		{"complete", ends{status: 200, usage: told(1100, 40)}, 1140, 1},
		{"more than was reserved", ends{status: 200, usage: told(1300, 900)}, 2200, 1},
		{"more than any model can take", ends{status: 200, usage: told(9_000_000, 3)}, 1500, 1},
		{"complete without a usage", ends{status: 200, events: 3}, 1500, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, subscribed("requests: 100/day, tokens: {total: 100k/day}"))
			call := r.send(body{prompt: 4000, max: 500})
			require.Equal(t, 200, call.status())
			call.end(c.e)
			tokens, requests := r.remaining()
			require.Equal(t, c.tokens, 100_000-tokens, "tokens")
			require.Equal(t, c.requests, 100-requests, "requests")
			require.Equal(t, c.tokens, r.samples["inlet_quota_tokens_total p prompt"]+r.samples["inlet_quota_tokens_total p completion"], "the metric says what was charged")
		})
	}
}

// Streams that are cut before their usage cost no less than those that tell it.
func TestCuttingStreamsIsNotCheaper(t *testing.T) {
	for name, e := range map[string]ends{
		"complete": {status: 200, usage: told(1, 5000)},
		"cut":      {status: 200, cut: true, events: 5000},
		"ended":    {status: 200, refused: true, events: 5000},
	} {
		r := newRig(t, subscribed("tokens: {total: 300/day}"))
		require.Equal(t, 200, r.send(body{prompt: 4, stream: true}).end(e).status(), name)
		require.Equal(t, 429, r.send(body{prompt: 4, stream: true}).end(ends{}).status(), name)
	}
}

// What nobody has told is charged by the reservation, of which a small limit has a smaller one. The metric is that of the
// largest.
func TestChargedByTheEstimate(t *testing.T) {
	for _, c := range []struct {
		amounts    string
		e          ends
		charged    int64
		completion int64
		spent      int64
	}{
		{"tokens: {total: 100/min}", ends{status: 200}, 13, 12, 13},
		{"tokens: {total: 100/min}", ends{status: 200, broken: true, events: 500}, 13, 12, 13},
		{"tokens: {total: 100/min}", ends{status: 200, broken: true, events: 5}, 6, 5, 6},
		{"tokens: {completion: 100/min}", ends{status: 200}, 12, 12, 13},
		{"tokens: {prompt: 100/min}", ends{status: 200}, 1, 1024, 1025},
		{"tokens: {total: 100/min}, budget: 1/day", ends{status: 200}, 13, 1024, 1025},
		{"budget: 0.0001/min", ends{status: 200}, 12_000, 11, 12},
		{"budget: 0.0001/min", ends{status: 200, broken: true, events: 50}, 12_000, 11, 12},
	} {
		r := newRig(t, subscribed(c.amounts)+"prices: {\"*\": {prompt: 1, completion: 1}}\n")
		call := r.send(body{prompt: 4})
		before := r.f.table.Standing(r.clock, &call.x.State().(*request).demands[0])
		call.end(c.e)
		after := r.f.table.Standing(r.clock, &call.x.State().(*request).demands[0])
		require.Equal(t, c.charged, after.Used-before.Used, c.amounts)
		require.Equal(t, c.completion, r.samples["inlet_quota_tokens_total p completion"], c.amounts)
		require.EqualValues(t, 1, r.samples["inlet_quota_tokens_total p prompt"], c.amounts)
		require.Equal(t, c.spent*1000, r.samples["inlet_quota_spent_nano_total p"], c.amounts)
	}
}

// Where nothing tells the tokens that were computed, the estimate is charged or the request is refused: it is never free.
func TestNothingThatComputesIsFree(t *testing.T) {
	for api, want := range map[llm.API]int64{
		llm.Videos: 100 + 125, llm.Moderations: 100, llm.Audio: 100 + 125, llm.Generate: 100 + 125, llm.Other: 100 + 125, llm.Embeddings: 100,
		llm.CountTokens: 0, llm.Tokenize: 0, llm.Detokenize: 0, llm.Models: 0,
	} {
		const amounts = "tokens: {total: 1000/day}, budget: 1/day"
		const prices = "prices: {\"*\": {prompt: 1, completion: 1}}\n"
		r := newRig(t, subscribed(amounts)+prices)
		require.Equal(t, 200, r.send(body{api: api, prompt: 400}).end(ends{status: 200}).status(), api)
		left, _ := r.remaining()
		require.Equal(t, want, 1000-left, api)

		r = newRig(t, subscribed(amounts)+prices+"usage: {unread: refuse}\n")
		c := r.send(body{api: api, prompt: 400})
		if want == 0 || api.TellsUsage() {
			require.Equal(t, 200, c.status(), api)
			continue
		}
		require.Equal(t, 403, c.status(), api)
		require.Equal(t, "usage_not_told", c.v.Refusal().Code)
	}
}

// What a request takes nothing of need not be left.
func TestLimitsOfWhatIsNotTaken(t *testing.T) {
	embed := body{api: llm.Embeddings, path: "/v1/embeddings", prompt: 400}
	for amounts, want := range map[string]int{
		"tokens: {completion: 100/day}": 200, "tokens: {total: 100/day}": 429, "tokens: {prompt: 100/day}": 429, "budget: 0.0001/day": 200,
	} {
		r := newRig(t, subscribed(amounts)+"prices: {\"*\": {prompt: 0, completion: 1}}\n")
		require.Equal(t, 200, r.send(body{max: 100}).end(ends{status: 200, usage: told(100, 100)}).status(), amounts)
		require.Equal(t, want, r.send(embed).end(ends{status: 200, usage: told(100, 0)}).status(), amounts)
	}
	// A product that only admits none of it refuses the rest all the same.
	r := newRig(t, subscribed("tokens: {completion: 0/day}"))
	require.Equal(t, 200, r.send(embed).status())
	require.Equal(t, 429, r.send(body{max: 1}).status())
}

// failing is a table whose writes fail so many times.
type failing struct {
	account.Table
	times int
}

func (f *failing) fails() bool { f.times--; return f.times >= 0 }

func (f *failing) Settle(now time.Time, d []account.Demand, used []int64) error {
	if f.fails() {
		return errors.New("busy")
	}
	return f.Table.Settle(now, d, used)
}

func (f *failing) Refund(now time.Time, d []account.Demand) error {
	if f.fails() {
		return errors.New("busy")
	}
	return f.Table.Refund(now, d)
}

// What could not be written is written a second time. If that fails too, a metric says so.
func TestWritesOnceMore(t *testing.T) {
	for _, e := range []ends{{status: 200, usage: told(0, 2)}, {refused: true, served: "-"}} {
		for times, failed := range []int64{0, 0, 1} {
			r := newRig(t, subscribed("tokens: {total: 10/day}"))
			r.f.table = &failing{r.f.table, times}
			c := r.send(body{max: 5})
			c.end(e)
			require.Equal(t, failed, r.samples["inlet_quota_store_failure_total not_settled"])
			left := int64(10 - e.usage.Total)
			if failed > 0 {
				left = 10 - 5 // until the hold is over
			}
			require.Equal(t, left, r.left(c), times)
		}
	}
}

// A reported usage counts also above the limit; the next request is refused.
func TestReportedUsageGoesAboveTheLimit(t *testing.T) {
	r := newRig(t, subscribed("tokens: {total: 320/min}"))
	require.Equal(t, 200, r.send(body{prompt: 1200, max: 20}).end(ends{status: 200, usage: told(330, 20)}).status())
	require.Equal(t, 429, r.send(body{max: 1}).end(ends{}).status())
}

// Every limit that fits binds, and what open requests hold counts.
func TestEveryLimitBinds(t *testing.T) {
	r := newRig(t, twoKeys+"limits: [{name: org, per: [developer], requests: 100/min}, {name: user, per: [app], requests: 3000/min}]")
	r.pass(2 * time.Second)
	for i := range 100 {
		require.Equal(t, 200, r.send(body{}).end(ends{status: 200}).status(), i)
	}
	require.Equal(t, 429, r.send(body{}).end(ends{}).status())

	r = newRig(t, subscribed("tokens: {total: 100/min}"))
	require.Equal(t, 200, r.send(body{max: 80}).status())
	c := r.send(body{max: 50}).end(ends{})
	require.Equal(t, 429, c.status())
	require.Equal(t, "20", c.header("x-ratelimit-remaining-tokens"), "what is held is not left, and what was asked for is")
}

// Keys and the values of dimensions have counters of their own; what has no value shares one.
func TestCountersAreKeptApart(t *testing.T) {
	twice := func(t *testing.T, doc string, a, b body, apart bool) {
		t.Helper()
		r := newRig(t, doc)
		require.Equal(t, 200, r.send(a).end(ends{status: 200}).status())
		require.Equal(t, 429, r.send(a).end(ends{}).status())
		want := 429
		if apart {
			want = 200
		}
		require.Equal(t, want, r.send(b).end(ends{status: 200}).status())
	}
	twice(t, subscribed("requests: 1/min"), body{}, body{key: "other"}, true)
	for per, c := range map[string]struct {
		b    body
		also string
	}{
		"app":    {b: body{key: "other"}},
		"tenant": {b: body{headers: headers{"x-tenant: b"}}, also: ", header: x-tenant"},
		"model":  {b: body{model: "gemma"}},
		"pool":   {b: body{pool: "b"}},
		"ip":     {b: body{client: "10.0.0.2"}},
	} {
		a := body{headers: headers{"x-tenant: a"}, model: "llama", pool: "a", client: "10.0.0.1"}
		b := a
		if c.b.headers != nil {
			b.headers = c.b.headers
		}
		b.key, b.pool, b.client = c.b.key, orElse(c.b.pool, a.pool), orElse(c.b.client, a.client)
		b.model = orElse(c.b.model, a.model)
		for _, other := range []string{"app", "tenant", "model", "pool", "ip"} {
			doc := twoKeys + "limits: [{name: l, per: [" + other + "], requests: 1/min"
			if other == "tenant" {
				doc += ", header: x-tenant"
			}
			twice(t, doc+"}]", a, b, other == per)
		}
		doc := twoKeys + "limits: [{name: l, per: [model, " + per + "], requests: 1/min" + c.also + "}]"
		if per == "model" {
			doc = twoKeys + "limits: [{name: l, per: [app, model], requests: 1/min}]"
		}
		twice(t, doc, a, b, true)
	}
	twice(t, twoKeys+"limits: [{name: l, requests: 1/min}]", body{}, body{key: "other", model: "gemma"}, false)
	tenants := twoKeys + "limits: [{name: l, per: [tenant], header: x-tenant, requests: 1/min}]"
	twice(t, tenants, body{}, body{key: "other"}, false)
	twice(t, tenants, body{}, body{headers: headers{"x-tenant:"}}, false)
	twice(t, tenants, body{}, body{headers: headers{"x-tenant: a"}}, true)
	twice(t, twoKeys+"limits: [{name: l, per: [developer], requests: 1/min}]", body{}, body{key: "other"}, false)
}

func orElse(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// No value can be made to name another's counter.
func TestNamesOfAccounts(t *testing.T) {
	r := newRig(t, twoKeys+"limits: [{name: l, per: [tenant, model], header: x-tenant, requests: 1/min}]")
	a := body{headers: headers{"x-tenant: a,model=b"}, model: "c"}
	require.Equal(t, 200, r.send(a).end(ends{status: 200}).status())
	require.Equal(t, 200, r.send(body{headers: headers{"x-tenant: a"}, model: "b,model=c"}).end(ends{status: 200}).status())
	long := strings.Repeat("x", 1000)
	require.Equal(t, 200, r.send(body{model: long + "1"}).end(ends{status: 200}).status())
	require.Equal(t, 200, r.send(body{model: long + "2"}).end(ends{status: 200}).status())
	require.Equal(t, 429, r.send(body{model: long + "2"}).end(ends{}).status())
}

// One model has one name, which its route says, for the check and the charge.
func TestCanonicalModel(t *testing.T) {
	r := newRig(t, twoKeys+"prices: {big: {prompt: 10, completion: 10}, free: {prompt: 0, completion: 0}, \"*\": {prompt: 1, completion: 1}}\nlimits: [{name: l, per: [model], budget: 0.001/day}]")
	ask := func(alias, model string) *call {
		c := &call{r: r, x: &filter.Exchange{}}
		c.x.Reset(1)
		c.x.API, c.x.Start = llm.Chat, r.clock
		c.x.RequestHeaders = headers{"x-api-key: demo"}
		c.x.Request = &llm.Request{Model: alias, MaxTokens: 50}
		require.Equal(t, filter.Next, r.f.OnRequestHeaders(c.x))
		c.x.Route.Model, c.x.Route.Target = model, "org/"+model+"@v2"
		c.v = r.f.OnRequest(c.x)
		return c
	}
	require.Equal(t, 200, ask("big-fast", "big").end(ends{status: 200, usage: told(50, 50)}).status())
	require.Equal(t, 429, ask("big", "big").end(ends{}).status())
	require.Equal(t, 429, ask("big-slow", "big").end(ends{}).status())
	require.Equal(t, 200, ask("cheap", "free").end(ends{status: 200, usage: told(50, 50)}).status(), "costs nothing")
	require.Equal(t, 200, ask("x", "other").status())
}

// A limit that is changed keeps what was used, and one that is not changed keeps all.
func TestUpdateKeepsWhatWasUsed(t *testing.T) {
	r := newRig(t, subscribed("requests: 10/h"))
	times := func(n, want int) {
		t.Helper()
		for range n {
			require.Equal(t, want, r.send(body{}).end(ends{status: 200}).status())
		}
	}
	times(10, 200)
	times(40, 429)
	r.load(subscribed("requests: 10/h, models: [llama]") + "shadow: false\n")
	times(1, 429)
	r.load(subscribed("requests: 20/h"))
	times(10, 200)
	times(1, 429)
	r.load(subscribed("requests: 5/h"))
	times(1, 429)
}

// A request in progress ends by the rules under which it began; the next one is judged by those of now.
func TestRulesChangeWhileARequestRuns(t *testing.T) {
	r := newRig(t, subscribed("tokens: {total: 1000/day}"))
	c := r.send(body{max: 500})
	before := r.f
	r.load(strings.Replace(subscribed("tokens: {total: 100/day}"), "products: [p], sha256: KEY(demo)", "products: [p], status: revoked, sha256: KEY(demo)", 1))
	require.Equal(t, 401, r.send(body{}).end(ends{}).status())
	c.r = &rig{t: t, f: before, clock: r.clock}
	c.end(ends{status: 200, usage: told(20, 80)})
	r.load(subscribed("tokens: {total: 100/day}"))
	require.Equal(t, 429, r.send(body{max: 1}).end(ends{}).status())
	r.load(subscribed("tokens: {total: 101/day}"))
	require.Equal(t, 200, r.send(body{max: 1}).status())
}

// A blocked request gives everything back; an over-limit one is refused first.
func TestBlockedRequestsAreNotCounted(t *testing.T) {
	r := newRig(t, subscribed("requests: 1/min"))
	require.Equal(t, 200, r.send(body{}).end(ends{refused: true, served: "-"}).status())
	require.Equal(t, 200, r.send(body{}).end(ends{status: 200}).status())
	require.Equal(t, 429, r.send(body{}).end(ends{}).status())
}

// Money is counted in integers, with the function that settles.
func TestMoney(t *testing.T) {
	doc := twoKeys + "prices: {llama: {prompt: 1.5, completion: 2, cached: 0.15}}\nlimits: [{name: l, per: [app], budget: 0.45/day}]"
	r := newRig(t, doc)
	r.pass(2 * time.Second)
	c := r.send(body{prompt: 4 * 300_000, max: 1})
	require.Equal(t, 429, c.status(), "300,000 tokens at 1.5 and one at 2 are more than 0.45")
	require.Equal(t, "request_exceeds_limit", c.v.Refusal().Code)
	require.Equal(t, 200, r.send(body{api: llm.Embeddings, prompt: 4 * 300_000}).end(ends{status: 200, usage: told(100_000, 0)}).status())
	at := r.send(body{api: llm.Embeddings, prompt: 4 * 200_000})
	require.Equal(t, 200, at.status(), "exactly what is left")
	at.end(ends{status: 200, usage: llm.Usage{Known: true, Prompt: 200_000, Cached: 100_000}})
	require.EqualValues(t, 450_000_000-135_000_000, r.samples["inlet_quota_spent_nano_total"])
	for range 2 {
		open := r.send(body{api: llm.Embeddings, prompt: 4 * 60_000})
		require.Equal(t, 200, open.status())
		defer open.end(ends{refused: true, served: "-"})
		require.Equal(t, 429, r.send(body{api: llm.Embeddings, prompt: 4 * 60_000}).end(ends{}).status(), "five at once are not five budgets")
		open.end(ends{refused: true, served: "-"})
	}
	c = r.send(body{model: "unknown"}).end(ends{})
	require.Equal(t, "model_without_price", c.v.Refusal().Code)
}

// Where cached tokens are dearer than others, as many are reserved for as there may be.
func TestMoneyIsReservedAtTheDearest(t *testing.T) {
	r := newRig(t, twoKeys+"prices: {llama: {prompt: 1, completion: 1, cached: 3}}\nlimits: [{name: l, per: [app], budget: 0.0003/day}]")
	open := r.send(body{api: llm.Embeddings, prompt: 4 * 100})
	require.Equal(t, 200, open.status())
	require.Equal(t, 429, r.send(body{api: llm.Embeddings, prompt: 4}).end(ends{}).status(), "all of it is reserved")
	open.end(ends{status: 200, usage: llm.Usage{Known: true, Prompt: 100, Cached: 100}})
	require.EqualValues(t, 300_000, r.samples["inlet_quota_spent_nano_total"])
	require.Equal(t, 429, r.send(body{api: llm.Embeddings, prompt: 4}).end(ends{}).status())
}

// Sums of prices with decimals do not drift.
func TestMoneyDoesNotDrift(t *testing.T) {
	p := price{scale(0.1), scale(0.2), scale(0.1)}
	var sum int64
	for range 10 {
		sum += p.of(told(1, 0))
	}
	require.EqualValues(t, 1000, sum) // 10 tokens at 0.1 for a million
	require.EqualValues(t, 1, price{prompt: scale(0.000001)}.of(told(1, 0)), "rounded up")
	require.Positive(t, price{maxPrice * perUnit, maxPrice * perUnit, 0}.of(told(maxTokens, maxTokens)))
}

// Answers that no client bounds are reserved for as long as they mostly are.
func TestLengthOfAnswersIsLearned(t *testing.T) {
	r := newRig(t, subscribed("tokens: {completion: 100M/day}")+"estimate: {completion: 900}\n")
	held := func(b body) int64 {
		c := r.send(b)
		require.Equal(t, 200, c.status())
		defer c.end(ends{refused: true, served: "-"})
		return c.x.State().(*request).demands[0].Amount
	}
	require.EqualValues(t, 900, held(body{}))
	for i := range enoughSeen {
		require.EqualValues(t, 900, held(body{}), i)
		r.send(body{max: 5000}).end(ends{status: 200, usage: told(1, 5000)}) // bounded, so it says nothing
		r.send(body{}).end(ends{status: 200, cut: true, usage: told(1, 1)})  // nor does one that was cut
		r.send(body{n: 2}).end(ends{status: 200, usage: told(1, 2*(60+i%2*20))})
	}
	require.InDelta(t, 70, held(body{}), 2)
	require.InDelta(t, 210, held(body{n: 3}), 6)
	require.EqualValues(t, 900, held(body{model: "other"}))
	require.EqualValues(t, 5000, held(body{max: 5000}))
	for range 200 {
		r.send(body{}).end(ends{status: 200, usage: told(1, 500)})
	}
	require.InDelta(t, 500, held(body{}), 2)
	for i := range 2 * maxLearned {
		r.send(body{model: fmt.Sprint(i)}).end(ends{status: 200, usage: told(1, 1)})
	}
	require.LessOrEqual(t, len(r.f.learned.byModel), maxLearned)
}

// Neither refusals nor the access log nor metrics contain a key, and no other caller's numbers.
func TestNoKeyIsShown(t *testing.T) {
	const secret = "sk-0123456789abcdef"
	r := newRig(t, strings.ReplaceAll(subscribed("requests: 1/day, models: [llama]"), "KEY(demo)", "KEY("+secret+")"))
	for _, b := range []body{{key: secret}, {key: secret}, {key: secret, model: "x"}, {key: secret + "x"}, {key: secret, headers: headers{"authorization: Bearer " + secret}}} {
		c := r.send(b)
		shown := string(c.x.Why()) + fmt.Sprint(r.samples) + fmt.Sprint(r.logs)
		if refusal := c.v.Refusal(); refusal != nil {
			shown += refusal.Message + refusal.Reason + fmt.Sprint(refusal.Headers) + string(refusal.Body)
		}
		require.NotContains(t, shown, secret)
		c.end(ends{status: 200})
	}
}

// The limit that binds is the one that is told; of the other kind it is the tightest.
func TestWhichLimitIsTold(t *testing.T) {
	r := newRig(t, subscribed("requests: \"9/day, 2/h, 5/min\", tokens: {total: 1000/day, prompt: 100/day}"))
	for range 2 {
		require.Equal(t, 200, r.send(body{prompt: 40, max: 10}).end(ends{status: 200, usage: told(10, 10)}).status())
	}
	c := r.send(body{prompt: 40, max: 10}).end(ends{})
	require.Equal(t, "2", c.header("x-ratelimit-limit-requests"))
	require.Equal(t, "0", c.header("x-ratelimit-remaining-requests"))
	require.Equal(t, "100", c.header("x-ratelimit-limit-tokens"))
	require.Equal(t, "80", c.header("x-ratelimit-remaining-tokens"))
}
