package picker

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// spread counts where n requests go, that stay in flight; prompt makes them.
func (r *rig) spread(t require.TestingT, n int, prompt func(i int) *filter.Exchange) map[string]int {
	hits := map[string]int{}
	for i := range n {
		hits[r.send(t, prompt(i))]++
	}
	return hits
}

func most(hits map[string]int) (n int) {
	for _, k := range hits {
		n = max(n, k)
	}
	return n
}

// A burst within one scrape spreads, since what was sent counts at once; also when
// the gauges make one replica look better, as they did before the burst. (The herd
// that pickers that use gauges suffer from.)
func TestNoHerd(t *testing.T) {
	for _, profile := range []string{"sticky", "least-request"} {
		for name, prompt := range map[string]func(int) *filter.Exchange{
			"long prompts":  func(i int) *filter.Exchange { return request(uint64(i), 20) },
			"short prompts": func(i int) *filter.Exchange { return request(uint64(i), 0) },
		} {
			r := newRig(t, "profile: "+profile)
			eps := ready(8)
			for i := range eps[1:] {
				eps[i+1].Gauges.Waiting = 2
			}
			r.serve(eps...)
			hits := r.spread(t, 200, prompt)
			require.Len(t, hits, 8)
			require.LessOrEqual(t, most(hits), 200/8*13/10, "%s, %s: %v", profile, name, hits)
		}
	}
}

// When all replicas are saturated, gauges are no guide any more: what comes within one scrape
// is shared out, though one replica has a little more of its cache free.
func TestTheWeightedProfileSharesOverload(t *testing.T) {
	const replicas, before, within = 10, 2000, 200
	r := newRig(t, "{profile: weighted}")
	eps := ready(replicas)
	r.serve(eps...)
	for range before {
		r.send(t, request(0, 0))
	}
	for i := range eps {
		eps[i].Gauges = endpoint.Gauges{Waiting: int(r.inFlight(eps[i].Address)) - 100, Running: 100, KVUse: 1}
	}
	eps[3].Gauges.KVUse = 0.97
	r.serve(eps...)
	for range within {
		r.send(t, request(0, 0))
	}
	for i := range eps {
		require.InDelta(t, (before+within)/replicas, r.inFlight(eps[i].Address), 2)
	}
}

// The weighted profile follows the gauges within one scrape, by what it is, but not
// beyond what a replica can take; and not at all when they say the same.
func TestTheHerdOfTheWeightedProfileIsBounded(t *testing.T) {
	for skew, limit := range []int{32, 100} {
		r := newRig(t, "{profile: weighted, saturation: {inFlight: 100}}")
		eps := ready(8)
		for i := range eps[1:] {
			eps[i+1].Gauges.Waiting = 2 * skew
		}
		r.serve(eps...)
		hits := r.spread(t, 200, func(i int) *filter.Exchange { return request(uint64(i), 20) })
		require.LessOrEqual(t, most(hits), limit)
	}
}

func TestAConversationStays(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(8)...)
	for range 40 { // others
		r.send(t, request(99, 10))
	}
	for conversation := range uint64(20) {
		at := r.serveOne(t, request(conversation, 10), 200)
		for turn := range 9 {
			require.Equal(t, at, r.serveOne(t, request(conversation, 11+turn), 200))
		}
	}
}

// A prompt that everybody sends stays with one replica until that has more than its
// share, then goes to a second one too, and so on.
func TestOnePromptSpills(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(8)...)
	same := func(int) *filter.Exchange { return request(1, 40) }
	require.Len(t, r.spread(t, fewRequests, same), 1)
	require.Len(t, r.spread(t, fewRequests, same), 2, "the second one gets the next")
	hits := r.spread(t, 600, same)
	require.Greater(t, len(hits), 5)
	require.LessOrEqual(t, most(hits), 96+fewRequests+1, "the bound")

	// The same by tokens: each request has more of its own to compute.
	r = newRig(t, "{prefix: {maxTokens: 7000}}")
	r.serve(ready(8)...)
	seed := uint64(1)
	tail := func(int) *filter.Exchange {
		x := request(1, 90)
		seed++
		x.Request.Prefix = append(x.Request.Prefix, request(seed, 10).Request.Prefix...)
		return x
	}
	first := r.spread(t, 5, tail)
	require.Len(t, first, 1)
	for at := range r.spread(t, 4, tail) {
		require.NotContains(t, first, at)
	}
}

// What a token in the cache weighs decides for how long a request waits for it.
func TestWeight(t *testing.T) {
	for weight, stays := range map[string]bool{"1": false, "4": false, "16": true} {
		r := newRig(t, "{prefix: {hit: 1, weight: "+weight+"}}")
		r.serve(ready(2)...)
		at := r.serveOne(t, request(1, 20), 200)
		var all int64
		for seed := uint64(10); 2*r.tokens(at)-all < 9000; seed++ { // it has one long prompt more than the other
			require.Less(t, seed, uint64(17))
			r.send(t, request(seed, 150))
			all += 150*64 + tokensOfRequest
		}
		half := request(1, 20)
		half.Request.Prefix = append(half.Request.Prefix, request(2, 20).Request.Prefix...)
		require.Equal(t, stays, r.send(t, half) == at, "weight %s", weight)
	}
}

// A request stays where a part of its prompt is until it would wait there for weight times as many tokens as it finds, more than elsewhere.
func TestWeightIsTokensToWaitFor(t *testing.T) {
	for _, weight := range []int{1, 2, 10} {
		for _, more := range []int{-1, 1} {
			r := newRig(t, fmt.Sprintf("{slowStart: 0s, prefix: {hit: 1, weight: %d}}", weight))
			eps := ready(2)
			r.serve(eps...)
			at := r.serveOne(t, request(1, 20), 200)
			x := request(1, 20) // half of it is known
			x.Request.Prefix = append(x.Request.Prefix, request(2, 20).Request.Prefix...)
			x.Request.PromptBytes = 40 * llm.PrefixBlockBytes
			for i := range eps {
				if eps[i].Address == at {
					eps[i].Peers = endpoint.InFlight{Requests: 1, Tokens: int64(weight*20*llm.PrefixBlockTokens + more)}
				}
			}
			r.serve(eps...)
			require.Equal(t, more < 0, r.send(t, x) == at, "weight %d, %d token more than that", weight, more)
		}
	}
}

// Gauges veto: a replica whose queue is long does not get more of the prompts that
// it knows. A full cache is no reason to go away: it is full of them.
func TestGaugesVeto(t *testing.T) {
	for _, c := range []struct {
		gauges endpoint.Gauges
		stays  bool
	}{
		{endpoint.Gauges{Known: true, Waiting: 11}, false},
		{endpoint.Gauges{Known: true, KVUse: 1}, true},
	} {
		r := newRig(t, "{}")
		eps := ready(4)
		r.serve(eps...)
		at := r.serveOne(t, request(1, 10), 200)
		require.Equal(t, at, r.serveOne(t, request(1, 10), 200))
		for i := range eps {
			if eps[i].Address == at {
				eps[i].Gauges = c.gauges
			}
		}
		r.serve(eps...)
		require.Equal(t, c.stays, at == r.serveOne(t, request(1, 10), 200), "%+v", c.gauges)
	}
}

// Where all are busy, a queue as long as the others' is no reason to go away.
func TestABusyFleetKeepsItsConversations(t *testing.T) {
	r := newRig(t, "{}")
	eps := ready(4)
	r.serve(eps...)
	at := r.serveOne(t, request(1, 10), 200)
	for i := range eps {
		eps[i].Gauges.Waiting = 10
		if eps[i].Address == at {
			eps[i].Gauges.Waiting = 12
		}
	}
	r.serve(eps...)
	require.Equal(t, at, r.serveOne(t, request(1, 12), 200))
	require.Equal(t, at, r.serveOne(t, request(1, 20), 200), "half of it is worth staying for")
}

// A fleet with more work than it can do keeps its conversations too: to compute
// prompts again would make it more.
func TestAnOverloadedFleetKeepsItsConversations(t *testing.T) {
	r := newRig(t, "{prefix: {maxTokens: 20000}}")
	r.serve(ready(4)...)
	at := map[uint64]string{}
	for c := range uint64(40) {
		at[c] = r.serveOne(t, request(1000+c, 40), 200)
	}
	for i := range 4 * 150 { // 2,700 tokens each
		r.send(t, request(uint64(i), 40))
	}
	for c := range uint64(40) {
		require.Equal(t, at[c], r.serveOne(t, request(1000+c, 42), 200))
	}
}

// A prompt is work before its replica until the answer's first byte; the request is
// until its end.
func TestTheFirstByteEndsThePrompt(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(1)...)
	x := request(1, 40)
	at := r.send(t, x)
	require.Greater(t, r.tokens(at), int64(2000))
	x.Response.Served, x.Response.Status = at, 200
	r.f.OnResponseHeaders(x)
	require.Greater(t, r.tokens(at), int64(2000))
	for range 2 {
		r.f.OnFirstByte(x)
		require.EqualValues(t, tokensOfRequest, r.tokens(at))
		require.EqualValues(t, 1, r.inFlight(at))
	}
	r.f.OnDone(x, filter.End{})
	require.Zero(t, r.tokens(at))
	r.f.OnFirstByte(x) // of a request that is over, or was never sent
	r.f.OnFirstByte(request(1, 1))
	require.Zero(t, r.tokens(at))
}

// A gauge that nobody renews means nothing: the replica that looked idle when its
// metrics were last read gets no more than the others, and one that looked full
// no less. (The busiest backend that looked idle; 99 % of the time "saturated".)
func TestStaleGauges(t *testing.T) {
	for _, profile := range []string{"sticky", "weighted", "least-request"} {
		r := newRig(t, "{shed: true, profile: "+profile+"}")
		eps := ready(4)
		eps[0].Gauges = endpoint.Gauges{Waiting: 1000, Running: 1000, KVUse: 1}
		eps[1].Gauges = endpoint.Gauges{}
		eps[2].Gauges = endpoint.Gauges{Waiting: 4, Running: 100, KVUse: 0.5}
		r.serve(eps...)
		r.now = r.now.Add(30 * time.Second)
		hits := r.spread(t, 200, func(i int) *filter.Exchange { return request(uint64(i), 10) })
		require.Len(t, hits, 4)
		require.LessOrEqual(t, most(hits), 200/4*13/10, profile)
	}
}

// Where nobody knows a prompt, proxies that have never heard of each other send it
// to the same replica.
func TestProxiesAgreeOnNewPrompts(t *testing.T) {
	a, b := newRig(t, "{}"), newRig(t, "{}")
	a.serve(ready(20)...)
	b.serve(ready(20)...)
	used := map[string]bool{}
	for seed := range uint64(100) {
		at := a.serveOne(t, request(seed, 10), 200)
		require.Equal(t, at, b.serveOne(t, request(seed, 12), 200))
		used[at] = true
	}
	require.Greater(t, len(used), 15)
}

// What a replica computed for one model is useless for another.
func TestModelsDoNotShare(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(20)...)
	at := map[string]string{}
	for _, model := range []string{"a", "b", "lora-1", "lora-2"} {
		x := request(1, 10)
		x.Route.Target = model
		at[model] = r.serveOne(t, x, 200)
		require.Contains(t, string(x.Why()), "hit=0/10")
		x = request(1, 10)
		x.Route.Target = model
		require.Equal(t, at[model], r.serveOne(t, x, 200))
		require.Contains(t, string(x.Why()), "hit=10/10")
	}
}

// What was noted when a request was sent is put right when somebody else serves
// it, or nobody.
func TestWhatIsNotComputedIsNotHeld(t *testing.T) {
	for name, c := range map[string]struct {
		served string // "" as picked
		status int
		holds  bool
	}{
		"answered":     {"", 200, true},
		"refused":      {"", 400, false},
		"failed":       {"", 503, false},
		"from another": {"10.9.9.9:80", 200, false},
	} {
		r := newRig(t, "{}")
		r.serve(ready(20)...)
		x := request(1, 10)
		at := r.send(t, x)
		if c.served == "" {
			r.answer(x, c.status)
		} else {
			r.answerFrom(x, c.served, c.status)
		}
		m := r.f.fleet.find(at)
		s := &state{pick: &pick{}}
		s.read(r.f, request(1, 10))
		r.f.fleet.index.Match(s.chain, &s.matches)
		require.Equal(t, c.holds, s.matches.Of(m.slot) == 10, name)
		if c.served != "" {
			require.Equal(t, 10, s.matches.Of(r.f.fleet.find(c.served).slot))
		}
	}
}

// A replica that has just become ready gets less than the others at first, and its
// share in the end. Those that were there from the beginning are not new.
func TestSlowStart(t *testing.T) {
	r := newRig(t, "{slowStart: 10s}")
	eps := ready(4)
	eps[3].Ready = false
	r.serve(eps...)
	r.serveOne(t, request(0, 0), 200)
	eps[3].Ready = true
	short := func(int) *filter.Exchange { return request(0, 0) }
	count := func(after time.Duration) int {
		r.now = r.now.Add(after)
		var open []*filter.Exchange
		hits := r.spread(t, 310, func(i int) *filter.Exchange { open = append(open, short(i)); return open[i] })
		for _, x := range open {
			r.answer(x, 200)
		}
		return hits[eps[3].Address]
	}
	r.serve(eps...)
	require.InDelta(t, 10, count(0), 3)
	require.InDelta(t, 44, count(5*time.Second), 5)
	require.InDelta(t, 77, count(5*time.Second), 5)
}
