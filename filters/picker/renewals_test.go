package picker

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// told is a snapshot of pools whose gauges were read so long before it was taken; a negative age is an unknown gauge.
func told(source uint64, at time.Duration, pools ...[]time.Duration) *endpoint.Snapshot {
	s := &endpoint.Snapshot{Source: source, Taken: time.Unix(100, 0).Add(at)}
	for _, ages := range pools {
		eps := ready(len(ages))
		for i, age := range ages {
			eps[i].Gauges = endpoint.Gauges{Known: age >= 0, Age: max(0, age)}
		}
		s.Pools = append(s.Pools, endpoint.Pool{Name: "p", Endpoints: eps})
	}
	return s
}

func TestTimeBetweenGauges(t *testing.T) {
	const none, s = time.Duration(-1), time.Second
	type ages = []time.Duration
	moved := told(1, 4*s, ages{0, 0})
	moved.Pools[0].Endpoints[0].Address = "10.0.0.9:80"
	for name, c := range map[string]struct {
		before, after *endpoint.Snapshot
		want          time.Duration // 0: nothing is learnt
	}{
		"read again":              {told(1, 0, ages{0}), told(1, 4*s, ages{0}), 4 * s},
		"by their ages":           {told(1, 0, ages{s}), told(1, 4*s, ages{2 * s}), 3 * s},
		"told again":              {told(1, 0, ages{s}), told(1, 4*s, ages{5 * s}), 0},
		"a millisecond is none":   {told(1, 0, ages{0}), told(1, time.Millisecond, ages{0}), 0},
		"more than a millisecond": {told(1, 0, ages{0}), told(1, time.Millisecond+1, ages{0}), time.Millisecond + 1},
		"the mean":                {told(1, 0, ages{0, 2 * s}), told(1, 4*s, ages{0, 0}), 5 * s},
		"of those that are new":   {told(1, 0, ages{0, 0}), told(1, 4*s, ages{0, 4 * s}), 4 * s},
		"of those that are known": {told(1, 0, ages{none, 0, 2 * s}), told(1, 4*s, ages{0, none, 0}), 6 * s},
		"of the same replica":     {told(1, 0, ages{0, 2 * s}), moved, 6 * s},
		"of both lists":           {told(1, 0, ages{0}), told(1, 4*s, ages{s, 0, 0}), 3 * s},
		"the other way":           {told(1, 0, ages{0, 0, 0}), told(1, 4*s, ages{s}), 3 * s},
		"of all pools":            {told(1, 0, ages{0}, ages{2 * s}), told(1, 4*s, ages{0}, ages{0}), 5 * s},
		"of both":                 {told(1, 0, ages{0}), told(1, 4*s, ages{0}, ages{0}), 4 * s},
		"another companion":       {told(1, 0, ages{0}), told(2, 4*s, ages{0}), 0},
	} {
		var r renewals
		r.note(c.before, c.after)
		require.Equal(t, c.want, r[0], name)
	}
	var r renewals
	for n := range len(r) {
		require.Zero(t, r.least(), "not enough yet")
		r.note(told(1, 0, ages{0}), told(1, time.Duration(20-n)*s, ages{0}))
	}
	require.Equal(t, 5*s, r.least())
	for range len(r) {
		r.note(told(1, 0, ages{0}), told(1, 7*s, ages{0}))
	}
	require.Equal(t, 7*s, r.least(), "what is long ago does not count")
}

// The warning comes from the time on at which gauges say nothing, at once when that is sure, and once a minute.
func TestTheWarningOfAMisfit(t *testing.T) {
	for interval, warns := range map[time.Duration]bool{199 * time.Millisecond: false, 200 * time.Millisecond: true} {
		r := newRig(t, "stale: 200ms")
		first := 0
		for round := range 400 {
			r.now = r.now.Add(interval)
			r.serve(ready(2)...)
			r.snapshot.Taken = r.now
			r.serveOne(t, request(0, 0), 200)
			if len(r.logs) > 0 && first == 0 {
				first = round
			}
		}
		if !warns {
			require.Empty(t, r.logs)
			continue
		}
		require.Equal(t, len(renewals{}), first)
		require.Len(t, r.logs, 2, "80 seconds")
		for _, l := range r.logs {
			require.True(t, strings.HasPrefix(l, "gauges are renewed every 200ms, but \"stale\" ignores them after 200ms: "), l)
		}
	}
}
