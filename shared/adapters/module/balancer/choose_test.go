package balancer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a list leads to: five hosts, of which d is unhealthy and e has just fallen.
func TestList(t *testing.T) {
	levels := [][]fakeHost{{
		{address: "10.0.0.1:80", weight: 1},
		{address: "[::1]:80", weight: 1},
		{address: "10.0.0.3:80", weight: 1},
		{address: "10.0.0.4:80", weight: 1, sick: true},
		{address: "10.0.0.5:80", weight: 1, fell: true},
	}}
	for name, c := range map[string]struct {
		list, tried, chosen, counts string
	}{
		"the first":                          {"10.0.0.3:80,10.0.0.1:80", "", "10.0.0.3:80", "listed=1"},
		"IPv6":                               {"[::1]:80", "", "[::1]:80", "listed=1"},
		"spaces and empty places":            {" ,, 10.0.0.3:80 ,10.0.0.1:80", "", "10.0.0.3:80", "listed=1"},
		"absent":                             {"10.9.9.9:80,10.0.0.1:80", "", "10.0.0.1:80", "-not_in_cluster=1 next=1"},
		"unhealthy":                          {"10.0.0.4:80,10.0.0.1:80", "", "10.0.0.1:80", "-unhealthy=1 next=1"},
		"fallen":                             {"10.0.0.5:80,10.0.0.1:80", "", "10.0.0.1:80", "-unhealthy=1 next=1"},
		"tried":                              {"10.0.0.3:80,10.0.0.1:80", "10.0.0.3:80", "10.0.0.1:80", "-tried=1 next=1"},
		"all of these":                       {"x,10.0.0.4:80,10.0.0.5:80,10.0.0.3:80,10.0.0.1:80", "10.0.0.3:80", "10.0.0.1:80", "-not_in_cluster=1 -unhealthy=2 -tried=1 next=1"},
		"used up, and one is left":           {"10.0.0.3:80,[::1]:80", "10.0.0.3:80 [::1]:80", "10.0.0.1:80", "-tried=2 fallback=1"},
		"all tried: the first of the list":   {"[::1]:80", "10.0.0.1:80 [::1]:80 10.0.0.3:80", "[::1]:80", "-tried=1 again=1"},
		"the second of a repeated one":       {"10.0.0.3:80,10.0.0.3:80,10.0.0.1:80", "10.0.0.3:80", "10.0.0.1:80", "-tried=2 next=1"},
		"not an address":                     {"10.0.0.1", "[::1]:80 10.0.0.3:80", "10.0.0.1:80", "-not_in_cluster=1 fallback=1"},
		"as Envoy writes it, nothing else":   {"010.0.0.1:80", "[::1]:80 10.0.0.3:80", "10.0.0.1:80", "-not_in_cluster=1 fallback=1"},
		"none":                               {"", "[::1]:80 10.0.0.3:80", "10.0.0.1:80", "fallback=1"},
		"nothing but commas":                 {",, ,", "[::1]:80 10.0.0.3:80", "10.0.0.1:80", "fallback=1"},
		"without a list, one that was tried": {"10.0.0.4:80", "10.0.0.1:80 [::1]:80 10.0.0.3:80 10.0.0.5:80", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(LeastRequest, levels...)
			chosen := r.choose(c.list, strings.Fields(c.tried)...)
			if c.counts == "" { // any that Envoy lists
				require.NotEmpty(t, chosen)
				require.Equal(t, "-unhealthy=1 again=1", r.counts())
				return
			}
			require.Equal(t, c.chosen, chosen)
			require.Equal(t, c.counts, r.counts())
		})
	}
}

func TestWithoutAFallback(t *testing.T) {
	r := newRig(None, hosts("a:1", "b:1", "c:1"))
	require.Equal(t, "b:1", r.choose("b:1"))
	require.Empty(t, r.choose(""))
	require.Empty(t, r.choose("x:1"))
	require.Equal(t, "b:1", r.choose("x:1,b:1", "b:1"), "rather the one that it has been to")
	require.Equal(t, "-not_in_cluster=2 -tried=1 listed=1 again=1 none=2", r.counts())
}

func TestNoHost(t *testing.T) {
	for name, levels := range map[string][][]fakeHost{
		"no priority": nil, "empty": {nil}, "none healthy": {{{address: "a:1", weight: 1, sick: true}}, {{address: "b:1", weight: 1, sick: true}}},
	} {
		r := newRig(LeastRequest, levels...)
		require.Empty(t, r.choose("a:1"), name)
		require.Contains(t, r.counts(), "none=1", name)
		require.Empty(t, r.broken, name)
	}
}

// shares chooses n times without a list.
func (r *rig) shares(n int) map[string]float64 {
	shares := map[string]float64{}
	for range n {
		shares[r.choose("")] += 1 / float64(n)
	}
	return shares
}

func TestFallbackGoesByWeight(t *testing.T) {
	for _, fallback := range []string{LeastRequest, Random} {
		r := newRig(fallback, []fakeHost{{address: "a:1", weight: 1}, {address: "b:1", weight: 3}, {address: "c:1", weight: 4}})
		shares := r.shares(20_000)
		require.InDelta(t, 1.0/8, shares["a:1"], 0.02, fallback)
		require.InDelta(t, 3.0/8, shares["b:1"], 0.02, fallback)
	}
}

func TestFallbackTakesTheLessBusy(t *testing.T) {
	level := []fakeHost{{address: "a:1", weight: 1, active: 10}, {address: "b:1", weight: 1}}
	require.Equal(t, map[string]float64{"b:1": 1}, rounded(newRig(LeastRequest, level).shares(1000)), "of two, both are looked at")
	require.InDelta(t, 0.5, newRig(Random, level).shares(10_000)["a:1"], 0.05)

	// Twice the weight, twice the requests.
	level = []fakeHost{{address: "a:1", weight: 1, active: 10}, {address: "b:1", weight: 2, active: 19}}
	require.Equal(t, map[string]float64{"b:1": 1}, rounded(newRig(LeastRequest, level).shares(1000)))
	level[1].active = 21
	require.Equal(t, map[string]float64{"a:1": 1}, rounded(newRig(LeastRequest, level).shares(1000)))
}

func rounded(shares map[string]float64) map[string]float64 {
	for a, s := range shares {
		shares[a] = float64(int(s*100+0.5)) / 100
	}
	return shares
}

// Shares of priorities, as Envoy's documentation has them: with the factor of 1.4, and made up to 100 if there is not enough.
func TestPriorities(t *testing.T) {
	for name, c := range map[string]struct {
		healthy [][2]int // of all, by priority
		shares  []int
	}{
		"all healthy":             {[][2]int{{10, 10}, {10, 10}}, []int{100, 0}},
		"72 of 100":               {[][2]int{{72, 100}, {100, 100}}, []int{100, 0}},
		"71 of 100":               {[][2]int{{71, 100}, {100, 100}}, []int{99, 1}},
		"half":                    {[][2]int{{50, 100}, {100, 100}}, []int{70, 30}},
		"a quarter":               {[][2]int{{25, 100}, {100, 100}}, []int{35, 65}},
		"none in the first":       {[][2]int{{0, 10}, {10, 10}}, []int{0, 100}},
		"an empty one":            {[][2]int{{0, 0}, {10, 10}}, []int{0, 100}},
		"together not enough":     {[][2]int{{20, 100}, {30, 100}}, []int{40, 60}},
		"three":                   {[][2]int{{25, 100}, {25, 100}, {100, 100}}, []int{35, 35, 30}},
		"one of very many":        {[][2]int{{1, 500}}, []int{100}},
		"one of very many, twice": {[][2]int{{1, 500}, {100, 100}}, []int{1, 99}},
	} {
		var levels [][]fakeHost
		for p, n := range c.healthy {
			var level []fakeHost
			for i := range n[1] {
				level = append(level, fakeHost{address: string(rune('a'+p)) + ":" + string(rune('0'+i)), weight: 1, sick: i >= n[0]})
			}
			levels = append(levels, level)
		}
		r := newRig(LeastRequest, levels...)
		var shares []int
		for _, l := range r.index.levels {
			shares = append(shares, int(l.share))
		}
		require.Equal(t, c.shares, shares, name)
		first := 0.0
		for a, s := range r.shares(4000) {
			if a[0] == 'a' {
				first += s
			}
		}
		require.InDelta(t, float64(c.shares[0])/100, first, 0.04, name)
	}
}

// A listed host is chosen whatever its priority.
func TestListCrossesPriorities(t *testing.T) {
	r := newRig(LeastRequest, hosts("a:1"), hosts("b:1", "c:1"))
	require.Equal(t, "c:1", r.choose("c:1"))
	require.Equal(t, "b:1", r.choose("c:1,b:1", "c:1"))
	require.Equal(t, "a:1", r.choose("c:1,b:1", "b:1", "c:1"))
	require.Contains(t, []string{"b:1", "c:1"}, r.choose("", "a:1"), "the other priority, if all of the first have been tried")
}

// After a panic any healthy host is chosen, and the next request is as usual.
func TestPanics(t *testing.T) {
	r := newRig(LeastRequest, []fakeHost{{address: "x:1", weight: 1, sick: true}}, hosts("a:1", "b:1"))
	for range 20 {
		require.Contains(t, []string{"a:1", "b:1"}, r.chooseFor(&fakeRequest{fakeCluster: r.cluster, panics: true}))
	}
	require.Len(t, r.broken, 20)
	require.Equal(t, "panic=20", r.counts())
	require.Equal(t, "b:1", r.choose("b:1"))

	r.cluster.panics = true
	r.Update(r.cluster)
	require.Len(t, r.broken, 21)
	for range 20 {
		require.Contains(t, []string{"a:1", "b:1"}, r.choose("b:1"))
	}
	r.cluster.panics = false
	r.Update(r.cluster)
	require.Equal(t, "b:1", r.choose("b:1"))

	r.cluster.levels, r.cluster.panics = [][]fakeHost{nil, hosts("c:1")}, true
	require.Equal(t, "c:1", r.choose("b:1"), "the index is stale, and cannot be built")
}

// Where only listed hosts may get requests, a defect does not change that.
func TestPanicsWithoutAFallback(t *testing.T) {
	r := newRig(None, hosts("a:1", "b:1"))
	require.Empty(t, r.chooseFor(&fakeRequest{fakeCluster: r.cluster, panics: true}))
	require.Equal(t, "b:1", r.choose("b:1"))
	r.cluster.panics = true
	r.Update(r.cluster)
	require.Empty(t, r.choose("b:1"), "there is no index")
	require.Len(t, r.broken, 2)
	require.Equal(t, "listed=1 panic=2", r.counts())
}

// Envoy asks before it reports a change: the change is seen.
func TestStaleIndex(t *testing.T) {
	r := newRig(LeastRequest, hosts("a:1", "b:1", "c:1"))
	r.cluster.levels[0] = hosts("b:1", "c:1", "d:1")
	require.Equal(t, "c:1", r.choose("a:1,c:1"))
	require.Equal(t, "d:1", r.choose("d:1"))
	r.cluster.levels[0][0].sick = true
	require.Equal(t, "c:1", r.choose("b:1,c:1"))
	r.cluster.levels[0] = nil
	require.Empty(t, r.choose("c:1"))
	r.cluster.levels[0] = hosts("e:1")
	r.Update(r.cluster)
	require.Equal(t, "e:1", r.choose(""))
	require.Empty(t, r.broken)
}

// A host of which there are two, which static and DNS clusters may have.
func TestTwins(t *testing.T) {
	r := newRig(LeastRequest, []fakeHost{{address: "a:1", weight: 1}, {address: "a:1", weight: 1}, {address: "b:1", weight: 1}})
	require.Equal(t, "a:1", r.choose("a:1"))
	require.Equal(t, "b:1", r.choose("b:1"))
	require.InDelta(t, 2.0/3, r.shares(10_000)["a:1"], 0.03)
}

// TestProperties: of random clusters, lists and attempts, whatever is chosen keeps to the rules.
func TestProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var levels [][]fakeHost
		var all []string
		usable, untried := map[string]bool{}, map[string]bool{}
		q := &fakeRequest{tried: map[string]bool{}}
		for p := range 1 + rng.IntN(3) {
			var level []fakeHost
			for i := range rng.IntN(6) {
				h := fakeHost{
					address: string(rune('a'+p)) + ":" + string(rune('0'+i)), weight: 1 + rng.Uint32N(3),
					sick: rng.IntN(3) == 0, fell: rng.IntN(5) == 0, active: rng.Uint64N(4),
				}
				level = append(level, h)
				all = append(all, h.address)
				q.tried[h.address] = rng.IntN(3) == 0
				usable[h.address] = !h.sick && !h.fell
				untried[h.address] = usable[h.address] && !q.tried[h.address]
			}
			levels = append(levels, level)
		}
		r := newRig([]string{LeastRequest, Random}[rng.IntN(2)], levels...)
		q.fakeCluster = r.cluster
		var list []string
		for range rng.IntN(5) {
			if len(all) == 0 || rng.IntN(5) == 0 {
				list = append(list, "z:9")
			} else {
				list = append(list, all[rng.IntN(len(all))])
			}
		}
		q.list = strings.Join(list, ",")
		chosen := r.chooseFor(q)

		best := slices.IndexFunc(list, func(a string) bool { return untried[a] })
		switch {
		case best >= 0:
			require.Equal(t, list[best], chosen)
		case slices.Contains(values(untried), true):
			require.True(t, untried[chosen], "a host that was tried, while another is there")
		case chosen == "":
			for p := range levels {
				require.Zero(t, r.cluster.Healthy(p))
			}
		}
		require.Empty(t, r.broken)
	}
}

func values(m map[string]bool) (all []bool) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}
