package feed

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tell that cannot even be sent is one that was not taken: it is said once, and made again.
func TestATellThatCannotBeMadeIsMadeAgain(t *testing.T) {
	w := follow(t)
	w.flight(1, 0)
	w.refuse = errors.New("no such cluster")
	w.pass(Round)
	require.Empty(t, w.tells)
	require.Len(t, w.logs, 1)
	require.Contains(t, w.logs[0], "no such cluster")
	w.refuse = nil
	w.pass(2 * firstPause)
	require.Equal(t, flying(1, 0), w.told(t).InFlight)
}

// A tell whose answer never comes holds up the next one for twice the time that it may take.
func TestATellWhoseAnswerNeverComes(t *testing.T) {
	w := follow(t)
	w.flight(1, 0)
	w.pass(Round)
	require.Len(t, w.tells, 1)
	began := w.lastTell
	for len(w.tells) == 1 {
		w.pass(Period)
	}
	require.Equal(t, 2*tellTimeout+Period, w.lastTell.Sub(began))
}
