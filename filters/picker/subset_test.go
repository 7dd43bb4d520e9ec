package picker

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

func within(addresses ...string) filter.Subset {
	return filter.Subset{Given: true, Addresses: addresses}
}

// Whatever the profile, the subset and what is known, nobody outside of the subset
// is named; and if somebody in it is ready, somebody is.
func TestNobodyOutsideOfTheSubset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t, "{health: {failures: 1}, profile: "+rapid.SampledFrom(profileNames(profiles)).Draw(t, "profile")+"}")
		eps := ready(rapid.IntRange(0, 6).Draw(t, "replicas"))
		for i := range eps {
			eps[i].Ready = rapid.Bool().Draw(t, "ready")
			eps[i].Gauges.Waiting = rapid.SampledFrom([]int{0, 9}).Draw(t, "waiting")
		}
		r.serve(eps...)
		for range rapid.IntRange(0, 10).Draw(t, "failures") {
			if x := request(0, 0); r.f.OnRequest(x) == filter.Next {
				r.answer(x, 503)
			}
		}
		all := ready(8)
		x := request(rapid.Uint64Range(0, 3).Draw(t, "prompt"), 3)
		x.Subset = within()
		fits := false
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 7), 0, 6).Draw(t, "subset") {
			x.Subset.Addresses = append(x.Subset.Addresses, all[i].Address)
			fits = fits || i < len(eps) && eps[i].Ready
		}
		v := r.f.OnRequest(x)
		if !fits {
			require.Equal(t, 503, v.Refusal().Status)
			return
		}
		require.Equal(t, filter.Next, v)
		s := stateOf(x)
		for n, m := range s.sent {
			require.Contains(t, x.Subset.Addresses, m.address)
			require.NotContains(t, s.sent[:n], m)
		}
	})
}

func TestSubsetOfAFallback(t *testing.T) {
	r := newRig(t, "{}")
	r.pools(endpoint.Gauges{}, endpoint.Gauges{})
	x := falling(filter.Pool{Name: "them", External: true}, filter.Pool{Name: "q"})
	x.Subset = within("10.0.0.003:80")
	require.Equal(t, "10.0.0.003:80", r.send(t, x), "whom an external pool would ask, nobody knows")
	require.Equal(t, "q", x.Target.Pool)
	x = falling(filter.Pool{Name: "them", External: true})
	x.Subset = within("10.0.0.003:80")
	require.Equal(t, "no-endpoints", r.f.OnRequest(x).Refusal().Reason)
}

// A pool that is external and no pool at all: nobody can say that they keep to it.
func TestSubsetWhereNothingIsPicked(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(2)...)
	x := request(0, 0)
	x.Route = filter.Route{Pool: "them", External: true}
	require.Equal(t, filter.Next, r.f.OnRequest(x))
	x.Subset = within("10.0.0.000:80")
	require.Equal(t, "no-endpoints", r.f.OnRequest(x).Refusal().Reason)

	x = request(0, 0)
	x.Route = filter.Route{}
	require.Equal(t, filter.Next, r.f.OnRequest(x))
	x.Subset = within("10.0.0.000:80")
	require.Equal(t, "no-endpoints", r.f.OnRequest(x).Refusal().Reason)
}

// To go on without a choice would be to go around the subset.
func TestSubsetIsNotFailedOpen(t *testing.T) {
	r := newRig(t, "{}")
	x := request(0, 0)
	x.Subset = within("10.0.0.000:80")
	require.Equal(t, "no-endpoints", r.f.OnRequest(x).Refusal().Reason)
}

func TestSubsetAllocatesNothing(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(2000)...)
	s, x := &state{pick: &pick{}}, request(0, 0)
	for i := range 100 {
		x.Subset.Addresses = append(x.Subset.Addresses, r.snapshot.Pools[0].Endpoints[1999-19*i].Address)
	}
	x.Subset.Given = true
	choose := func() {
		s.reset()
		s.read(r.f, x)
		r.f.choosePool(x, s, s.begin(r.f, r.now), filter.Pool{Name: "p"})
		s.rank()
	}
	choose()
	require.Len(t, s.replicas, 100)
	require.True(t, slices.Contains(x.Subset.Addresses, s.replicas[s.ranked[0]].Address))
	require.Zero(t, testing.AllocsPerRun(20, choose))
}
