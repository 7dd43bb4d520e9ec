package feed

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Responses to calls from before a pause are ignored, both during the pause and when the next call is open.
func TestResponsesFromBeforeAPause(t *testing.T) {
	for name, late := range map[string]*filter.Reply{
		"news": snapshot(2), "nothing": {Status: 304}, "refusal": {Status: 503}, "the companion is gone": {Err: errSameSnapshot},
	} {
		t.Run(name, func(t *testing.T) {
			w := follow(t)
			w.flight(1, 0)
			w.pass(Round)
			require.Len(t, w.polls, 1)
			require.Len(t, w.reports, 1)
			w.Rest()
			w.answer(late)
			w.taken(late)
			require.Equal(t, "1-1", w.current.ID())
			w.pass(lastPause - Period)
			require.Empty(t, w.polls, "it rests")
			require.Empty(t, w.reports)
			require.Empty(t, w.logs)

			w = follow(t)
			w.flight(1, 0)
			w.pass(Round)
			w.Rest()
			w.pass(lastPause + Renewal)
			require.Len(t, w.polls, 2)
			require.Len(t, w.reports, 2)
			w.answer(late)
			w.taken(late)
			require.Equal(t, "1-1", w.current.ID())
			w.pass(Renewal)
			require.Len(t, w.polls, 1, "it waits for the open one")
			require.Len(t, w.reports, 1)
			require.Empty(t, w.logs)
			w.answer(snapshot(3))
			require.Equal(t, "1-3", w.current.ID())
		})
	}
}
