package picker

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// relayed is filter.Peers as a test has it: what was told waits, and is heard when the test says so.
type relayed struct {
	told  []byte
	learn func([]byte)
}

func (r *relayed) Tell(notes []byte)       { r.told = append(r.told, notes...) }
func (r *relayed) Hear(learn func([]byte)) { r.learn = learn }

// What other proxies have in flight counts as what this one has, as long as the snapshot is fresh.
func TestPeersCount(t *testing.T) {
	for _, profile := range []string{"sticky", "least-request", "weighted"} {
		r := newRig(t, "{profile: "+profile+"}")
		eps := ready(2)
		eps[0].Peers = endpoint.InFlight{Requests: 20, Tokens: 20000}
		r.serve(eps...)
		for i := range 10 {
			x := request(uint64(i), 0)
			require.Equal(t, eps[1].Address, r.send(t, x), profile)
			r.answer(x, 200)
		}
		x := request(0, 0)
		r.send(t, x)
		require.Contains(t, string(x.Why()), "in-flight=0")
		r.answer(x, 200)

		r.now = r.now.Add(endpoint.DefaultStale) // the companion is gone
		hits := map[string]int{}
		for i := range 40 {
			hits[r.send(t, request(uint64(i), 0))]++
		}
		require.Len(t, hits, 2, profile)
	}
}

func TestWhatPeersHadFades(t *testing.T) {
	r := newRig(t, "{profile: least-request}")
	eps := ready(1)
	eps[0].Peers = endpoint.InFlight{Requests: 10}
	r.serve(eps...)
	received := r.now
	for age, want := range map[time.Duration]string{0: "10", endpoint.DefaultStale / 2: "10", endpoint.DefaultStale * 3 / 4: "5", endpoint.DefaultStale: "0"} {
		r.now = received.Add(age)
		x := request(0, 0)
		r.send(t, x)
		require.Contains(t, string(x.Why()), "in-flight="+want)
		r.answer(x, 200)
	}
}

// The gauges have the peers' requests, too: those are not counted twice.
func TestPeersAreNotCountedTwice(t *testing.T) {
	r := newRig(t, "{profile: least-request}")
	eps := ready(2)
	eps[0].Peers = endpoint.InFlight{Requests: 6}
	eps[0].Gauges.Running = 6
	eps[1].Gauges.Running = 8 // somebody's that nobody reports
	r.serve(eps...)
	require.Equal(t, eps[0].Address, r.send(t, request(0, 0)))
}

// Two proxies that know each other's reports send a conversation to one replica, whichever has the turn; and a third one that starts later, too.
func TestAConversationStaysAmongProxies(t *testing.T) {
	var peers [3]*relayed
	var rigs [3]*rig
	for i := range rigs {
		rigs[i] = newRig(t, "{}")
		peers[i] = &relayed{}
		rigs[i].deps.Counters, rigs[i].deps.Peers = mem.NewCounters(), peers[i]
		rigs[i].f = rigs[i].filter(t, "{}")
		rigs[i].serve(ready(8)...)
	}
	busy := func(i int) { // so that rendezvous hashing alone would not do
		for n := range 30 {
			rigs[i].send(t, request(uint64(1000*i+n), 3))
		}
	}
	busy(0)
	var all []byte
	at := rigs[0].serveOne(t, request(1, 20), 200)
	for turn := range 10 {
		for i, p := range peers[:2] {
			all = append(all, p.told...)
			peers[1-i].learn(p.told)
			p.told = nil
		}
		x := request(1, 21+turn)
		require.Equal(t, at, rigs[turn%2].serveOne(t, x, 200))
		require.Contains(t, string(x.Why()), fmt.Sprintf("hit=%d/%d", 20+turn, 21+turn))
	}
	peers[2].learn(all)
	require.Equal(t, at, rigs[2].serveOne(t, request(1, 40), 200))
	require.NotEmpty(t, peers[2].told)
}

// Of wasm workers one hears and one tells for all, and what was heard is not told again.
func TestWorkersAmongProxies(t *testing.T) {
	w := newWorkers(t, 3, "{}")
	p := &relayed{}
	w.rigs[0].deps.Peers = p
	w.rigs[0].f = w.rigs[0].filter(t, "{}")
	w.serve(ready(8))
	w.tick(t)
	w.tick(t)
	x := request(1, 20)
	at := w.rigs[1].serveOne(t, x, 200)
	w.tick(t)
	w.tick(t)
	chain := stateOf(x).chain
	require.Equal(t, endpoint.AppendNote(nil, endpoint.ReplicaID(at), chain), p.told)
	p.told = nil

	y := request(2, 20)
	w.rigs[0].serveOne(t, y, 200)
	w.tick(t)
	n, _, ok := endpoint.CutNote(p.told)
	require.True(t, ok, "its own, too")
	require.Equal(t, stateOf(y).chain, n.AppendChain(nil))
	p.told = nil

	z := request(3, 20)
	newRigOf(t).f.OnRequest(z)
	p.learn(endpoint.AppendNote(nil, endpoint.ReplicaID("10.0.0.005:80"), stateOf(z).chain))
	w.tick(t)
	w.tick(t)
	require.Empty(t, p.told)
	for _, r := range w.rigs {
		require.Equal(t, "10.0.0.005:80", r.send(t, request(3, 21)))
	}
}

// newRigOf is a proxy of its own.
func newRigOf(t *testing.T) *rig {
	r := newRig(t, "{}")
	r.serve(ready(8)...)
	return r
}
