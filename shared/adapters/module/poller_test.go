package module

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

const withCompanion = policyOnly + "\ncompanion: {cluster: companion, wait: 20s}"

// wire is what the companion sends.
func wire(version uint64) []byte {
	return endpoint.Append(nil, &endpoint.Snapshot{
		Source: 7, Version: version, Taken: time.Unix(100, 0),
		Pools: []endpoint.Pool{{Name: "p", Endpoints: []endpoint.Endpoint{{Address: "10.0.0.1:80", Ready: true}}}},
	})
}

// configure makes one more configuration in a process.
func configure(t *testing.T, p *process, document string) (*config, *envoyConfig) {
	t.Helper()
	e := &envoyConfig{}
	c, err := newConfig(e, []byte(document), []filter.Factory{(&policy{}).factory()}, p)
	require.NoError(t, err)
	return c, e
}

func version(c *config) uint64 {
	if s := c.Snapshot(); s != nil {
		return s.Version
	}
	return 0
}

func logged(e *envoyConfig, part string) (n int) {
	for _, l := range e.logs {
		n += strings.Count(l, part)
	}
	return n
}

func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(nil)
		c, e := configure(t, p, withCompanion)
		defer c.OnDestroy()
		require.Empty(t, e.polls, "no network while a configuration is made")
		e.loop()
		require.Len(t, e.polls, 1)
		require.Equal(t, "companion/v1/snapshot?worker="+p.Worker+"&wait=20000&proxy="+p.Worker+"&heard=0", e.polls[0].path)
		require.EqualValues(t, 25000, e.polls[0].timeout)

		body := wire(3)
		e.answer("200", body[:5], body[5:])
		s := c.Snapshot()
		require.EqualValues(t, 3, s.Version)
		require.Equal(t, time.Now(), s.Received)
		s.Pool("p").Endpoints[0].Load.Requests.Add(1)
		require.EqualValues(t, 1, p.Counters.Open("10.0.0.1:80").Value())
		require.Len(t, e.polls, 1, "it asks on at once")
		require.Contains(t, e.polls[0].path, "since=7-3&")

		time.Sleep(20 * time.Second)
		e.answer("304")
		e.turn()
		require.Len(t, e.polls, 1)
		require.Same(t, s, c.Snapshot())
	})
}

// What cannot be called is tried again, and told once.
func TestFeedFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e := configure(t, newProcess(nil), withCompanion)
		defer c.OnDestroy()
		e.init = shared.HttpCalloutInitClusterNotFound
		e.run(20 * time.Second)
		require.Equal(t, 1, logged(e, `no cluster "companion" in Envoy`))

		e.init = shared.HttpCalloutInitSuccess
		e.run(5 * time.Second)
		e.answer("200", wire(1))
		require.Equal(t, 1, logged(e, "succeed again"))
		require.EqualValues(t, 1, version(c))
	})
}

// Nothing that a companion answers, and no broken call, takes away the snapshot that is there.
func TestFeedBadAnswers(t *testing.T) {
	for name, answer := range map[string]func(*envoyConfig){
		"garbage": func(e *envoyConfig) { e.answer("200", []byte("<html>")) },
		"error":   func(e *envoyConfig) { e.answer("500", wire(6)) },
		"reset": func(e *envoyConfig) {
			e.polls[0].done.OnHttpCalloutDone(1, shared.HttpCalloutReset, nil, nil)
			e.polls = e.polls[1:]
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, e := configure(t, newProcess(nil), withCompanion)
				defer c.OnDestroy()
				e.loop()
				e.answer("200", wire(5))
				answer(e)
				e.loop()
				require.Empty(t, e.polls, "it rests")
				require.EqualValues(t, 5, version(c))
				e.run(100 * time.Millisecond)
				require.Len(t, e.polls, 1)
				e.answer("200", wire(6))
				require.EqualValues(t, 6, version(c))
			})
		})
	}
}

// A new configuration has the replicas from the start, and does the asking.
func TestFeedSurvivesAnUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(nil)
		first, old := configure(t, p, withCompanion)
		old.loop()
		old.answer("200", wire(1))

		second, now := configure(t, p, withCompanion)
		require.EqualValues(t, 1, version(second))
		now.loop()
		require.Len(t, now.polls, 1)
		now.answer("200", wire(3))
		old.answer("200", wire(2)) // it was in progress
		require.EqualValues(t, 3, version(second), "the older answer came too late")
		require.Empty(t, old.polls, "the old configuration asks no more")

		second.OnDestroy() // Envoy found something else wrong with it
		old.loop()
		require.Len(t, old.polls, 1, "the old one takes over")
		first.OnDestroy()

		third, _ := configure(t, p, withCompanion)
		require.EqualValues(t, 3, version(third))
		third.OnDestroy()
	})
}

// An old configuration that goes away does not disturb the new one's poll.
func TestFeedOldConfigurationLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(nil)
		first, old := configure(t, p, withCompanion)
		old.loop()
		second, now := configure(t, p, withCompanion)
		now.loop()
		first.OnDestroy()
		now.loop()
		require.Len(t, now.polls, 1, "one poll at a time")
		second.OnDestroy()
	})
}

// After OnDestroy nothing is left that runs: synctest waits for all timers and
// goroutines.
func TestFeedEndsWithItsConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e := configure(t, newProcess(nil), withCompanion)
		e.init = shared.HttpCalloutInitClusterNotFound
		e.loop() // a timer runs now
		c.OnDestroy()
		time.Sleep(time.Minute)
		require.True(t, e.idle())
	})
}

func TestFeedsOfSeveralCompanions(t *testing.T) {
	p := newProcess(nil)
	a, ea := configure(t, p, withCompanion)
	b, eb := configure(t, p, strings.Replace(withCompanion, "cluster: companion", "cluster: another", 1))
	ea.loop()
	eb.loop()
	require.Len(t, ea.polls, 1)
	require.Len(t, eb.polls, 1)
	ea.answer("200", wire(4))
	require.EqualValues(t, 4, version(a))
	require.Zero(t, version(b))
	a.OnDestroy()
	b.OnDestroy()
	none, _ := configure(t, p, policyOnly)
	require.Nil(t, none.Snapshot())
	none.OnDestroy()
}

// A panic in the main thread's work is told, and the poll goes on later.
func TestFeedPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(nil)
		c, e := configure(t, p, withCompanion)
		defer c.OnDestroy()
		c.Poller.Deps.Counters = nil // Attach will panic
		e.loop()
		require.NotPanics(t, func() { e.answer("200", wire(1)) })
		require.Equal(t, 1, logged(e, "5 inlet: panic: "))
		c.Poller.Deps.Counters = p.Counters
		e.run(5 * time.Second)
		e.answer("200", wire(1))
		require.EqualValues(t, 1, version(c))
	})
}

// change is a delta to the version before.
func change(t *testing.T, version uint64) []byte {
	s, err := endpoint.Decode(wire(version))
	require.NoError(t, err)
	s.Pools[0].Endpoints[0].Ready = false
	return endpoint.AppendDelta(nil, s, version-1, []endpoint.Change{{Position: 0}})
}

func TestFeedDelta(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e := configure(t, newProcess(nil), withCompanion)
		defer c.OnDestroy()
		e.loop()
		e.answer("200", wire(5))
		before := c.Snapshot()
		e.answer("200", change(t, 6))
		require.EqualValues(t, 6, version(c))
		require.False(t, c.Snapshot().Pools[0].Endpoints[0].Ready)
		require.True(t, before.Pools[0].Endpoints[0].Ready, "who reads the old one is not disturbed")
		require.Same(t, before.Pools[0].Endpoints[0].Load, c.Snapshot().Pools[0].Endpoints[0].Load)
		require.Contains(t, e.polls[0].path, "since=7-6&")

		e.answer("200", change(t, 9))
		require.EqualValues(t, 6, version(c))
		require.Equal(t, 1, logged(e, "a delta to another snapshot"))
		e.run(100 * time.Millisecond)
		require.NotContains(t, e.polls[0].path, "since", "asked for whole")
		e.answer("200", wire(9))
		require.Contains(t, e.polls[0].path, "since=7-9&")
	})
}

// What the filters of any configuration tell goes out by the newest one, with what all have in flight; what others tell comes back to them.
func TestFeedRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(nil)
		first, old := configure(t, p, withCompanion)
		old.loop()
		old.answer("200", wire(1))
		second, e := configure(t, p, withCompanion)
		defer first.OnDestroy()
		defer second.OnDestroy()
		e.loop()
		note := endpoint.AppendNote(nil, 7, []uint64{1, 2})
		first.Poller.Deps.Peers.Tell(note)
		second.Poller.Deps.Peers.Tell(note)
		first.Snapshot().Pools[0].Endpoints[0].Load.Requests.Add(1)
		e.turn()
		require.Len(t, e.tells, 1)
		require.Equal(t, "companion/v1/relay?proxy="+p.Worker, e.tells[0].path)
		tell, err := endpoint.DecodeReport(e.tells[0].body)
		require.NoError(t, err)
		require.Equal(t, append(note, note...), tell.Notes)
		require.EqualValues(t, 1, tell.InFlight[0].Requests)

		var heard []byte
		p.Source("companion").Notes.Hear(func(notes []byte) { heard = notes })
		e.answer("200", endpoint.AppendRelayed(wire(2), []endpoint.Peer{{InFlight: endpoint.InFlight{Requests: 3}}}, 4, note))
		require.Equal(t, note, heard)
		require.EqualValues(t, 3, first.Snapshot().Pools[0].Endpoints[0].Peers.Requests)
		old.run(time.Second)
		require.Empty(t, old.tells)
	})
}

// A configuration may go before its first turn on the main thread, or twice, and leaves quietly.
func TestFeedThatNeverBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e := configure(t, newProcess(nil), withCompanion)
		c.OnDestroy()
		c.OnDestroy()
		e.loop()
		time.Sleep(time.Minute)
		require.True(t, e.idle())
		require.Empty(t, e.polls)
		require.Zero(t, logged(e, "panic"))
	})
}
