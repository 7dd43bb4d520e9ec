package picker

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// reply ends a request with what the chain says of its answer.
func (r *rig) reply(x *filter.Exchange, response filter.Response) {
	x.Response = response
	r.f.OnResponseHeaders(x)
	r.f.OnDone(x, filter.End{Complete: true, Status: response.Status, At: r.now})
}

func (r *rig) ejections() (n int64) {
	for name, k := range r.samples {
		if strings.HasPrefix(name, "inlet_ejection_total/") {
			n += k
		}
	}
	return n
}

// known is how much of a prompt a replica is taken to hold.
func (r *rig) known(address string, x *filter.Exchange) int {
	s := stateOf(x)
	s.pick = &pick{}
	s.reset()
	s.read(r.f, x)
	r.f.fleet.view(r.snapshot, s.chain, &s.matches, r.now)
	return s.matches.Of(r.f.fleet.find(address).slot)
}

// Envoy's own answers say nothing of a replica, which never saw the request, and a
// conversation keeps its place.
func TestEnvoysOwnAnswersAreNobodysFailure(t *testing.T) {
	for _, status := range []int{429, 500, 502, 503, 504} {
		for _, served := range []bool{true, false} {
			r := newRig(t, "{health: {failures: 1}}")
			r.serve(ready(3)...)
			home := r.serveOne(t, request(1, 10), 200)
			for range 24 {
				x := request(1, 12)
				require.Equal(t, home, r.send(t, x))
				require.Equal(t, 10, stateOf(x).hitBlocks, "nothing was computed since")
				response := filter.Response{Status: status, Origin: filter.OfProxy}
				if served {
					response.Served = home
				}
				r.reply(x, response)
			}
			require.Zero(t, r.ejections())
			require.Zero(t, r.f.fleet.backingOff.Value())
			require.Zero(t, r.inFlight(home))
		}
	}
}

// An answer that needed no replica (of a cache, a redirect) computed nothing and says nothing.
func TestAnAnswerWithoutAReplica(t *testing.T) {
	r := newRig(t, "{health: {failures: 1}}")
	r.serve(ready(1)...)
	x := request(1, 10)
	at := r.send(t, x)
	x.Response = filter.Response{Status: 200}
	r.f.OnResponseHeaders(x)
	r.f.OnFirstByte(x)
	r.f.OnDone(x, filter.End{Complete: true, Status: 200, At: r.now})
	require.Zero(t, r.known(at, request(1, 10)))
	require.Zero(t, r.f.fleet.find(at).health.firstByte)
}

// Those by which Envoy says that a replica failed are its failures, whatever the status
// and its metrics.
func TestWhatEnvoyTellsOfAFailure(t *testing.T) {
	for _, status := range []int{502, 503, 504} {
		r := newRig(t, "{health: {failures: 3}}")
		r.serve(ready(3)...)
		for range 3 {
			x := request(0, 0)
			r.send(t, x)
			r.reply(x, filter.Response{Status: status, Origin: filter.OfFailure, Served: "10.0.0.000:80", Attempts: 2})
		}
		require.EqualValues(t, 1, r.samples["inlet_ejection_total/p,5xx"])
	}
}

// At the first attempt nobody has failed: the cluster goes its own way, or does not have
// a replica yet.
func TestOneAttemptIsNobodysFailure(t *testing.T) {
	for name, c := range map[string]struct {
		served func(sent []*member) string
		reason string
	}{
		"passed over": {func(sent []*member) string { return sent[2].address }, "passed_over"},
		"unlisted":    {func([]*member) string { return "10.9.9.9:80" }, "unlisted"},
	} {
		r := newRig(t, "{health: {failures: 1}}")
		r.serve(ready(8)...)
		for range 30 {
			x := request(1, 10)
			r.send(t, x)
			served := c.served(stateOf(x).sent)
			r.reply(x, filter.Response{Status: 200, Served: served, Attempts: 1, Cluster: "blue"})
		}
		require.Zero(t, r.ejections(), name)
		require.Zero(t, r.samples["inlet_pick_total/p,retried"], name)
		require.Positive(t, r.samples["inlet_pick_total/p,missed"], name)
		require.Equal(t, r.samples["inlet_pick_total/p,missed"], r.samples["inlet_unfollowed_total/p,"+c.reason], name)
		require.Len(t, r.logs, 1, "once a minute")
		require.Contains(t, r.logs[0], "the cluster blue does not follow x-gateway-destination-endpoint", name)
	}

	r := newRig(t, "{}")
	r.serve(ready(8)...)
	x := request(1, 10)
	r.send(t, x)
	r.reply(x, filter.Response{Status: 200, Served: "10.9.9.9:80", Attempts: 1})
	require.Contains(t, r.logs[0], "the cluster that serves it does not follow", "Envoy does not tell its name")
}

// A load-balancing policy that does not ask replicas which Envoy knows as unhealthy has followed the list.
func TestUnhealthyForEnvoy(t *testing.T) {
	for name, c := range map[string]struct {
		unhealthy  []int // places of the list
		served     int   // place; -1: none of it
		attempts   int
		unfollowed string
		failed     int
		logs       int
	}{
		"the first":                            {[]int{0}, 1, 1, "unhealthy", 0, 0},
		"the first two":                        {[]int{0, 1}, 2, 1, "unhealthy", 0, 0},
		"all":                                  {[]int{0, 1, 2}, -1, 1, "unhealthy", 0, 0},
		"the second, which was not next":       {[]int{1}, 2, 1, "passed_over", 0, 1},
		"the first, and the second has failed": {[]int{0}, 2, 2, "", 1, 0},
		"the second, and the first has failed": {[]int{1}, 2, 2, "", 1, 0},
		"one of them, and none of the rest":    {[]int{1}, -1, 3, "", 0, 0},
		"none, and the first has failed":       {nil, 1, 2, "", 1, 0},
	} {
		r := newRig(t, "{health: {failures: 1}}")
		r.serve(ready(8)...)
		x := request(0, 0)
		r.send(t, x)
		sent := stateOf(x).sent
		r.deps.PassedOver = func(address string, since time.Time) bool {
			require.Equal(t, r.now, since)
			return slices.ContainsFunc(c.unhealthy, func(i int) bool { return sent[i].address == address })
		}
		served := "10.9.9.9:80"
		if c.served >= 0 {
			served = sent[c.served].address
		}
		r.reply(x, filter.Response{Status: 200, Served: served, Attempts: c.attempts})
		for _, reason := range []string{"unhealthy", "passed_over", "unlisted"} {
			require.EqualValues(t, map[bool]int{true: 1}[reason == c.unfollowed], r.samples["inlet_unfollowed_total/p,"+reason], name)
		}
		require.EqualValues(t, c.failed, r.ejections(), name)
		require.Len(t, r.logs, c.logs+c.failed, "%s: %q", name, r.logs)
		require.Equal(t, served == "10.9.9.9:80", !slices.ContainsFunc(sent, func(m *member) bool { return m.address == served }))
	}
}

// Who failed is known if Envoy went down the list place by place.
func TestOnlyThoseThatWereTriedHaveFailed(t *testing.T) {
	for _, c := range []struct{ attempts, at, failed int }{
		{2, 1, 1}, {3, 2, 2}, {3, 1, 1}, // the list was gone through
		{2, 2, 0},            // one was left out, and nobody knows which
		{0, 1, 0}, {0, 2, 0}, // nobody tells
	} {
		r := newRig(t, "{health: {failures: 1}}")
		r.serve(ready(8)...)
		x := request(0, 0)
		r.send(t, x)
		r.reply(x, filter.Response{Status: 200, Served: stateOf(x).sent[c.at].address, Attempts: c.attempts})
		require.EqualValues(t, c.failed, r.samples["inlet_ejection_total/p,connect"], "%+v", c)
		require.EqualValues(t, 1, r.samples["inlet_pick_total/p,retried"])
	}
}

// A cluster that does not follow the list goes its own way at the second attempt, too.
func TestAClusterThatStraysTellsNothingByTheList(t *testing.T) {
	r := newRig(t, "{health: {failures: 1}}")
	r.serve(ready(8)...)
	lower := func(attempts int) {
		x := request(0, 0)
		r.send(t, x)
		r.reply(x, filter.Response{Status: 200, Served: stateOf(x).sent[1].address, Attempts: attempts})
	}
	lower(1)
	lower(2)
	require.Zero(t, r.ejections())
	r.now = r.now.Add(time.Minute)
	lower(2)
	require.EqualValues(t, 1, r.samples["inlet_ejection_total/p,connect"])
}

// "The request queue is full" is no failure: the replica gets nothing for a moment, and
// then all as before.
func TestFullIsNotBroken(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		headers headers
		wait    time.Duration
	}{
		"503":               {503, headers{}, time.Second},
		"429":               {429, headers{}, time.Second},
		"529":               {529, headers{}, time.Second},
		"retry-after":       {503, headers{"retry-after": "7"}, 7 * time.Second},
		"429, retry-after":  {429, headers{"retry-after": "2"}, 2 * time.Second},
		"at once":           {503, headers{"retry-after": "0"}, minBackoff},
		"very long":         {503, headers{"retry-after": "86400"}, maxBackoff},
		"unreadable":        {503, headers{"retry-after": "soon"}, time.Second},
		"negative":          {503, headers{"retry-after": "-5"}, time.Second},
		"date":              {503, headers{"retry-after": "Thu, 01 Jan 1970 00:01:45 GMT"}, 5 * time.Second},
		"date of its clock": {503, headers{"retry-after": "Mon, 30 Nov 2026 10:00:04 GMT", "date": "Mon, 30 Nov 2026 10:00:01 GMT"}, 3 * time.Second},
		"date in the past":  {503, headers{"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, minBackoff},
		"without headers":   {503, nil, time.Second},
	} {
		for _, profile := range profileNames(profiles) {
			r := newRig(t, "{profile: "+profile+"}")
			eps := ready(3)
			r.serve(eps...)
			full := eps[1].Address
			for range 3 { // in progress together
				x := request(1, 10)
				r.send(t, x)
				x.Response = filter.Response{Status: c.status, Served: full, Attempts: 2}
				if c.headers != nil {
					x.Response.Headers = c.headers
				}
				r.f.OnResponseHeaders(x)
				r.f.OnDone(x, filter.End{Complete: true, Status: c.status, At: r.now})
			}
			ok := func(string) int { return 200 }
			require.Zero(t, r.run(t, 30, ok)[full], "%s, %s", profile, name)
			r.now = r.now.Add(c.wait - time.Millisecond)
			r.serve(eps...)
			require.Zero(t, r.run(t, 30, ok)[full], "%s, %s", profile, name)
			r.now = r.now.Add(time.Millisecond)
			r.serve(eps...)
			require.Positive(t, r.run(t, 30, ok)[full], "%s, %s", profile, name)
			require.Zero(t, r.ejections(), "%s, %s", profile, name)
		}
	}
}

// A conversation is back where it was when its replica is no longer full.
func TestFullKeepsThePrompts(t *testing.T) {
	r := newRig(t, "{}")
	r.serve(ready(3)...)
	home := r.serveOne(t, request(1, 10), 200)
	require.Equal(t, home, r.serveOne(t, request(1, 12), 503))
	require.NotEqual(t, home, r.hitAt(t, request(1, 12)))
	r.now = r.now.Add(time.Second)
	r.serve(ready(3)...)
	x := request(1, 12)
	require.Equal(t, home, r.send(t, x))
	require.Equal(t, 10, stateOf(x).hitBlocks)
}

// hitAt is where a request goes that is taken back.
func (r *rig) hitAt(t require.TestingT, x *filter.Exchange) string {
	at := r.send(t, x)
	r.f.OnDone(x, filter.End{Refused: true})
	return at
}

// 503 of a replica whose metrics do not answer is a failure.
func TestFullNeedsFreshMetrics(t *testing.T) {
	for name, change := range map[string]func(r *rig, eps []endpoint.Endpoint){
		"old":     func(r *rig, eps []endpoint.Endpoint) { r.snapshot.Pools[0].Endpoints[0].Gauges.Age = time.Minute },
		"unknown": func(r *rig, eps []endpoint.Endpoint) { r.snapshot.Pools[0].Endpoints[0].Gauges.Known = false },
		"silence": func(r *rig, _ []endpoint.Endpoint) { r.now = r.now.Add(time.Minute) },
	} {
		r := newRig(t, "{health: {failures: 3}}")
		eps := ready(2)
		r.serve(eps...)
		change(r, eps)
		for range 3 {
			x := request(0, 0)
			r.send(t, x)
			r.reply(x, filter.Response{Status: 503, Served: eps[0].Address, Attempts: 2, Headers: headers{"retry-after": "1"}})
		}
		require.EqualValues(t, 1, r.samples["inlet_ejection_total/p,5xx"], name)
	}
}

// When all are full somebody has to serve, unless requests are to be refused then.
func TestAllAreFull(t *testing.T) {
	for doc, status := range map[string]int{"{}": 0, "{shed: true}": 429} {
		r := newRig(t, doc)
		r.serve(ready(3)...)
		for _, e := range ready(3) {
			x := request(0, 0)
			r.send(t, x)
			r.reply(x, filter.Response{Status: 503, Served: e.Address, Attempts: 2})
		}
		v := r.f.OnRequest(request(0, 0))
		if status == 0 {
			require.Equal(t, filter.Next, v)
			continue
		}
		require.Equal(t, status, v.Refusal().Status)
	}
}

// A replica that is ejected and turns out to be full is back, and gets nothing for a moment.
func TestFullEndsAnEjection(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 5s}, endpoints: 1}")
	r.serve(ready(2)...)
	x := request(0, 0)
	sick := r.send(t, x)
	r.answer(x, 500)
	r.now = r.now.Add(5 * time.Second)
	r.serve(ready(2)...)
	x = request(0, 0)
	require.Equal(t, sick, r.send(t, x))
	r.answer(x, 503)
	require.Zero(t, r.f.fleet.ejected.Value())
	require.NotEqual(t, sick, r.send(t, request(0, 0)))
}

// What one worker learns about a full replica, the others know a tick later.
func TestWorkersHoldBackForEachOther(t *testing.T) {
	w := newWorkers(t, 2, "{}")
	w.serve(ready(2))
	w.tick(t)
	x := request(0, 0)
	full := w.rigs[0].send(t, x)
	w.rigs[0].answer(x, 503)
	w.tick(t)
	for range 10 {
		require.NotEqual(t, full, w.rigs[1].serveOne(t, request(0, 0), 200))
	}
	for range 60 {
		w.tick(t)
	}
	w.serve(ready(2))
	hits := w.rigs[1].run(t, 20, func(string) int { return 200 })
	require.Positive(t, hits[full], "%v", slices.Sorted(maps.Keys(hits)))
}

// A 503 of a replica whose metrics nobody has any more is a failure, since nothing says that the replica is well.
func TestUnavailableAndOutOfSight(t *testing.T) {
	for name, c := range map[string]struct {
		now  *endpoint.Snapshot
		want int64
	}{
		"its pool is gone":    {&endpoint.Snapshot{Version: 9}, 1},
		"there is no pool":    {&endpoint.Snapshot{Version: 9, Pools: []endpoint.Pool{{Name: "another"}}}, 1},
		"the replica is gone": {&endpoint.Snapshot{Version: 9, Pools: []endpoint.Pool{{Name: "p"}}}, 1},
		"nothing is known":    {nil, 1},
	} {
		r := newRig(t, "{health: {failures: 1}}")
		r.serve(ready(3)...)
		x := request(1, 10)
		at := r.send(t, x)
		if r.snapshot = c.now; c.now != nil {
			c.now.Received = r.now
		}
		r.reply(x, filter.Response{Served: at, Status: 503, Origin: filter.OfReplica, Headers: headers{}})
		require.Equal(t, c.want, r.ejections(), name)
	}
}
