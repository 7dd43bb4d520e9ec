package endpoint_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/endpoint"
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
