package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// said has the picker read what a companion says of the pool "p" a while later.
func (r *rig) said(source uint64, after time.Duration, pool string, addresses ...string) {
	r.now = r.now.Add(after)
	p := endpoint.Pool{Name: pool}
	for _, a := range addresses {
		p.Endpoints = append(p.Endpoints, endpoint.Endpoint{Address: a, Ready: true})
	}
	r.snapshot = &endpoint.Snapshot{Source: source, Version: uint64(r.now.UnixNano()), Taken: r.now, Received: r.now, Pools: []endpoint.Pool{p}}
	r.f.readSnapshot()
}

// Two companions in one process, such as two listeners' or those before and after an update: a replica that only one of them
// lists does not become ready again with each of its snapshots.
func TestTwoCompanions(t *testing.T) {
	const a, b = "10.0.0.1:80", "10.0.0.2:80"
	for name, c := range map[string]struct {
		pools [2]string
		lists [2][]string
		often int // snapshots of the first for one of the second
	}{
		"another pool":         {[2]string{"llama", "gemma"}, [2][]string{{a}, {b}}, 1},
		"a replica more":       {[2]string{"llama", "llama"}, [2][]string{{a}, {a, b}}, 1},
		"asked for rarely":     {[2]string{"llama", "gemma"}, [2][]string{{a}, {b}}, 50},
		"more often than kept": {[2]string{"llama", "llama"}, [2][]string{{a}, {a, b}}, keptViews},
	} {
		r := newRig(t, "{health: {failures: 1, eject: 5s}}")
		step := func() {
			for range c.often {
				r.said(1, 10*time.Millisecond, c.pools[0], c.lists[0]...)
			}
			r.said(2, 10*time.Millisecond, c.pools[1], c.lists[1]...)
		}
		step()
		r.now = r.now.Add(time.Minute)
		m, at := r.f.fleet.find(b), r.now
		r.f.failed(m, "p", reasonStatus)
		r.f.fleet.backOff(m, r.now.Add(time.Minute))
		for range 3 {
			step()
		}
		require.EqualValues(t, 1, m.ejected.Value(), name)
		require.EqualValues(t, 1, m.backingOff.Value(), name)
		_, entries := r.f.fleet.views[0].find(c.pools[1])
		require.True(t, findEntry(entries, b).since.Before(at), "%s: slow start began when it came", name)
	}
}

// The companion after an update, or a restarted one, is the first to say some of what it says, and knows nothing of what was
// before.
func TestANewCompanion(t *testing.T) {
	const a, b, n = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"
	r := newRig(t, "{health: {failures: 1, eject: 5s}}")
	r.said(1, 0, "llama", a)
	r.said(2, 0, "gemma", b)
	m := r.f.fleet.find(a)
	r.f.failed(m, "p", reasonStatus)
	r.said(3, time.Second, "llama", a, n)
	require.EqualValues(t, 1, m.ejected.Value(), "it was ready all the time")
	_, entries := r.f.fleet.views[0].find("llama")
	require.Zero(t, findEntry(entries, a).since)
	require.Equal(t, r.now, findEntry(entries, n).since, "this one is new")
}

// Replicas of a companion that is gone are forgotten in time.
func TestReplicasOfACompanionThatIsGone(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 5s}}")
	r.said(1, 0, "llama", "10.0.0.1:80")
	r.f.failed(r.f.fleet.find("10.0.0.1:80"), "p", reasonStatus)
	for range 41 {
		r.said(2, time.Minute, "llama", "10.0.0.2:80")
	}
	require.Len(t, r.f.fleet.members, 1)
	require.Zero(t, r.f.fleet.ejected.Value())
}
