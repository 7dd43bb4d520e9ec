package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// change serves two replicas, the first of them as a step has it, after a time.
type change struct {
	after   time.Duration
	absent  bool
	unready bool
	started int64
}

func (r *rig) change(c change) {
	r.now = r.now.Add(c.after)
	eps := ready(2)
	eps[0].Ready, eps[0].Started = !c.unready, c.started
	if c.absent {
		eps = eps[1:]
	}
	r.serve(eps...)
	r.f.readSnapshot()
}

// A replica that comes back after it was away has what it had only if it is the same
// process.
func TestWhatIsLeftAfterAnAbsence(t *testing.T) {
	s := time.Second
	for name, c := range map[string]struct {
		steps []change
		known int // of the prompt
	}{
		"nothing happens":             {[]change{{after: s}, {after: 10 * s}}, 10},
		"down for 5 s":                {[]change{{after: s, unready: true}, {after: 5 * s}}, 0},
		"down, told time and again":   {[]change{{after: s, unready: true}, {after: s, unready: true}, {after: s, unready: true}, {after: s}}, 0},
		"a scrape is missed":          {[]change{{after: s, unready: true}, {after: s / 2}}, 10},
		"delisted and relisted":       {[]change{{after: s, absent: true}, {after: s}}, 0},
		"delisted for a moment":       {[]change{{after: s, absent: true}, {}}, 0},
		"down, then delisted":         {[]change{{after: s, unready: true}, {absent: true}, {after: s / 2}}, 0},
		"relisted before it is ready": {[]change{{absent: true}, {unready: true}, {after: s / 2}}, 0},

		"the same process, down":      {[]change{{started: 7}, {after: s, unready: true, started: 7}, {after: 60 * s, started: 7}}, 10},
		"the same, unknown meanwhile": {[]change{{started: 7}, {after: s, unready: true}, {after: 60 * s, started: 7}}, 10},
		"the same, delisted":          {[]change{{started: 7}, {after: s, absent: true}, {after: 60 * s, started: 7}}, 10},
		"another, seen to be down":    {[]change{{started: 7}, {after: s, unready: true}, {after: s / 2, started: 18}}, 0},
		"another, not seen":           {[]change{{started: 7}, {after: s / 2, started: 18}}, 0},
		"another, told while down":    {[]change{{started: 7}, {unready: true, started: 18}, {after: s / 2, started: 18}}, 0},
		"told for the first time":     {[]change{{after: s, started: 8}}, 10},
		"told no more":                {[]change{{started: 7}, {after: s}}, 10},
		"told no more, and down":      {[]change{{started: 7}, {unready: true}, {after: 5 * s}}, 0},
	} {
		r := newRig(t, "{}")
		r.serve(ready(2)...)
		r.f.readSnapshot()
		r.f.fleet.learn(r.f.fleet.find("10.0.0.000:80"), chainOf(r))
		r.f.fleet.learn(r.f.fleet.find("10.0.0.001:80"), chainOf(r))
		for _, step := range c.steps {
			r.change(step)
		}
		require.Equal(t, c.known, r.known("10.0.0.000:80", request(1, 10)), name)
		require.Equal(t, 10, r.known("10.0.0.001:80", request(1, 10)), name)
	}
}

// chainOf is the chain of request(1, 10).
func chainOf(r *rig) []uint64 {
	s := &state{pick: &pick{}}
	s.read(r.f, request(1, 10))
	return s.chain
}

// A snapshot of another companion, which does not know a replica yet, says nothing of it.
func TestAnotherCompanionIsNoAbsence(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(2)...)
	r.f.readSnapshot()
	r.f.fleet.learn(r.f.fleet.find("10.0.0.000:80"), chainOf(r))
	r.serve(ready(2)[1:]...)
	r.snapshot.Source = 2
	r.f.readSnapshot()
	r.serve(ready(2)...)
	r.f.readSnapshot()
	require.Equal(t, 10, r.known("10.0.0.000:80", request(1, 10)))
}

// What others report about a replica that is away, or ejected, or has just come back, is of the
// process before.
func TestHearsayOfTheOneBefore(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 5s}}")
	at := "10.0.0.000:80"
	note := func() int {
		r.f.receive(endpoint.AppendNote(nil, endpoint.ReplicaID(at), chainOf(r)))
		return r.known(at, request(1, 10))
	}
	r.change(change{started: 7})
	r.change(change{after: time.Second, unready: true})
	require.Zero(t, note())
	r.change(change{after: time.Minute, started: 18})
	require.Zero(t, note(), "it came with the snapshot")
	r.change(change{after: ignoreReports, started: 18})
	require.Equal(t, 10, note())
	r.f.failed(r.f.fleet.find(at), "p", reasonStatus)
	require.Zero(t, note())
	r.f.fleet.succeeded(r.f.fleet.find(at))
	require.Equal(t, 10, note())
}

// What one worker ejects, the others know nothing of any more.
func TestAnEjectionEmptiesTheIndexOfAllWorkers(t *testing.T) {
	w := newWorkers(t, 3, "{health: {failures: 1, eject: 1s}}")
	w.serve(ready(2))
	w.tick(t)
	at := w.rigs[0].serveOne(t, request(1, 10), 200)
	w.tick(t)
	require.Equal(t, 10, w.rigs[1].known(at, request(1, 10)))
	w.rigs[0].f.failed(w.rigs[0].f.fleet.find(at), "p", reasonStatus)
	w.tick(t)
	for i, r := range w.rigs {
		require.Zero(t, r.known(at, request(1, 10)), i)
	}
	w.rigs[0].f.fleet.succeeded(w.rigs[0].f.fleet.find(at))
	w.tick(t)
	w.rigs[1].f.fleet.learn(w.rigs[1].f.fleet.find(at), chainOf(w.rigs[1]))
	w.tick(t)
	require.Equal(t, 10, w.rigs[1].known(at, request(1, 10)), "it is emptied once")
}

// Slow start counts from when a replica became ready, also if nobody asked for anything.
func TestSlowStartNeedsNoTraffic(t *testing.T) {
	r := newRig(t, "{slowStart: 10s}")
	r.serve(ready(2)[1:]...)
	r.f.readSnapshot()
	r.serve(ready(2)...)
	r.f.readSnapshot()
	for range 26 { // 13 s, told twice a second
		r.now = r.now.Add(time.Second / 2)
		r.serve(ready(2)...)
		r.f.readSnapshot()
	}
	hits := r.run(t, 40, func(string) int { return 200 })
	require.InDelta(t, 20, hits["10.0.0.000:80"], 10)

	// ... and from the snapshot that says so, however late a request comes.
	r = newRig(t, "{slowStart: 10s}")
	r.serve(ready(2)[1:]...)
	r.f.readSnapshot()
	r.serve(ready(2)...)
	r.now = r.now.Add(13 * time.Second)
	require.Positive(t, r.run(t, 40, func(string) int { return 200 })["10.0.0.000:80"])
}

// A list in another order, or a shorter one, is of the same replicas: none of them starts again.
func TestTheOrderOfTheListIsNoMatter(t *testing.T) {
	for name, order := range map[string][]int{
		"turned": {2, 1, 0}, "the first is gone": {1, 2}, "one in the middle is gone": {0, 2}, "one more comes": {3, 0, 1, 2},
	} {
		r := newRig(t, "{slowStart: 10s}")
		r.serve(ready(3)...)
		r.f.readSnapshot()
		r.now = r.now.Add(time.Minute)
		all := ready(4)
		var list []endpoint.Endpoint
		for _, i := range order {
			list = append(list, all[i])
		}
		r.serve(list...)
		r.f.readSnapshot()
		_, entries := r.f.fleet.views[0].find(r.snapshot.Pools[0].Name)
		require.Len(t, entries, len(order))
		for i, entry := range entries {
			require.Equal(t, list[i].Address, entry.member.address)
			require.Equal(t, order[i] == 3, entry.since.Equal(r.snapshot.Received), "%s: replica %d starts slowly", name, order[i])
		}
	}
}

// Without slow start one that has just come gets its share at once, and not more.
func TestWithoutSlowStart(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second} {
		r := newRig(t, "{slowStart: 0s}")
		r.serve(ready(2)[1:]...)
		r.f.readSnapshot()
		r.serve(ready(2)...)
		r.f.readSnapshot()
		r.now = r.now.Add(after)
		r.snapshot.Received = r.now
		hits := map[string]int{}
		for range 40 { // all in flight
			hits[r.send(t, request(0, 0))]++
		}
		require.Equal(t, map[string]int{"10.0.0.000:80": 20, "10.0.0.001:80": 20}, hits)
	}
}

// Whatever the profile uses, one that has just come gets less than its share.
func TestSlowStartInEachProfile(t *testing.T) {
	for _, profile := range []string{"sticky", "weighted"} {
		r := newRig(t, "{slowStart: 10s, profile: "+profile+"}")
		r.serve(ready(2)[1:]...)
		r.f.readSnapshot()
		r.serve(ready(2)...)
		r.f.readSnapshot()
		r.now = r.now.Add(2 * time.Second)
		r.snapshot.Received = r.now
		hits := map[string]int{}
		for range 40 { // all in flight
			hits[r.send(t, request(0, 0))]++
		}
		require.Less(t, hits["10.0.0.000:80"], 15, profile)
	}
}

// ... each time, whether or not somebody sent it something in between.
func TestEachEjectionEmptiesTheIndexOfAllWorkers(t *testing.T) {
	w := newWorkers(t, 2, "{health: {failures: 1, eject: 1s}}")
	w.serve(ready(2))
	w.tick(t)
	at := w.rigs[0].serveOne(t, request(1, 10), 200)
	for round := range 3 {
		w.tick(t)
		other := w.rigs[1].f.fleet
		other.learn(other.find(at), chainOf(w.rigs[1]))
		w.rigs[0].f.failed(w.rigs[0].f.fleet.find(at), "p", reasonStatus)
		w.tick(t)
		w.tick(t)
		require.Zero(t, w.rigs[1].known(at, request(1, 10)), round)
		w.rigs[0].f.fleet.succeeded(w.rigs[0].f.fleet.find(at))
		w.tick(t)
		w.tick(t)
	}
}

// A replica in two pools is scraped by two plans, or drains in one of them: that is no other
// process, whatever happens to others in these pools.
func TestOneReplicaInTwoPools(t *testing.T) {
	for name, c := range map[string]struct{ a, b endpoint.Endpoint }{
		"two starts":        {endpoint.Endpoint{Ready: true, Started: 7}, endpoint.Endpoint{Ready: true, Started: 18}},
		"one tells":         {endpoint.Endpoint{Ready: true, Started: 7}, endpoint.Endpoint{Ready: true}},
		"drains in one":     {endpoint.Endpoint{Ready: true}, endpoint.Endpoint{Ready: false}},
		"drains in another": {endpoint.Endpoint{Ready: false}, endpoint.Endpoint{Ready: true}},
	} {
		r := newRig(t, "{}")
		at := "10.0.0.000:80"
		serve := func(c struct{ a, b endpoint.Endpoint }, other bool) {
			r.now = r.now.Add(5 * time.Second)
			p, q := ready(2), ready(2)
			p[0].Ready, p[0].Started = c.a.Ready, c.a.Started
			q[0].Ready, q[0].Started = c.b.Ready, c.b.Started
			p[1].Ready, q[1].Ready = other, other
			r.servePools(endpoint.Pool{Name: "p", Endpoints: p}, endpoint.Pool{Name: "q", Endpoints: q})
			r.f.readSnapshot()
		}
		serve(c, true)
		r.f.fleet.learn(r.f.fleet.find(at), chainOf(r))
		for i := range 4 {
			serve(c, i%2 == 0)
		}
		require.Equal(t, 10, r.known(at, request(1, 10)), name)

		c.a.Started, c.b.Started = 1000, 1000
		serve(c, true)
		c.a.Started = 2000
		serve(c, true)
		require.Zero(t, r.known(at, request(1, 10)), "%s: one pool has seen it first", name)
	}
}

// A restarted companion, or another one, reports a start that another one did not report, or
// does not know of a sleep.
func TestStartsThatOtherCompanionsTell(t *testing.T) {
	for _, other := range []int64{1001, 999, 5000} {
		r := newRig(t, "{}")
		r.change(change{started: 1000})
		r.change(change{after: time.Minute, unready: true, started: max(1000, other)})
		r.change(change{after: time.Minute, started: max(1000, other)})
		at := "10.0.0.000:80"
		r.f.fleet.learn(r.f.fleet.find(at), chainOf(r))
		for i := range 4 {
			r.change(change{after: time.Second, started: []int64{1000, other}[i%2]})
			r.snapshot.Source = uint64(i % 2)
		}
		require.Equal(t, 10, r.known(at, request(1, 10)), other)
	}
}

// One that is away while the fleet is swept and back before the next time keeps what it had.
func TestWhoIsBackIsNotForgotten(t *testing.T) {
	r := newRig(t, "{}")
	gone := change{absent: true}
	r.change(change{started: 7})
	at := "10.0.0.000:80"
	x := request(1, 10)
	x.Subset = within(at)
	r.serveOne(t, x, 200)
	for range 12 { // minutes
		gone.after = time.Minute
		r.change(gone)
	}
	for range 12 {
		r.change(change{after: time.Minute, started: 7})
	}
	require.Equal(t, 10, r.known(at, request(1, 10)))
}

// With a replica that becomes ready again nothing counts of what was before: neither failures nor how often it was ejected.
func TestReadinessBeginsAnew(t *testing.T) {
	r := newRig(t, "{slowStart: 0s, health: {failures: 3, eject: 5s}}")
	eps := ready(2)
	fail := func() {
		x := request(0, 0)
		x.Subset = within(eps[0].Address)
		r.send(t, x)
		r.answer(x, 500)
	}
	anew := func() {
		for _, up := range []bool{false, true} {
			eps[0].Ready = up
			r.serve(eps...)
			r.f.readSnapshot()
		}
	}
	r.serve(eps...)
	r.f.readSnapshot()
	fail()
	fail()
	anew()
	fail()
	fail()
	require.Zero(t, r.ejections())
	fail()
	require.EqualValues(t, 1, r.ejections())
	anew()
	for range 3 {
		fail()
	}
	r.now = r.now.Add(5 * time.Second)
	r.serve(eps...)
	require.Equal(t, eps[0].Address, r.send(t, request(0, 0)), "tried after the first time out, not a second one that is longer")
}
