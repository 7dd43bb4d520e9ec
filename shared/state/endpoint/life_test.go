package endpoint

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnotherProcess(t *testing.T) {
	type step struct {
		after   time.Duration
		ready   bool
		started int64
		missing bool
	}
	s := time.Second
	up := func(started int64) step { return step{s, true, started, false} }
	down := func(started int64) step { return step{s, false, started, false} }
	for name, c := range map[string]struct {
		steps   []step
		another int // how often
	}{
		"anchored a second later":               {[]step{up(1000), up(1001)}, 0},
		"anchored a second earlier":             {[]step{up(1000), up(999)}, 0},
		"as far as clients vary":                {[]step{up(1000), up(1002), up(998), up(1002)}, 0},
		"later":                                 {[]step{up(1000), up(1003)}, 1},
		"earlier, and never away":               {[]step{up(1000), up(500)}, 0},
		"earlier, and was down":                 {[]step{up(1000), down(0), up(500)}, 1},
		"earlier, told while down":              {[]step{up(1000), down(1000), down(500), up(500)}, 1},
		"earlier, told first of all":            {[]step{up(1000), down(500), up(500)}, 1},
		"earlier, and was not listed":           {[]step{up(1000), {s, false, 0, true}, up(500)}, 1},
		"down, and the same":                    {[]step{up(1000), down(1000), down(1000), down(1000), up(1001)}, 0},
		"several processes at a port":           {[]step{up(1000), up(1500), up(1000), up(1500), up(1000)}, 1},
		"two companions, one knew":              {[]step{up(1000), up(5000), up(1000), up(5000), up(1000), up(9000)}, 2},
		"slept, reported again, then once more": {[]step{up(1000), down(5000), up(5000), up(1000), up(1000), down(9000), up(9000)}, 2},
		"not told, down for long":               {[]step{up(0), down(0), down(0), up(0)}, 1},
		"not told, down for a moment":           {[]step{up(0), down(0), up(0)}, 0},
		"told for the first time":               {[]step{up(0), up(1000), up(1000)}, 0},
		"told no more":                          {[]step{up(1000), up(0), up(1000)}, 0},
	} {
		var l Life
		now, another := time.Unix(1e6, 0), 0
		for _, x := range c.steps {
			now = now.Add(x.after)
			if x.missing {
				l.Miss(now)
				continue
			}
			if l.See(x.ready, x.started, now) {
				another++
			}
			require.Equal(t, x.ready, l.Ready(), name)
		}
		require.Equal(t, c.another, another, name)
	}
}

// A replica in several pools is one process: ready if it is in any, as young as any says.
func TestProcessOfSeveralPools(t *testing.T) {
	s := Snapshot{Pools: []Pool{
		{Name: "a", Endpoints: []Endpoint{{Address: "1:1", Ready: true, Started: 5}, {Address: "1:2", Started: 7}}},
		{Name: "b"},
		{Name: "c", Endpoints: []Endpoint{{Address: "1:1", Started: 6}, {Address: "1:2"}, {Address: "1:3", Ready: true}}},
	}}
	for address, want := range map[string]struct {
		ready   bool
		started int64
	}{"1:1": {true, 6}, "1:2": {false, 7}, "1:3": {true, 0}, "1:4": {}} {
		ready, started := s.Process(address)
		require.Equal(t, want.ready, ready, address)
		require.Equal(t, want.started, started, address)
	}
}
