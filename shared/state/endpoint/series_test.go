package endpoint_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// A series reads what Decode does, whatever came before, keeps nothing of its input, and leaves the last snapshot as it was.
func TestSeries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s endpoint.Series
		var last, wanted *endpoint.Snapshot
		known := rapid.SliceOfN(rapid.Custom(anySnapshot), 1, 3).Draw(t, "snapshots")
		for range rapid.IntRange(1, 8).Draw(t, "reads") {
			wire := endpoint.Append(nil, rapid.SampledFrom(known).Draw(t, "next"))
			want, err := endpoint.Decode(wire)
			require.NoError(t, err)
			if rapid.Bool().Draw(t, "a bad one before") {
				_, err := s.Read(wire[:len(wire)-1])
				require.Error(t, err)
			}
			got, err := s.Read(wire)
			require.NoError(t, err)
			clear(wire)
			require.Equal(t, want, got)
			require.Equal(t, wanted, last, "the one before")
			last, wanted = got, want
		}
	})
}

// Whatever facts change from one snapshot to the next, alone or with others, what is read is what was sent.
func TestSeriesOfChangingFacts(t *testing.T) {
	models := []*endpoint.Models{nil, {}, {Names: []string{"a"}}, {Names: []string{"b"}}, {Names: []string{"a"}, Adapters: []endpoint.Adapter{{Name: "x", Parent: "a"}}}}
	loras := []*endpoint.LoRA{nil, {Max: 1}, {Max: 2}, {Max: 1, Running: []string{"a"}}, {Max: 1, Waiting: []string{"a"}}}
	rapid.Check(t, func(t *rapid.T) {
		var series endpoint.Series
		n := 3
		s := replicas(n)
		for range rapid.IntRange(2, 6).Draw(t, "reads") {
			i := rapid.IntRange(0, n-1).Draw(t, "replica")
			e := &s.Pools[0].Endpoints[i]
			switch rapid.IntRange(0, 4).Draw(t, "what changes") {
			case 0:
				e.Models = rapid.SampledFrom(models).Draw(t, "models")
			case 1:
				e.LoRA = rapid.SampledFrom(loras).Draw(t, "lora")
			case 2:
				e.Models, e.LoRA = rapid.SampledFrom(models).Draw(t, "models"), rapid.SampledFrom(loras).Draw(t, "lora")
			case 3:
				e.Gauges.Waiting++
			case 4:
				n = rapid.IntRange(1, 3).Draw(t, "replicas")
				facts := s.Pools[0].Endpoints
				s = replicas(n)
				copy(s.Pools[0].Endpoints, facts)
			}
			wire := endpoint.Append(nil, s)
			want, err := endpoint.Decode(wire)
			require.NoError(t, err)
			got, err := series.Read(wire)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	})
}

// A series is of whole snapshots.
func TestSeriesRefusesDeltas(t *testing.T) {
	s := replicas(3)
	var series endpoint.Series
	_, err := series.Read(endpoint.Append(nil, s))
	require.NoError(t, err)
	_, err = series.Read(endpoint.AppendDelta(nil, s, s.Version, nil))
	require.ErrorIs(t, err, endpoint.ErrBase)
}

// While only gauges change, there is the snapshot and its list of pools to allocate, however many replicas it has.
func TestSeriesAllocations(t *testing.T) {
	wire := endpoint.Append(nil, adapted(replicas(1000)))
	var series endpoint.Series
	read := func() {
		_, err := series.Read(wire)
		require.NoError(t, err)
	}
	read()
	read()
	require.LessOrEqual(t, testing.AllocsPerRun(100, read), 2.0)
}

func BenchmarkSeries1000(b *testing.B) {
	for name, s := range map[string]*endpoint.Snapshot{"gauges": replicas(1000), "everything": adapted(replicas(1000))} {
		b.Run(name, func(b *testing.B) {
			wire := endpoint.Append(nil, s)
			var series endpoint.Series
			b.ReportAllocs()
			for b.Loop() {
				if _, err := series.Read(wire); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
