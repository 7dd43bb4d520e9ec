package feed

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// A report that cannot be sent counts as not accepted: it is logged once and sent again.
func TestAReportThatCannotBeSentIsSentAgain(t *testing.T) {
	w := follow(t)
	w.flight(1, 0)
	w.refuse = errors.New("no such cluster")
	w.pass(Round)
	require.Empty(t, w.reports)
	require.Len(t, w.logs, 1)
	require.Contains(t, w.logs[0], "no such cluster")
	w.refuse = nil
	w.pass(2 * firstPause)
	require.Equal(t, flight(1, 0), w.reported(t).InFlight)
}

// A report without a response delays the next one for twice its timeout.
func TestAReportWithoutAResponse(t *testing.T) {
	w := follow(t)
	w.flight(1, 0)
	w.pass(Round)
	require.Len(t, w.reports, 1)
	began := w.lastReport
	for len(w.reports) == 1 {
		w.pass(Period)
	}
	require.Equal(t, 2*reportTimeout+Period, w.lastReport.Sub(began))
}
