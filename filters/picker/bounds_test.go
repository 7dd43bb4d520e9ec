package picker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// partly is a prompt of so many blocks of which the first are those of request(1, known).
func partly(known, blocks int) *filter.Exchange {
	x := request(1, known)
	x.Request.Prefix = append(x.Request.Prefix, request(2, blocks-known).Request.Prefix...)
	x.Request.PromptBytes = blocks * llm.PrefixBlockBytes
	return x
}

// homed is n replicas of which one, home, holds 20 blocks of a prompt.
func homed(t *testing.T, doc string, n int) (r *rig, eps []endpoint.Endpoint, home int) {
	r, eps = newRig(t, doc), ready(n)
	r.serve(eps...)
	at := r.serveOne(t, request(1, 20), 200)
	for i := range eps {
		if eps[i].Address == at {
			return r, eps, i
		}
	}
	t.Fatal("nobody served it")
	return nil, nil, 0
}

// Up to where a request stays with the replica that has computed its prompt, to the last token and request.
func TestUpToWhereARequestStays(t *testing.T) {
	for name, c := range map[string]struct {
		doc        string
		home, rest endpoint.Endpoint // what is known of home, and of each of the others
		blocks     int               // of the prompt; home has 20
		stays      bool
	}{
		// A queue of room.queue above twice the mean: here (3*2+14)/4 = 5 and (3*2+15)/4 = 5.25.
		"a queue":        {"{}", waits(14), waits(2), 20, true},
		"a longer queue": {"{}", waits(15), waits(2), 20, false},
		"another bound":  {"{saturation: {queue: 7}}", waits(15), waits(2), 20, true},
		// saturation above twice the mean: here 9,998/4 and 9,999/4.
		"tokens":      {"{prefix: {maxTokens: 5000}}", flies(1, 9998), endpoint.Endpoint{}, 20, true},
		"more tokens": {"{prefix: {maxTokens: 5000}}", flies(1, 9999), endpoint.Endpoint{}, 20, false},
		// room.inFlight, but 8 at most, above 1.25 times the mean: here 8 and 1.25*(3*4+15)/4 = 8.4, and 8 and 1.25*(3*4+16)/4 = 8.75.
		"requests":                 {"{}", flies(15, 3000), flies(4, 0), 20, true},
		"more requests":            {"{}", flies(16, 3000), flies(4, 0), 20, false},
		"few requests, few places": {"{saturation: {inFlight: 3}}", flies(2, 3000), endpoint.Endpoint{}, 20, true},
		"few places":               {"{saturation: {inFlight: 3}}", flies(3, 3000), endpoint.Endpoint{}, 20, false},
		// From a share of prefix.hit on, whatever waits there.
		"the share":      {"{prefix: {hit: 0.5, weight: 1}}", flies(1, 200_000), endpoint.Endpoint{}, 40, true},
		"less than that": {"{prefix: {hit: 0.5, weight: 1}}", flies(1, 200_000), endpoint.Endpoint{}, 41, false},
	} {
		r, eps, home := homed(t, c.doc, 4)
		for i := range eps {
			known := c.rest
			if i == home {
				known = c.home
			}
			eps[i].Gauges, eps[i].Peers = known.Gauges, known.Peers
		}
		r.serve(eps...)
		require.Equal(t, c.stays, r.send(t, partly(20, c.blocks)) == eps[home].Address, name)
	}
}

func waits(n int) endpoint.Endpoint { return endpoint.Endpoint{Gauges: endpoint.Gauges{Waiting: n}} }

func flies(requests, tokens int64) endpoint.Endpoint {
	return endpoint.Endpoint{Peers: endpoint.InFlight{Requests: requests, Tokens: tokens}}
}

// A prompt that nobody knows goes where all proxies would send it, as long as the load there is no more than a quarter above the mean.
func TestUpToWhereANewPromptGoesHome(t *testing.T) {
	for _, c := range []struct {
		tokens int64 // at home; 1,000 at each of the three others
		goes   bool
	}{{1000, true}, {1363, true}, {1364, false}} {
		r, eps := newRig(t, "{}"), ready(4)
		r.serve(eps...)
		home := newRigOfFour(t).send(t, request(1, 20))
		for i := range eps {
			eps[i].Peers = endpoint.InFlight{Requests: 1, Tokens: 1000}
			if eps[i].Address == home {
				eps[i].Peers.Tokens = c.tokens
			}
		}
		r.serve(eps...)
		require.Equal(t, c.goes, r.send(t, request(1, 20)) == home, c.tokens)
	}
}

func newRigOfFour(t *testing.T) *rig {
	r := newRig(t, "{}")
	r.serve(ready(4)...)
	return r
}

// How the opinions of the weighted profile weigh against each other, as the README says: of two replicas one has a part of the prompt, and
// what speaks against it is a little less, or a little more.
func TestWeightsOfTheWeightedProfile(t *testing.T) {
	adapter := func(l endpoint.LoRA) endpoint.Endpoint { return endpoint.Endpoint{LoRA: &l} }
	at := func(e endpoint.Endpoint, waiting int) endpoint.Endpoint { e.Gauges.Waiting = waiting; return e }
	runs, fits, full := adapter(endpoint.LoRA{Running: []string{"a"}, Max: 2}), adapter(endpoint.LoRA{Max: 2}), adapter(endpoint.LoRA{Running: []string{"b"}, Max: 1})
	for name, c := range map[string]struct {
		a, b endpoint.Endpoint
		of   int // blocks of the prompt, of which the first replica has 20; 0: none
		wins bool
	}{
		"prefix 3 to queue 2: 0.90 to 0.89":    {waits(4), endpoint.Endpoint{}, 66, true},
		"prefix 3 to queue 2: 0.88 to 0.89":    {waits(4), endpoint.Endpoint{}, 68, false},
		"prefix 3 to cache 2: 1.22 to 1.20":    {endpoint.Endpoint{Gauges: endpoint.Gauges{KVUse: 0.6}}, endpoint.Endpoint{}, 49, true},
		"prefix 3 to cache 2: 1.18 to 1.20":    {endpoint.Endpoint{Gauges: endpoint.Gauges{KVUse: 0.6}}, endpoint.Endpoint{}, 51, false},
		"prefix 3 to in flight 1: 0.45":        {flies(4, 0), endpoint.Endpoint{}, 133, true},
		"prefix 3 to in flight 1: 0.43":        {flies(4, 0), endpoint.Endpoint{}, 139, false},
		"adapter 1 to queue 2: 1.00 to 0.89":   {at(runs, 4), full, 0, true},
		"adapter 1 to queue 2: 0.20 to 0.33":   {at(runs, 1), fits, 0, false},
		"adapter 1 to cache 2: 0.20 to 0.18":   {endpoint.Endpoint{LoRA: runs.LoRA, Gauges: endpoint.Gauges{KVUse: 0.09}}, fits, 0, true},
		"adapter 1 to cache 2: 0.20 to 0.22":   {endpoint.Endpoint{LoRA: runs.LoRA, Gauges: endpoint.Gauges{KVUse: 0.11}}, fits, 0, false},
		"in flight 1 to queue 2: 0.17 to 0.33": {flies(1, 0), waits(1), 0, true},
	} {
		r, eps := newRig(t, "{profile: weighted, slowStart: 0s}"), ready(2)
		r.serve(eps[:1]...)
		r.serveOne(t, request(1, 20), 200)
		for i, known := range []endpoint.Endpoint{c.a, c.b} {
			eps[i].Gauges, eps[i].Peers, eps[i].LoRA = known.Gauges, known.Peers, known.LoRA
		}
		r.serve(eps...)
		x := request(3, 10)
		if c.of > 0 {
			x = partly(20, c.of)
		}
		if c.a.LoRA != nil {
			x.Route.Target, x.Route.Base = "a", "base"
		}
		require.Equal(t, c.wins, r.send(t, x) == eps[0].Address, name)
	}
}
