package endpoint_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

func TestRelayedPath(t *testing.T) {
	require.Equal(t, "/v1/snapshot?worker=w&wait=20000&proxy=a%26b&heard=0", endpoint.RelayedPath(nil, "w", 20*time.Second, "a&b"))
	require.Equal(t, "/v1/snapshot?since=3-4&worker=w&wait=0&proxy=a&heard=5",
		endpoint.RelayedPath(&endpoint.Snapshot{Source: 3, Version: 4, Heard: 5}, "w", 0, "a"))
	require.Equal(t, "/v1/relay?proxy=a%26b", endpoint.ReportPath("a&b"))
}

func anyInFlight(t *rapid.T) endpoint.InFlight {
	return endpoint.InFlight{Requests: rapid.Int64Range(0, math.MaxInt32).Draw(t, "requests"), Tokens: rapid.Int64Range(0, 1<<40).Draw(t, "tokens")}
}

func anyChain(t *rapid.T) []uint64 { return rapid.SliceOfN(rapid.Uint64(), 1, 5).Draw(t, "chain") }

type told struct {
	replica uint64
	chain   []uint64
}

// read reads notes to their end.
func read(t require.TestingT, notes []byte) (all []told) {
	for len(notes) > 0 {
		n, rest, ok := endpoint.CutNote(notes)
		require.True(t, ok)
		all = append(all, told{n.Replica, n.AppendChain(nil)})
		notes = rest
	}
	return all
}

// A tell comes back as it was.
func TestTell(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tell endpoint.Report
		for range rapid.IntRange(0, 5).Draw(t, "replicas") {
			tell.InFlight = append(tell.InFlight, endpoint.Reported{Replica: rapid.Uint64().Draw(t, "replica"), InFlight: anyInFlight(t)})
		}
		var notes []told
		for range rapid.IntRange(0, 5).Draw(t, "notes") {
			n := told{rapid.Uint64().Draw(t, "replica"), anyChain(t)}
			notes = append(notes, n)
			tell.Notes = endpoint.AppendNote(tell.Notes, n.replica, n.chain)
		}
		wire := endpoint.AppendReport(nil, &tell)
		got, err := endpoint.DecodeReport(wire)
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(&tell, got, exact))
		require.Equal(t, notes, read(t, got.Notes))
		for cut := range wire {
			_, err := endpoint.DecodeReport(wire[:cut])
			require.ErrorIs(t, err, endpoint.ErrMalformed)
		}
	})
}

// What others told comes with any answer, whole or a delta, and is what a worker that gets it whole has, too.
func TestRelayed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have := anySnapshot(t)
		next, changes := later(t, have)
		for _, p := range have.Pools {
			for i := range p.Endpoints {
				p.Endpoints[i].Peers = anyInFlight(t) // it is reported again
			}
		}
		var peers []endpoint.Peer
		position := 0
		for _, p := range next.Pools {
			for i := range p.Endpoints {
				p.Endpoints[i].Peers = endpoint.InFlight{}
				if f := anyInFlight(t); f != (endpoint.InFlight{}) && rapid.Bool().Draw(t, "busy") {
					peers = append(peers, endpoint.Peer{Position: position, InFlight: f})
				}
				position++
			}
		}
		heard := rapid.Uint64Min(1).Draw(t, "heard")
		notes := endpoint.AppendNote(nil, 1, anyChain(t))
		want := append([]byte(nil), notes...)
		for _, wire := range [][]byte{endpoint.Append(nil, next), endpoint.AppendDelta(nil, next, have.Version, changes)} {
			answer := endpoint.AppendRelayed(wire, peers, heard, notes)
			got, err := endpoint.Apply(have, answer)
			require.NoError(t, err)
			require.Equal(t, heard, got.Heard)
			require.Equal(t, want, endpoint.Notes(answer))
			again, err := endpoint.Decode(endpoint.Append(nil, got))
			require.NoError(t, err)
			position, left := 0, peers
			for i, p := range got.Pools {
				for j, e := range p.Endpoints {
					want := endpoint.InFlight{}
					if len(left) > 0 && left[0].Position == position {
						want, left = left[0].InFlight, left[1:]
					}
					require.Equal(t, want, e.Peers)
					require.Equal(t, want, again.Pools[i].Endpoints[j].Peers)
					position++
				}
			}
			require.Equal(t, heard, again.Heard)
		}
	})
}

func TestMalformedRelay(t *testing.T) {
	head := endpoint.Append(nil, twoPools())
	for name, b := range map[string][]byte{
		"peers of no endpoint": append(head[:len(head):len(head)], section(48, 1, 4, 1, 1)...),
		"peers cut off":        append(head[:len(head):len(head)], section(48, 2, 0, 1, 1)...),
		"peers without a list": wire(section(1, make([]byte, 24)...), section(48, 0)),
		"a short heard":        append(head[:len(head):len(head)], section(49, 1)...),
	} {
		_, err := endpoint.Decode(b)
		require.ErrorIs(t, err, endpoint.ErrMalformed, name)
	}
	for name, b := range map[string][]byte{
		"nothing":            wire(),
		"an empty note":      wire(section(50, make([]byte, 10)...), section(64, 0)),
		"too many":           wire(section(64, 0xff, 0xff, 0xff, 0xff, 7)),
		"more than it said":  wire(section(64, 0, 1)),
		"requests too large": wire(section(64, append(append([]byte{1}, make([]byte, 8)...), 0xff, 0xff, 0xff, 0xff, 0x0f, 0)...)),
	} {
		_, err := endpoint.DecodeReport(b)
		require.ErrorIs(t, err, endpoint.ErrMalformed, name)
	}
	_, err := endpoint.DecodeReport(wire(section(64, 0), section(99, 1, 2, 3)))
	require.NoError(t, err, "what is new is skipped")
}

func FuzzDecodeTell(f *testing.F) {
	f.Add(endpoint.AppendReport(nil, &endpoint.Report{}))
	f.Add(endpoint.AppendReport(nil, &endpoint.Report{
		InFlight: []endpoint.Reported{{Replica: 1, InFlight: endpoint.InFlight{Requests: 2, Tokens: 3}}}, Notes: endpoint.AppendNote(nil, 1, []uint64{2, 3}),
	}))
	f.Add(wire(section(50, make([]byte, 10)...), section(64, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		tell, err := endpoint.DecodeReport(b)
		if err != nil {
			require.ErrorIs(t, err, endpoint.ErrMalformed)
			return
		}
		read(t, tell.Notes)
		again, err := endpoint.DecodeReport(endpoint.AppendReport(nil, tell))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(tell, again, exact))
	})
}

// What others have in flight on 1,000 replicas, with a change of ten.
func BenchmarkApplyPeers1000(b *testing.B) {
	have := replicas(1000)
	have.Attach(mem.NewCounters(), nil)
	var changes []endpoint.Change
	var peers []endpoint.Peer
	for i := range 1000 {
		if i%100 == 0 {
			changes = append(changes, endpoint.Change{Position: i})
		}
		peers = append(peers, endpoint.Peer{Position: i, InFlight: endpoint.InFlight{Requests: int64(i % 100), Tokens: int64(i) * 50}})
	}
	wire := endpoint.AppendRelayed(endpoint.AppendDelta(nil, have, have.Version, changes), peers, 7, nil)
	b.ReportMetric(float64(len(wire))/1000, "bytes/replica")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := endpoint.Apply(have, wire); err != nil {
			b.Fatal(err)
		}
	}
}
