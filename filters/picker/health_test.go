package picker

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// fails has replicas answer with a status until n requests are over, and returns
// how many each got.
func (r *rig) run(t require.TestingT, n int, status func(address string) int) map[string]int {
	hits := map[string]int{}
	for range n {
		x := request(0, 0)
		at := r.send(t, x)
		hits[at]++
		r.answer(x, status(at))
	}
	return hits
}

func TestEjection(t *testing.T) {
	r := newRig(t, "{health: {failures: 3, eject: 5s, maxEject: 20s, share: 0.5}}")
	r.serve(ready(4)...)
	sick := "10.0.0.002:80"
	status := func(address string) int {
		if address == sick {
			return 500
		}
		return 200
	}
	require.Equal(t, 3, r.run(t, 200, status)[sick])
	require.EqualValues(t, 1, r.samples["inlet_ejection_total/p,5xx"])

	// One request tries it, with the others behind it in the list, and each
	// failure keeps it out for longer, up to the bound.
	for _, out := range []time.Duration{5, 10, 20, 20} {
		r.now = r.now.Add(out*time.Second - time.Millisecond)
		require.Zero(t, r.run(t, 50, status)[sick])
		r.now = r.now.Add(time.Millisecond)
		require.Equal(t, 1, r.run(t, 50, status)[sick])
	}

	// Only one at a time: the second one of these does not know yet how it ends.
	r.now = r.now.Add(20 * time.Second)
	x := request(0, 0)
	require.Equal(t, sick, r.send(t, x))
	require.Contains(t, string(x.Why()), "by=probe")
	require.NotEqual(t, sick, r.send(t, request(0, 0)))
	r.f.OnDone(x, filter.End{}) // its client goes away: nothing was learnt
	x = request(0, 0)
	require.Equal(t, sick, r.send(t, x))
	r.answer(x, 200)
	require.InDelta(t, 50, r.run(t, 200, func(string) int { return 200 })[sick], 20)
}

func TestFailuresMustBeInARow(t *testing.T) {
	r := newRig(t, "{health: {failures: 2}}")
	r.serve(ready(2)...)
	n := map[string]int{}
	require.Len(t, r.run(t, 100, func(at string) int { n[at]++; return []int{500, 200, 502, 429, 504, 404, 503}[n[at]%7] }), 2)
	require.Zero(t, r.samples["inlet_ejection_total/p,5xx"])
}

// Requests that were in progress when their replica was ejected, and fail too, eject it no second time and for no longer.
func TestFailuresOfTheEjectedDoNotAddUp(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 5s}}")
	r.serve(ready(2)...)
	var open []*filter.Exchange
	for range 5 {
		x := request(0, 0)
		x.Subset = within("10.0.0.000:80")
		r.send(t, x)
		open = append(open, x)
	}
	r.answer(open[0], 500)
	r.now = r.now.Add(3 * time.Second)
	for _, x := range open[1:] {
		r.answer(x, 500)
	}
	require.EqualValues(t, 1, r.ejections())
	r.now = r.now.Add(2*time.Second - 1)
	require.NotEqual(t, "10.0.0.000:80", r.send(t, request(0, 0)))
	r.now = r.now.Add(1)
	require.Equal(t, "10.0.0.000:80", r.send(t, request(0, 0)))
}

// How often a replica was ejected is forgotten when it was well for longer than the longest time out.
func TestEjectionsAreForgotten(t *testing.T) {
	for well, out := range map[time.Duration]time.Duration{20 * time.Second: 10 * time.Second, 20*time.Second + 1: 5 * time.Second} {
		r := newRig(t, "{health: {failures: 1, eject: 5s, maxEject: 20s}}")
		r.serve(ready(2)...)
		sick := within("10.0.0.000:80")
		asked := func(status int) {
			x := request(0, 0)
			x.Subset = sick
			r.serveOne(t, x, status)
		}
		asked(500)
		r.now = r.now.Add(5 * time.Second)
		x := request(0, 0)
		require.Equal(t, "10.0.0.000:80", r.serveOne(t, x, 200), "tried, and readmitted")
		r.now = r.now.Add(well)
		r.serve(ready(2)...)
		asked(500)
		r.now = r.now.Add(out - 1)
		require.NotEqual(t, "10.0.0.000:80", r.send(t, request(0, 0)), well)
		r.now = r.now.Add(1)
		require.Equal(t, "10.0.0.000:80", r.send(t, request(0, 0)), well)
	}
}

// When Envoy went on to a lower one of the list, those above have failed.
func TestRetriesAreFailures(t *testing.T) {
	r := newRig(t, "{health: {failures: 2}, endpoints: 3}")
	r.serve(ready(6)...)
	dead := map[string]bool{"10.0.0.000:80": true, "10.0.0.001:80": true}
	for range 200 {
		x := request(0, 0)
		r.send(t, x)
		s := stateOf(x)
		for _, m := range s.sent {
			if !dead[m.address] {
				x.Response.Attempts = slices.Index(s.sent, m) + 1
				r.answerFrom(x, m.address, 200)
				break
			}
		}
	}
	require.EqualValues(t, 2, r.samples["inlet_ejection_total/p,connect"])
	require.NotContains(t, r.run(t, 100, func(string) int { return 200 }), "10.0.0.000:80")
}

// However many fail, no more than the allowed share is out: they must serve with the remaining replicas.
func TestEjectionsHaveACeiling(t *testing.T) {
	for _, c := range []struct {
		replicas, served int
		share            string
	}{{1, 1, "1.0"}, {5, 1, "1.0"}, {2, 1, "0.5"}, {3, 2, "0.5"}, {10, 5, "0.5"}, {10, 10, "0"}, {10, 1, "0.9"}} {
		r := newRig(t, "{health: {failures: 1, eject: 1h, maxEject: 1h, share: "+c.share+"}}")
		r.serve(ready(c.replicas)...)
		r.run(t, 200, func(string) int { return 500 })
		x := request(0, 0)
		r.send(t, x)
		require.Contains(t, string(x.Why()), "candidates="+strconv.Itoa(c.served)+" ")
	}
}

// The workers of an Envoy eject for each other, and the one that did it looks
// after the replica.
func TestWorkersEjectForEachOther(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 1s}}")
	other := &rig{samples: samples{}, deps: &filter.Deps{}}
	*other.deps = *r.deps // the same counters, its own memory
	other.deps.Now = func() time.Time { return other.now }
	other.now = r.now
	other.f = other.filter(t, "{health: {failures: 1, eject: 1s}}")
	r.serve(ready(3)...)
	sick := "10.0.0.001:80"
	status := func(at string) int {
		if at == sick {
			return 502
		}
		return 200
	}
	require.Equal(t, 1, r.run(t, 50, status)[sick])
	require.Zero(t, other.run(t, 50, status)[sick])
	r.now, other.now = r.now.Add(time.Minute), r.now.Add(time.Minute)
	require.Zero(t, other.run(t, 50, status)[sick], "the other one tries it")
	require.Positive(t, r.run(t, 50, func(string) int { return 200 })[sick])
	require.Positive(t, other.run(t, 50, func(string) int { return 200 })[sick])
}

// A replica that the companion has seen go and come back starts with a clean slate.
func TestComingBackEndsAnEjection(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 1h, maxEject: 1h}, slowStart: 0s}")
	eps := ready(2)
	r.serve(eps...)
	sick := eps[0].Address
	r.run(t, 20, func(at string) int {
		if at == sick {
			return 500
		}
		return 200
	})
	ok := func(string) int { return 200 }
	require.Zero(t, r.run(t, 20, ok)[sick])
	eps[0].Ready = false
	r.serve(eps...)
	require.Zero(t, r.run(t, 20, ok)[sick])
	eps[0].Ready = true
	r.serve(eps...)
	require.Positive(t, r.run(t, 20, ok)[sick])
	require.Zero(t, r.f.fleet.ejected.Value())
}

func TestTimeOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &healthSettings{
			eject:    time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "eject")),
			maxEject: time.Duration(rapid.Int64Range(int64(time.Hour), int64(24*time.Hour)).Draw(t, "max")),
		}
		last := time.Duration(0)
		for times := range 100 {
			d := ejectFor(s, times)
			if d < s.eject || d > s.maxEject || d < last {
				t.Fatalf("%v after %v, of %v to %v", d, last, s.eject, s.maxEject)
			}
			last = d
		}
		require.Equal(t, s.maxEject, last)
	})
}
