package endpoint_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// adapted makes all replicas tell what they serve: two sets of models, up to eight adapters at work.
func adapted(s *endpoint.Snapshot) *endpoint.Snapshot {
	var adapters []endpoint.Adapter
	for i := range 32 {
		adapters = append(adapters, endpoint.Adapter{Name: fmt.Sprintf("customer-%02d", i), Parent: "meta-llama/Llama-3.1-8B-Instruct"})
	}
	for _, p := range s.Pools {
		for i := range p.Endpoints {
			e := &p.Endpoints[i]
			e.Models = &endpoint.Models{Names: []string{"meta-llama/Llama-3.1-8B-Instruct"}, Adapters: adapters[:16+i%2*16]}
			e.Cache = endpoint.Cache{BlockTokens: 16, Blocks: 27876 + int32(i%7)}
			e.Priority, e.Started = uint16(i%2), 1_789_999_000+int64(i)
			e.LoRA = &endpoint.LoRA{Max: 8}
			for j := range i % 5 {
				e.LoRA.Running = append(e.LoRA.Running, adapters[(i+j)%16].Name)
			}
			for j := range i % 3 {
				e.LoRA.Waiting = append(e.LoRA.Waiting, adapters[(i+8+j)%16].Name)
			}
		}
	}
	return s
}

// later is a snapshot with the same replicas, of which some changed.
func later(t *rapid.T, s *endpoint.Snapshot) (next *endpoint.Snapshot, changes []endpoint.Change) {
	passed := time.Duration(rapid.Int64Range(0, math.MaxInt64/2000).Draw(t, "passed")) * time.Microsecond
	next = &endpoint.Snapshot{Source: s.Source, Version: s.Version + 1, Taken: s.Taken.Add(passed)}
	position := 0
	for _, p := range s.Pools {
		p.Endpoints = slices.Clone(p.Endpoints)
		for i := range p.Endpoints {
			e := &p.Endpoints[i]
			switch rapid.IntRange(0, 2).Draw(t, "change") {
			case 0:
				if e.Gauges.Known {
					e.Gauges.Age += passed
				}
			case 1:
				e.Ready, e.Gauges = !e.Ready, endpoint.Gauges{Known: true, Age: time.Microsecond, Waiting: position, KVUse: 1}
				changes = append(changes, endpoint.Change{Position: position})
			case 2:
				e.Gauges, e.LoRA = endpoint.Gauges{}, anyLoRA(t)
				changes = append(changes, endpoint.Change{Position: position, LoRA: true})
			}
			position++
		}
		next.Pools = append(next.Pools, p)
	}
	return next, changes
}

// A delta to what a proxy has gives the same as the whole snapshot, and leaves what it had alone.
func TestDelta(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anySnapshot(t)
		s.Taken, s.Version = taken, s.Version/2
		for _, p := range s.Pools {
			for i := range p.Endpoints {
				p.Endpoints[i].Gauges.Age /= 2 // there is room to age
			}
		}
		have, err := endpoint.Decode(endpoint.Append(nil, s)) // rounded as on the wire
		require.NoError(t, err)
		before := endpoint.Append(nil, have)
		next, changes := later(t, have)

		got, err := endpoint.Apply(have, endpoint.AppendDelta(nil, next, have.Version, changes))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(next, got, exact))
		require.Equal(t, before, endpoint.Append(nil, have))

		got, err = endpoint.Apply(have, endpoint.Append(nil, next))
		require.NoError(t, err, "a whole one is taken whatever one has")
		require.Empty(t, cmp.Diff(next, got, exact))
	})
}

func TestDeltaKeepsTheLoad(t *testing.T) {
	have := talkative()
	counters := mem.NewCounters()
	have.Attach(counters, nil)
	next := talkative()
	next.Version++
	got, err := endpoint.Apply(have, endpoint.AppendDelta(nil, next, have.Version, []endpoint.Change{{Position: 2}}))
	require.NoError(t, err)
	for i := range got.Pools[1].Endpoints {
		require.Same(t, have.Pools[1].Endpoints[i].Load, got.Pools[1].Endpoints[i].Load)
	}
	got.Pools[1].Endpoints[0].Load = nil
	got.Attach(counters, nil)
	require.Equal(t, have.Pools[1].Endpoints[0].Load, got.Pools[1].Endpoints[0].Load)
}

// A clock that was set back makes no gauge younger, and none overflows.
func TestDeltaAges(t *testing.T) {
	have := &endpoint.Snapshot{Version: 1, Taken: taken, Pools: []endpoint.Pool{{Name: "p", Endpoints: []endpoint.Endpoint{
		{Address: "1.1.1.1:1", Gauges: endpoint.Gauges{Known: true, Age: time.Second}},
		{Address: "1.1.1.2:1", Gauges: endpoint.Gauges{Known: true, Age: math.MaxInt64}},
		{Address: "1.1.1.3:1"},
	}}}}
	for passed, want := range map[time.Duration][3]time.Duration{
		-time.Hour:  {time.Second, math.MaxInt64, 0},
		time.Second: {2 * time.Second, math.MaxInt64, 0},
	} {
		next := &endpoint.Snapshot{Version: 2, Taken: taken.Add(passed)}
		got, err := endpoint.Apply(have, endpoint.AppendDelta(nil, next, 1, nil))
		require.NoError(t, err)
		for i, e := range got.Pools[0].Endpoints {
			require.Equal(t, want[i], e.Gauges.Age)
		}
	}
}

func TestDeltaToAnotherSnapshot(t *testing.T) {
	s := twoPools()
	delta := endpoint.AppendDelta(nil, s, 6, nil)
	for name, c := range map[string]struct {
		have *endpoint.Snapshot
		want string
	}{
		"nothing": {nil, "a delta to another snapshot: version 6, and there is none here"},
		"version": {s, "a delta to another snapshot: 18369614221190020847-6, not 18369614221190020847-7"},
		"source":  {&endpoint.Snapshot{Source: 5, Version: 6}, "a delta to another snapshot: 18369614221190020847-6, not 5-6"},
	} {
		_, err := endpoint.Apply(c.have, delta)
		require.EqualError(t, err, c.want, name)
		require.ErrorIs(t, err, endpoint.ErrBase)
	}
}

var malformedDeltas = map[string]struct {
	wire []byte
	want string
}{
	"no changes":               {wire(head, base), "malformed snapshot: a required section is missing"},
	"changes cut off":          {wire(head, base, section(33, 0, 0, 0)), "malformed snapshot: changes: cut off"},
	"more changes than bytes":  {wire(head, base, section(33, 0, 0, 0, 2, 0, 0)), "malformed snapshot: changes: a count is larger than what follows"},
	"no such endpoint":         {wire(head, base, section(33, 0, 0, 0, 1, 1, 0)), "malformed snapshot: changes: there is no such endpoint"},
	"one after the last":       {wire(head, base, section(33, 0, 0, 0, 2, 0, 0, 0, 0)), "malformed snapshot: changes: there is no such endpoint"},
	"unknown flags":            {wire(head, base, section(33, 0, 0, 0, 1, 0, 8)), "malformed snapshot: changes: unknown flags"},
	"LoRA that is not there":   {wire(head, base, section(33, 0, 0, 0, 1, 0, 4)), "malformed snapshot: changes: cut off"},
	"LoRA not announced":       {wire(head, base, section(33, 0, 0, 0, 1, 0, 4, 1, 0, 0)), "malformed snapshot: changes: more than was announced, or less"},
	"less LoRA than announced": {wire(head, base, section(33, 0, 1, 0, 1, 0, 0)), "malformed snapshot: changes: more than was announced, or less"},
	"bytes after the changes":  {wire(head, base, section(33, 0, 0, 0, 0, 0)), "malformed snapshot: changes: more than was announced, or less"},
}

var (
	base    = section(32, make([]byte, 8)...)
	baseHas = &endpoint.Snapshot{Taken: taken, Pools: []endpoint.Pool{{Name: "p", Endpoints: []endpoint.Endpoint{{Address: "x"}}}}}
)

func TestMalformedDelta(t *testing.T) {
	for name, c := range malformedDeltas {
		t.Run(name, func(t *testing.T) {
			_, err := endpoint.Apply(baseHas, c.wire)
			require.EqualError(t, err, c.want)
			require.ErrorIs(t, err, endpoint.ErrMalformed)
		})
	}
}

func FuzzApply(f *testing.F) {
	for _, c := range malformedDeltas {
		f.Add(c.wire)
	}
	have := talkative()
	f.Add(endpoint.AppendDelta(nil, have, 7, []endpoint.Change{{Position: 0, LoRA: true}, {Position: 3}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := endpoint.Apply(have, b)
		if err != nil {
			require.True(t, errors.Is(err, endpoint.ErrMalformed) || errors.Is(err, endpoint.ErrBase), "%v", err)
			return
		}
		again, err := endpoint.Decode(endpoint.Append(nil, s))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(s, again, exact, cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 0.5/65535+1e-12 })))
	})
}

// few is a change of every hundredth replica.
func few() (have, next *endpoint.Snapshot, changes []endpoint.Change) {
	have, next = replicas(1000), replicas(1000)
	next.Version++
	for i := 0; i < 1000; i += 100 {
		changes = append(changes, endpoint.Change{Position: i})
	}
	return have, next, changes
}

func TestDeltaSize(t *testing.T) {
	_, next, changes := few()
	none := endpoint.AppendDelta(nil, next, 1, nil)
	wire := endpoint.AppendDelta(nil, next, 1, changes)
	perChange := float64(len(wire)-len(none)) / float64(len(changes))
	t.Logf("%d bytes, and %.1f per changed replica", len(none), perChange)
	require.LessOrEqual(t, perChange, 12.0)
	require.LessOrEqual(t, len(none), 64)
}

func BenchmarkApplyDelta1000(b *testing.B) {
	have, next, changes := few()
	counters := mem.NewCounters()
	have.Attach(counters, nil)
	wire := endpoint.AppendDelta(nil, next, have.Version, changes)
	b.ReportAllocs()
	b.ReportMetric(float64(len(wire)), "bytes")
	for b.Loop() {
		s, err := endpoint.Apply(have, wire)
		if err != nil {
			b.Fatal(err)
		}
		s.Attach(counters, nil)
	}
}
