package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// silences sends so many requests to the first of two replicas, whose clients wait in vain,
// and others to the second one, which answers.
func (r *rig) silences(t *testing.T, n int, waited time.Duration, gauges endpoint.Gauges, end filter.End) {
	eps := ready(2)
	eps[0].Gauges = gauges
	for range n {
		r.serve(eps...)
		eps[0].Gauges.Known = gauges.Known
		for at := range eps {
			x := request(0, 0)
			x.Subset = filter.Subset{Given: true, Addresses: []string{eps[at].Address}}
			require.Equal(t, eps[at].Address, r.send(t, x))
			if at == 0 {
				r.leave(x, waited, 0, end)
			} else {
				r.begin(x, 10*time.Millisecond)
			}
		}
	}
}

// Silence of a replica that is at work is ended by patience, not by the first clients that
// lose theirs; with nothing to do, or where nobody knows, these decide.
func TestSilenceAtWork(t *testing.T) {
	for name, c := range map[string]struct {
		gauges endpoint.Gauges
		waited time.Duration
		end    filter.End
		sent   int // until it is ejected
	}{
		"idle":                       {endpoint.Gauges{Known: true}, 10 * time.Second, filter.End{}, 3},
		"unknown":                    {endpoint.Gauges{Running: 3}, 10 * time.Second, filter.End{}, 3},
		"too old":                    {endpoint.Gauges{Known: true, Running: 3, Age: time.Minute}, 10 * time.Second, filter.End{}, 3},
		"one runs":                   {endpoint.Gauges{Known: true, Running: 1}, 10 * time.Second, filter.End{}, 6},
		"one waits":                  {endpoint.Gauges{Known: true, Waiting: 1}, 10 * time.Second, filter.End{}, 6},
		"patient clients":            {endpoint.Gauges{Known: true, Running: 1}, 2 * time.Minute, filter.End{}, 3},
		"at work, and breaks it off": {endpoint.Gauges{Known: true, Running: 1}, 10 * time.Second, filter.End{Broken: true}, 3},
	} {
		r := newRig(t, "{slowStart: 0s, health: {eject: 1s}}")
		r.silences(t, c.sent-1, c.waited, c.gauges, c.end)
		require.Zero(t, r.ejections(), name)
		r.silences(t, 1, c.waited, c.gauges, c.end)
		require.EqualValues(t, 1, r.ejections(), name)
	}
}

// A first byte for anybody ends the count.
func TestOneAtWorkThatAnswersAnybody(t *testing.T) {
	r := newRig(t, "{slowStart: 0s}")
	for range 10 {
		r.silences(t, 5, 10*time.Second, endpoint.Gauges{Known: true, Running: 1}, filter.End{})
		x := request(0, 0)
		x.Subset = filter.Subset{Given: true, Addresses: []string{"10.0.0.000:80"}}
		r.send(t, x)
		r.begin(x, 10*time.Millisecond)
	}
	require.Zero(t, r.ejections())
	require.False(t, r.f.fleet.isBackingOff(r.now))
}

// While a replica computes a long document, clients of other conversations there lose their
// patience. None of them loses what it had.
func TestConversationsBesideALongPrompt(t *testing.T) {
	r := newRig(t, "{slowStart: 0s}")
	r.serve(ready(2)...)
	home := "10.0.0.000:80"
	only := func(x *filter.Exchange) *filter.Exchange {
		x.Subset = filter.Subset{Given: true, Addresses: []string{home}}
		return x
	}
	for seed := range uint64(3) {
		x := only(request(100+seed, 30))
		r.send(t, x)
		r.begin(x, 50*time.Millisecond)
	}
	r.send(t, only(request(9, 15600))) // a million tokens
	var waiting []*filter.Exchange
	for seed := range uint64(3) {
		x := only(request(100+seed, 34))
		r.send(t, x)
		waiting = append(waiting, x)
	}
	other := request(0, 0)
	other.Subset = filter.Subset{Given: true, Addresses: []string{"10.0.0.001:80"}}
	r.send(t, other)
	r.begin(other, 50*time.Millisecond)
	eps := ready(2)
	eps[0].Gauges = endpoint.Gauges{Known: true, Running: 1, Waiting: 3, KVUse: 0.4}
	r.serve(eps...)
	for _, x := range waiting {
		r.leave(x, 10*time.Second, 0, filter.End{})
	}
	require.Zero(t, r.ejections())
	for seed := range uint64(3) {
		require.Equal(t, 30, r.known(home, request(100+seed, 34)))
	}
}
