package relay

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// lived is a relay with a replica of which a proxy has told a prompt, and one of which it
// took a prompt back.
func lived(t *testing.T) (r *Relay, now *time.Time) {
	clock := time.Unix(100, 0)
	r = New(Options{Now: func() time.Time { return clock }})
	r.Publish(pools(endpoint.Endpoint{Address: "10.0.0.1:80", Ready: true, Started: 7}))
	id := endpoint.ReplicaID("10.0.0.1:80")
	notes := endpoint.AppendNote(nil, id, []uint64{1, 2})
	notes = endpoint.AppendNote(notes, endpoint.Unlearnt(id), []uint64{3})
	notes = endpoint.AppendNote(notes, endpoint.ReplicaID("10.0.0.2:80"), []uint64{4})
	p := r.board.proxy("p", clock)
	_, err := r.board.report(p, &endpoint.Report{Notes: notes}, clock, time.Second)
	require.NoError(t, err)
	require.Len(t, r.board.notes.ends, 3)
	return r, &clock
}

func pools(first ...endpoint.Endpoint) []endpoint.Pool {
	return []endpoint.Pool{{Name: "p", Endpoints: append(first, endpoint.Endpoint{Address: "10.0.0.2:80", Ready: true})}}
}

// A proxy that is started later is not told what a process had that is gone.
func TestNotesOfAnotherProcessAreForgotten(t *testing.T) {
	type step struct {
		after   time.Duration
		absent  bool
		unready bool
		started int64
	}
	for name, c := range map[string]struct {
		steps []step
		left  int
	}{
		"the same":              {[]step{{time.Second, false, false, 7}}, 3},
		"the same, down":        {[]step{{time.Second, false, true, 7}, {time.Minute, false, false, 7}}, 3},
		"the same, delisted":    {[]step{{time.Second, true, false, 0}, {time.Minute, false, false, 7}}, 3},
		"anchored elsewhere":    {[]step{{time.Second, false, false, 8}, {time.Second, false, false, 6}}, 3},
		"an earlier one":        {[]step{{time.Second, false, false, 1}}, 3},
		"earlier, after a fall": {[]step{{time.Second, false, true, 7}, {time.Second, false, false, 1}}, 1},
		"another":               {[]step{{time.Second, false, false, 18}}, 1},
		"another, delisted":     {[]step{{time.Second, true, false, 0}, {time.Second, false, false, 18}}, 1},
		"unknown, down":         {[]step{{time.Second, false, true, 0}, {time.Minute, false, false, 0}}, 1},
		"unknown, for a moment": {[]step{{time.Second, false, true, 0}, {time.Second, false, false, 0}}, 3},
	} {
		r, now := lived(t)
		for _, s := range c.steps {
			*now = now.Add(s.after)
			if s.absent {
				r.Publish(pools())
				continue
			}
			r.Publish(pools(endpoint.Endpoint{Address: "10.0.0.1:80", Ready: !s.unready, Started: s.started}))
		}
		require.Len(t, r.board.notes.ends, c.left, name)
		raw, _, _ := r.board.notes.since(0, "another", 1<<20)
		sent := 0
		for _, rest, ok := endpoint.CutNote(raw); ok; _, rest, ok = endpoint.CutNote(rest) {
			sent++
		}
		require.Equal(t, c.left, sent, name)
	}
}

// A replica in two pools of which each tells something else is one.
func TestNotesOfAReplicaInTwoPools(t *testing.T) {
	r, now := lived(t)
	for i := range 4 {
		*now = now.Add(5 * time.Second)
		both := append(pools(endpoint.Endpoint{Address: "10.0.0.1:80", Ready: true, Started: 7}), endpoint.Pool{Name: "q", Endpoints: []endpoint.Endpoint{
			{Address: "10.0.0.1:80", Ready: i%2 == 0},
		}})
		r.Publish(both)
	}
	require.Len(t, r.board.notes.ends, 3)
}

// Addresses that come and go, as those of pods do, take no more and more memory.
func TestReplicasThatAreGoneAreForgotten(t *testing.T) {
	r, _ := lived(t)
	for i := range 5 * maxMissing {
		r.Publish(pools(endpoint.Endpoint{Address: fmt.Sprintf("10.1.%d.%d:80", i/250, i%250), Ready: true}))
	}
	require.LessOrEqual(t, len(r.board.lives), maxMissing+10)
	require.Len(t, r.board.notes.ends, 1)
}
