package picker

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// ranked is the replicas by number, in the order of the list that Envoy is told.
func ranked(x *filter.Exchange) string {
	list := strings.ReplaceAll(header(x, EndpointHeader), "10.0.0.00", "")
	return strings.ReplaceAll(list, ":80", "")
}

// Those of the lowest priority that can serve get what comes; the others stand
// behind them, in their order, as far as the list is long enough for them.
func TestPriorities(t *testing.T) {
	models := &endpoint.Models{Names: []string{"m"}}
	other := &endpoint.Models{Names: []string{"other"}}
	full := endpoint.Gauges{Waiting: 9}
	for name, c := range map[string]struct {
		replicas []endpoint.Endpoint // by number
		want     string
	}{
		"in their order":              {[]endpoint.Endpoint{{Priority: 20}, {Priority: 0}, {Priority: 10}}, "1,2,0"},
		"no list beyond its length":   {[]endpoint.Endpoint{{Priority: 20}, {Priority: 1}, {Priority: 10}, {Priority: 30}}, "1,2,0"},
		"without the lowest":          {[]endpoint.Endpoint{{Priority: 20}, {Priority: 3}}, "1,0"},
		"the first is full":           {[]endpoint.Endpoint{{Gauges: full}, {Priority: 1}}, "1,0"},
		"all are full":                {[]endpoint.Endpoint{{Priority: 1, Gauges: full}, {Gauges: full}}, "1,0"},
		"the largest":                 {[]endpoint.Endpoint{{Priority: 65535}, {Priority: 65534}}, "1,0"},
		"the first lacks the model":   {[]endpoint.Endpoint{{Models: other}, {Priority: 7, Models: models}}, "1,0"},
		"a busy one that stands in":   {[]endpoint.Endpoint{{}, {Priority: 1, Peers: endpoint.InFlight{Requests: 9}}, {Priority: 1}}, "0,2,1"},
		"one that stands in lacks it": {[]endpoint.Endpoint{{Models: models}, {Priority: 1, Models: other}, {Priority: 2, Models: models}}, "0,2,1"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, profile := range []string{"sticky", "weighted", "least-request", "round-robin", "session"} {
				r := newRig(t, "{profile: "+profile+", endpoints: 3, slowStart: 0s}")
				eps := ready(len(c.replicas))
				for i, e := range c.replicas {
					e.Address, e.Ready = eps[i].Address, true
					eps[i] = e
				}
				r.serve(eps...)
				for range 5 {
					x := request(1, 5)
					x.Route.Target = "m"
					r.send(t, x)
					require.Equal(t, c.want, ranked(x), profile)
					r.answer(x, 200)
				}
			}
		})
	}
}

// With as many of the first as the list is long, nobody else is in it.
func TestPrioritiesFillTheList(t *testing.T) {
	r := newRig(t, "{endpoints: 2}")
	eps := ready(6)
	for i := range 3 {
		eps[2*i].Priority = 1
	}
	r.serve(eps...)
	seen := map[string]bool{}
	for seed := range uint64(40) {
		x := request(seed, 5)
		r.send(t, x)
		for number := range strings.SplitSeq(ranked(x), ",") {
			seen[number] = true
		}
	}
	require.Equal(t, map[string]bool{"1": true, "3": true, "5": true}, seen)
}

// One of the first that is ejected is tried when its time is over, with those
// that stand in behind it. One that stands in is not tried for the sake of it.
func TestPrioritiesAndEjection(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 5s}, slowStart: 0s}")
	eps := ready(3)
	eps[1].Priority, eps[2].Priority = 1, 1
	r.serve(eps...)
	x := request(1, 5)
	require.Equal(t, eps[0].Address, r.serveOne(t, x, 500))
	x = request(1, 5)
	require.NotEqual(t, eps[0].Address, r.serveOne(t, x, 200))
	require.NotContains(t, ranked(x), "0")
	r.now = r.now.Add(6 * time.Second)
	r.serve(eps...)
	x = request(1, 5)
	require.Equal(t, eps[0].Address, r.serveOne(t, x, 200))
	require.Contains(t, []string{"0,1,2", "0,2,1"}, ranked(x))

	r.f.failed(r.f.fleet.find(eps[1].Address), "p", reasonStatus)
	r.now = r.now.Add(6 * time.Second)
	r.serve(eps...)
	for range 10 {
		x = request(1, 5)
		require.Equal(t, eps[0].Address, r.serveOne(t, x, 200))
		require.Equal(t, "0,2", ranked(x))
	}
}

// A hint that names only replicas of a later priority is kept.
func TestPrioritiesWithinASubset(t *testing.T) {
	r := newRig(t, "{}")
	eps := ready(3)
	eps[1].Priority, eps[2].Priority = 1, 2
	r.serve(eps...)
	x := request(1, 5)
	x.Subset = filter.Subset{Given: true, Addresses: []string{eps[2].Address, eps[1].Address}}
	r.send(t, x)
	require.Equal(t, "1,2", ranked(x))
	require.Contains(t, string(x.Why()), "candidates=1 rank=1 subset=2")
}
