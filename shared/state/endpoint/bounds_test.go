package endpoint

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// A count that cannot be true takes no memory: it is held against what follows.
func TestCountsAreHeldAgainstWhatFollows(t *testing.T) {
	huge := binary.AppendUvarint(nil, math.MaxInt32)
	for name, c := range map[string]struct {
		bytes []byte
		read  func(r *reader)
	}{
		"models of a set":   {huge, func(r *reader) { r.set(new(Models), nil) }},
		"adapters of a set": {append([]byte{0}, huge...), func(r *reader) { r.set(new(Models), nil) }},
		"names":             {huge, func(r *reader) { r.names() }},
		"a name":            {huge, func(r *reader) { r.string("") }},
		"sets":              {append([]byte{0}, huge...), func(r *reader) { r.models(nil) }},
	} {
		r := textReader(append(c.bytes, 1, 1, 1, 1))
		c.read(&r)
		require.Equal(t, "a count is larger than what follows", r.bad, name)
	}
	r := textReader([]byte{3, 'a', 'b', 'c'})
	require.Equal(t, "abc", r.string(""), "all that follows may be it")
	require.Empty(t, r.bad)
}

// An answer without notes has no section for them.
func TestNoNotesTakeNoBytes(t *testing.T) {
	none, some := AppendRelayed(nil, nil, 5, nil), AppendRelayed(nil, nil, 5, AppendNote(nil, 7, []uint64{1}))
	require.Len(t, some, len(none)+sectionHeader+noteHeader+8)
}

func TestTheLongestTell(t *testing.T) {
	full := &Report{InFlight: make([]Reported, MaxReported)}
	for i := range full.InFlight {
		full.InFlight[i] = Reported{Replica: uint64(i), InFlight: InFlight{Requests: 1}}
	}
	got, err := DecodeReport(AppendReport(nil, full))
	require.NoError(t, err)
	require.Equal(t, full.InFlight, got.InFlight)
	full.InFlight = append(full.InFlight, Reported{Replica: 1 << 40, InFlight: InFlight{Requests: 1}})
	_, err = DecodeReport(AppendReport(nil, full))
	require.ErrorContains(t, err, "too many replicas")
}

// The smallest pools and endpoints are as small as the bounds of counts say.
func TestTheSmallestSnapshot(t *testing.T) {
	s := &Snapshot{Source: 1, Version: 1}
	for name := 'a'; name <= 'z'; name++ {
		s.Pools = append(s.Pools, Pool{Name: string(name), Endpoints: []Endpoint{}})
	}
	for address := '0'; address <= 'z'; address++ {
		s.Pools[25].Endpoints = append(s.Pools[25].Endpoints, Endpoint{Address: string(address)})
	}
	for _, pools := range [][]Pool{s.Pools[:25], s.Pools[25:], s.Pools} {
		got, err := Decode(Append(nil, &Snapshot{Source: 1, Version: 1, Pools: pools}))
		require.NoError(t, err)
		require.Len(t, got.Pools, len(pools))
		for i := range pools {
			require.Equal(t, pools[i].Name, got.Pools[i].Name)
			require.Len(t, got.Pools[i].Endpoints, len(pools[i].Endpoints))
		}
	}
}
