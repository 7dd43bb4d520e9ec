package feed

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// A response without news has waited if it took half of the wait, or as long as the first pause: then the next poll
// follows at the next tick, otherwise after a pause.
func TestWhenAPollHasWaited(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		wait, took time.Duration
		pause      bool
	}{
		{20 * time.Second, 80 * ms, true},
		{20 * time.Second, 100 * ms, false},
		{100 * ms, 40 * ms, true},
		{100 * ms, 60 * ms, false},
		{200 * ms, 80 * ms, true},
		{200 * ms, 100 * ms, false},
		{10 * time.Second, 5 * time.Second, false},
	} {
		w := follow(t)
		w.Wait = c.wait
		w.answer(&filter.Reply{Status: 304}) // of the poll with the earlier wait
		for len(w.polls) == 0 {
			w.pass(Period)
		}
		w.now = w.now.Add(c.took)
		w.answer(&filter.Reply{Status: 304})
		w.pass(Period)
		if c.pause {
			require.Empty(t, w.polls, "%v", c)
			w.pass(firstPause)
		}
		require.Len(t, w.polls, 1, "%v", c)
	}
}
