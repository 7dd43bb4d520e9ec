package picker

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

func adapterRequest(seed uint64, blocks int, adapter string) *filter.Exchange {
	x := request(seed, blocks)
	x.Route.Target, x.Route.Base = adapter, "base"
	return x
}

// An adapter is used where it is at work, as long as that is not much more loaded.
func TestAdaptersGoWhereTheyRun(t *testing.T) {
	for _, profile := range []string{"sticky", "weighted"} {
		r := newRig(t, "profile: "+profile)
		eps := ready(8)
		for i := range eps {
			eps[i].LoRA = &endpoint.LoRA{Max: 2, Running: []string{"b"}}
		}
		eps[5].LoRA = &endpoint.LoRA{Max: 2, Running: []string{"a"}}
		r.serve(eps...)
		for seed := range uint64(20) {
			require.Equal(t, eps[5].Address, r.serveOne(t, adapterRequest(seed, int(seed), "a"), 200), profile)
		}
		hits := r.spread(t, 100, func(i int) *filter.Exchange { return adapterRequest(uint64(i), 10, "a") })
		require.Greater(t, len(hits), 1, profile)
	}
}

// One that runs nowhere is loaded in one place, by all proxies in the same.
func TestAdaptersAreLoadedInOnePlace(t *testing.T) {
	a, b := newRig(t, "{}"), newRig(t, "{}")
	for _, r := range []*rig{a, b} {
		r.serve(ready(8)...)
	}
	used := map[string]bool{}
	for _, adapter := range []string{"a", "b", "c", "d", "e", "f"} {
		at := a.serveOne(t, adapterRequest(1, 0, adapter), 200)
		used[at] = true
		for seed := range uint64(10) {
			require.Equal(t, at, a.serveOne(t, adapterRequest(seed, int(seed), adapter), 200))
			require.Equal(t, at, b.serveOne(t, adapterRequest(seed, int(seed), adapter), 200))
		}
	}
	require.Greater(t, len(used), 2)
}

// Who does not list the model, which others do, comes last; if nobody lists it, the
// lists are not to be believed.
func TestReplicasThatListAnotherModel(t *testing.T) {
	with := &endpoint.Models{Names: []string{"base"}, Adapters: []endpoint.Adapter{{Name: "a", Parent: "base"}}}
	without := &endpoint.Models{Names: []string{"base"}}
	for _, p := range profiles {
		r := newRig(t, "{profile: "+p.name+"}")
		eps := ready(4)
		for i := range eps {
			eps[i].Models = without
		}
		eps[2].Models = with
		eps[2].Gauges.Waiting = 100
		r.serve(eps...)
		for model, want := range map[string]int{"a": 1, "base": 3, "alias": 3} {
			hits := map[string]int{}
			for range 40 {
				x := request(0, 0)
				x.Route.Target = model
				hits[r.serveOne(t, x, 200)]++
			}
			if want == 1 {
				require.Equal(t, map[string]int{eps[2].Address: 40}, hits, p.name)
			} else {
				require.GreaterOrEqual(t, len(hits), 3, p.name+" "+model)
			}
		}
	}
}

// Where nobody is known to serve a model, who lists others stands behind nobody: also not
// behind a replica that lists nothing.
func TestAReplicaWithoutAListIsNotPreferred(t *testing.T) {
	for _, p := range profiles {
		r := newRig(t, "{profile: "+p.name+"}")
		eps := ready(3)
		for i := range eps {
			eps[i].Models = &endpoint.Models{Names: []string{"other"}}
		}
		eps[1].Models = nil
		r.serve(eps...)
		hits := map[string]int{}
		for range 40 {
			hits[r.serveOne(t, request(0, 0), 200)]++
		}
		require.Len(t, hits, 3, p.name)
	}
}

// What the chain computes for a profile is what it uses.
func TestWhatProfilesNeed(t *testing.T) {
	for profile, prefixes := range map[string]bool{"sticky": true, "weighted": true, "least-request": false, "round-robin": false, "session": false} {
		r := newRig(t, "{profile: "+profile+"}")
		require.Equal(t, prefixes, r.f.Needs()&filter.NeedPrefix != 0, profile)
		require.Equal(t, prefixes, len(r.f.Fields()) > 0, profile)
		require.NotZero(t, r.f.Needs()&filter.NeedSubset, profile)
		r.serve(ready(1)...)
		x := request(1, 3)
		r.serveOne(t, x, 200)
		require.Equal(t, prefixes, strings.Contains(string(x.Why()), "tokens="), profile)
	}
}

// Of a replica that tells the size of its cache no more is remembered than it can hold.
func TestCachesHaveASize(t *testing.T) {
	r := newRig(t, "{}")
	eps := ready(1)
	eps[0].Cache = endpoint.Cache{BlockTokens: 16, Blocks: 4 * 30} // 30 blocks of ours
	r.serve(eps...)
	r.serveOne(t, request(1, 20), 200)
	hit := func() string {
		x := request(1, 20)
		r.serveOne(t, x, 200)
		return string(x.Why())
	}
	require.Contains(t, hit(), "hit=20/20")
	r.serveOne(t, request(2, 20), 200)
	require.Contains(t, hit(), "hit=10/20")
	eps[0].Cache.Blocks = 0
	r.serve(eps...)
	r.serveOne(t, request(2, 20), 200)
	require.Contains(t, hit(), "hit=20/20")
}
