package feed

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// world is a proxy with one feed, and the companion as the feed sees it.
type world struct {
	*Feed
	now     time.Time
	idle    bool // it is not this feed's turn
	current *endpoint.Snapshot
	refuse  error // error that a call returns at once
	polls   []call
	reports []call
	heard   []byte
	logs    []string
}

// call is a call without a response so far.
type call struct {
	*Request
	done func(*filter.Reply)
}

func newWorld() *world {
	w := &world{now: time.Unix(1000, 0)}
	deps := &filter.Deps{
		Now:      func() time.Time { return w.now },
		Rand:     func() uint64 { return 0 },
		Counters: mem.NewCounters(),
		Log:      func(_ filter.Level, message string) { w.logs = append(w.logs, message) },
	}
	notes := NewNotes(new(sync.Mutex))
	notes.Hear(func(b []byte) { w.heard = append(w.heard, b...) })
	w.Feed = New(Options{Companion: "companion", Wait: 20 * time.Second, Worker: "w", Proxy: "p", Deps: deps, Notes: notes}, w)
	return w
}

func (w *world) Turn() bool                       { return !w.idle }
func (w *world) Current() *endpoint.Snapshot      { return w.current }
func (w *world) Adopt(s *endpoint.Snapshot) error { w.current = s; return nil }
func (w *world) Call(r *Request, done func(*filter.Reply)) error {
	switch {
	case w.refuse != nil:
		return w.refuse
	case r.Method == "POST":
		w.reports = append(w.reports, call{r, done})
	default:
		w.polls = append(w.polls, call{r, done})
	}
	return nil
}

// pass advances the time with a tick every 20 ms.
func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(Period)
		w.Tick()
	}
}

// answer responds to the oldest open poll, taken to the oldest report.
func (w *world) answer(r *filter.Reply) { end(&w.polls, r) }
func (w *world) taken(r *filter.Reply)  { end(&w.reports, r) }

func end(calls *[]call, r *filter.Reply) {
	c := (*calls)[0]
	*calls = (*calls)[1:]
	c.done(r)
}

var ok = &filter.Reply{Status: 204}

func wire(source, version uint64) []byte {
	return endpoint.Append(nil, &endpoint.Snapshot{
		Source: source, Version: version, Taken: time.Unix(5, 0),
		Pools: []endpoint.Pool{{Name: "llama", Endpoints: []endpoint.Endpoint{{Address: "10.0.0.1:80", Ready: true}, {Address: "10.0.0.2:80"}}}},
	})
}

func snapshot(version uint64) *filter.Reply {
	return &filter.Reply{Status: 200, Body: wire(1, version)}
}

// follow returns a world that has a snapshot.
func follow(t require.TestingT) *world {
	w := newWorld()
	w.pass(Period)
	w.answer(snapshot(1))
	require.Len(t, w.polls, 1, "after news the next poll follows at once")
	require.Equal(t, "1-1", w.current.ID())
	require.Equal(t, w.now, w.current.Received)
	return w
}

func TestSilenceKeepsTheSnapshot(t *testing.T) {
	w := follow(t)
	w.pass(20 * time.Second)
	w.answer(&filter.Reply{Status: 304})
	require.Empty(t, w.polls)
	w.pass(Period)
	require.Len(t, w.polls, 1)
	w.answer(&filter.Reply{Status: 304}) // the companion does not wait
	w.pass(firstPause - Period)
	require.Empty(t, w.polls, "no tight loop")
	w.pass(Period)
	require.Len(t, w.polls, 1)
	require.Equal(t, "1-1", w.current.ID())
	require.Empty(t, w.logs)
	require.Empty(t, w.reports, "without news, no report is sent")
}

func TestFailuresAreLoggedOnceAndPausesGrow(t *testing.T) {
	for name, fail := range map[string]func(w *world){
		"reset":     func(w *world) { w.answer(&filter.Reply{Err: errors.New("reset")}) },
		"503":       func(w *world) { w.answer(&filter.Reply{Status: 503}) },
		"nonsense":  func(w *world) { w.answer(&filter.Reply{Status: 200, Body: []byte("<html>")}) },
		"empty":     func(w *world) { w.answer(&filter.Reply{Status: 200}) },
		"truncated": func(w *world) { w.answer(&filter.Reply{Status: 200, Body: wire(1, 2)[:20]}) },
	} {
		t.Run(name, func(t *testing.T) {
			w := follow(t)
			var pauses []time.Duration
			for range 9 {
				require.Len(t, w.polls, 1)
				fail(w)
				require.Empty(t, w.polls)
				failed := w.now
				for len(w.polls) == 0 {
					w.pass(Period)
				}
				pauses = append(pauses, w.now.Sub(failed))
			}
			ms := time.Millisecond
			// Half of 100 ms, doubling, since the random part is 0 here; in whole ticks.
			require.Equal(t, []time.Duration{60 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 2500 * ms, 2500 * ms, 2500 * ms}, pauses)
			require.Len(t, w.logs, 1)
			require.Contains(t, w.logs[0], `"companion"`)
			require.Equal(t, "1-1", w.current.ID(), "the last snapshot stays")

			w.answer(&filter.Reply{Status: 304})
			require.Len(t, w.logs, 2)
			require.True(t, strings.HasSuffix(w.logs[1], "succeed again"))
			w.pass(firstPause)
			fail(w)
			require.Len(t, w.logs, 3, "a new failure is logged again")
		})
	}
}

func TestTheSameSnapshotAgainIsAFailure(t *testing.T) {
	w := follow(t)
	w.answer(snapshot(1))
	require.Len(t, w.logs, 1)
	require.Empty(t, w.polls)
	w.pass(firstPause)
	w.answer(&filter.Reply{Status: 200, Body: endpoint.AppendRelayed(wire(1, 1), nil, 5, nil)})
	require.Len(t, w.polls, 1, "the same replicas with news of the others are news")
	require.Contains(t, w.polls[0].Path, "since=1-1&worker=w&wait=20000&proxy=p&heard=5")
}

func TestACallThatCannotBeSentIsRetried(t *testing.T) {
	w := newWorld()
	w.refuse = errors.New("no such cluster")
	w.pass(10 * time.Second)
	require.Len(t, w.logs, 1)
	require.Contains(t, w.logs[0], "no such cluster")
	w.refuse = nil
	w.pass(lastPause)
	w.answer(snapshot(1))
	require.Equal(t, "1-1", w.current.ID())
}

func TestAPollWithoutAResponseIsRepeated(t *testing.T) {
	w := newWorld()
	w.pass(Period)
	w.pass(w.Wait + 2*slack)
	require.Len(t, w.polls, 1, "it may still come")
	w.pass(Period)
	require.Len(t, w.polls, 2)
	w.answer(snapshot(1))
	require.Nil(t, w.current, "it was given up")
	require.Len(t, w.polls, 1)
	w.answer(snapshot(2))
	require.Equal(t, "1-2", w.current.ID())
	require.Len(t, w.polls, 1)
}

func TestAfterAnInvalidDeltaAWholeSnapshotIsRequested(t *testing.T) {
	w := follow(t)
	s, err := endpoint.Decode(wire(1, 5))
	require.NoError(t, err)
	w.answer(&filter.Reply{Status: 200, Body: endpoint.AppendDelta(nil, s, 4, nil)})
	require.Len(t, w.logs, 1)
	w.pass(time.Second)
	require.NotContains(t, w.polls[0].Path, "since")
	w.answer(snapshot(5))
	require.Contains(t, w.polls[0].Path, "since=1-5")
}

// Which snapshot supersedes which.
func TestSupersedes(t *testing.T) {
	at := func(source, version, heard uint64) *endpoint.Snapshot {
		return &endpoint.Snapshot{Source: source, Version: version, Heard: heard}
	}
	require.True(t, Supersedes(at(1, 1, 0), nil))
	for _, newer := range []*endpoint.Snapshot{at(2, 1, 0), at(1, 6, 0), at(1, 5, 8)} {
		require.True(t, Supersedes(newer, at(1, 5, 7)))
	}
	for _, older := range []*endpoint.Snapshot{at(1, 5, 7), at(1, 4, 9), at(1, 5, 6)} {
		require.False(t, Supersedes(older, at(1, 5, 7)))
	}
}

// flight changes what is in flight on the first replica.
func (w *world) flight(requests, tokens int64) {
	e := w.current.Pools[0].Endpoints[0]
	e.Load.Requests.Add(requests)
	e.Load.Tokens.Add(tokens)
}

// reported decodes the oldest open report.
func (w *world) reported(t require.TestingT) *endpoint.Report {
	require.NotEmpty(t, w.reports)
	require.Equal(t, "/v1/relay?proxy=p", w.reports[0].Path)
	tell, err := endpoint.DecodeReport(w.reports[0].Body)
	require.NoError(t, err)
	return tell
}

func flight(requests, tokens int64) []endpoint.Reported {
	return []endpoint.Reported{{Replica: endpoint.ReplicaID("10.0.0.1:80"), InFlight: endpoint.InFlight{Requests: requests, Tokens: tokens}}}
}

func TestRequestsInFlightAreReported(t *testing.T) {
	w := follow(t)
	w.pass(time.Second)
	w.flight(1, 500)
	w.pass(Period)
	require.Equal(t, flight(1, 500), w.reported(t).InFlight, "after a quiet time, at the next tick")
	w.taken(ok)
	w.flight(1, 0)
	w.pass(Round - Period)
	require.Empty(t, w.reports, "at most once per round")
	w.pass(Period)
	require.Equal(t, flight(2, 500), w.reported(t).InFlight)
	w.taken(ok)

	w.pass(Renewal - Period)
	require.Empty(t, w.reports)
	w.pass(Period)
	require.Equal(t, flight(2, 500), w.reported(t).InFlight, "it has a lease")
	w.taken(ok)

	w.flight(-2, -500)
	w.pass(Round)
	require.Empty(t, w.reported(t).InFlight)
	w.taken(ok)
	w.pass(10 * time.Second)
	require.Empty(t, w.reports, "an empty report is sent once")
}

func TestNotesAreReported(t *testing.T) {
	w := follow(t)
	note := endpoint.AppendNote(nil, 7, []uint64{1, 2})
	w.Notes.Tell(note)
	w.Notes.Tell(note)
	w.pass(Period)
	require.Equal(t, append(note, note...), w.reported(t).Notes)
	w.taken(ok)
	w.pass(time.Second)
	require.Empty(t, w.reports)

	for range maxNotes / len(note) {
		w.Notes.Tell(note)
	}
	w.Notes.Tell(note)
	w.Notes.Tell(note)
	require.Positive(t, w.Notes.lost)
	w.pass(Period)
	require.LessOrEqual(t, len(w.reports[0].Body), maxNotes+100)
	require.Contains(t, strings.Join(w.logs, "\n"), "are not reported to the other proxies")
	require.Zero(t, w.Notes.lost, "it is logged once")
}

// A feed with a defect pauses all its calls, and late responses to earlier calls are ignored.
func TestPause(t *testing.T) {
	w := follow(t)
	w.flight(1, 0)
	w.pass(Round)
	require.Len(t, w.reports, 1)
	w.Rest()
	w.flight(1, 0)
	w.pass(lastPause - Period)
	require.Len(t, w.reports, 1)
	require.Len(t, w.polls, 1)
	w.taken(&filter.Reply{Err: errSameSnapshot})
	require.Empty(t, w.logs)
	w.pass(2 * Period)
	require.Len(t, w.reports, 1)
	require.Len(t, w.polls, 2)
}

// A companion that has just started does not know what is in flight, and neither does one that did not accept the report.
func TestAnUnacceptedReportIsRepeated(t *testing.T) {
	w := follow(t)
	w.flight(1, 0)
	w.pass(Round)
	w.taken(ok)
	w.answer(&filter.Reply{Status: 200, Body: wire(2, 1)})
	w.pass(Round)
	require.Equal(t, flight(1, 0), w.reported(t).InFlight)
	for name, reply := range map[string]*filter.Reply{"405": {Status: 405}, "reset": {Err: errors.New("reset")}} {
		w.taken(reply)
		require.Len(t, w.logs, 1, name)
		w.pass(firstPause)
		require.Equal(t, flight(1, 0), w.reported(t).InFlight)
		w.logs = nil
		w.taken(ok)
		w.pass(Renewal)
	}
	w.pass(reportTimeout)
	require.Len(t, w.reports, 1, "a second one waits for the first")
}

func TestNothingIsReportedWhileThePollFails(t *testing.T) {
	w := follow(t)
	w.answer(&filter.Reply{Status: 503})
	w.flight(1, 0)
	w.refuse = errors.New("refused")
	w.pass(20 * time.Second)
	require.Len(t, w.logs, 1)
	w.refuse = nil
	w.pass(lastPause)
	require.Empty(t, w.reports)
	w.answer(snapshot(2))
	w.pass(Round)
	require.Equal(t, flight(1, 0), w.reported(t).InFlight)
}

func TestOnlyOneFeedCalls(t *testing.T) {
	w := follow(t)
	w.idle = true
	w.flight(1, 0)
	w.answer(snapshot(2))
	w.pass(time.Minute)
	require.Equal(t, "1-2", w.current.ID())
	require.Empty(t, w.polls)
	require.Empty(t, w.reports)
}

func TestManyNotesAreReceivedInTurns(t *testing.T) {
	w := follow(t)
	var notes []byte
	for len(notes) < many {
		notes = endpoint.AppendNote(notes, 7, []uint64{1, 2, 3})
	}
	w.answer(&filter.Reply{Status: 200, Body: endpoint.AppendRelayed(wire(1, 2), nil, 5, notes)})
	require.Equal(t, notes, w.heard)
	require.Empty(t, w.polls)
	w.pass(Period)
	require.Contains(t, w.polls[0].Path, "heard=5")
}

// Another worker may take over while a poll is open, and then the memory of the feed may be reused.
func TestAResponseToAnOldSnapshotIsIgnored(t *testing.T) {
	w := follow(t)
	newer, err := endpoint.Decode(wire(1, 5))
	require.NoError(t, err)
	newer.Attach(w.Deps.Counters, nil)
	w.current = newer
	w.answer(&filter.Reply{Status: 200, Body: endpoint.AppendDelta(nil, newer, 1, nil)})
	require.Same(t, newer, w.current)
	require.Empty(t, w.polls)
	w.pass(Period)
	require.Contains(t, w.polls[0].Path, "1-5")
	require.Empty(t, w.logs)
}

// In every course of events: one poll and one report at a time, no more reports than rounds, and once the companion
// responds again it knows what is in flight.
func TestRandomCourses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := follow(t)
		version, requests := uint64(1), int64(0)
		var told []endpoint.Reported
		var last time.Time
		take := func(r *filter.Reply) {
			if r == ok {
				told = w.reported(t).InFlight
			}
			w.taken(r)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			before := len(w.reports)
			w.pass(Period)
			if len(w.reports) > before {
				require.GreaterOrEqual(t, w.now.Sub(last), Round)
				last = w.now
			}
			require.LessOrEqual(t, len(w.polls), 1)
			require.LessOrEqual(t, len(w.reports), 1)
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0:
				w.flight(1, 10)
				requests++
			case 1:
				if requests > 0 {
					w.flight(-1, -10)
					requests--
				}
			case 2:
				if len(w.reports) > 0 {
					take(rapid.SampledFrom([]*filter.Reply{ok, {Status: 500}, {Err: errors.New("reset")}}).Draw(t, "taken"))
				}
			case 3:
				if len(w.polls) > 0 {
					version++
					w.answer(snapshot(version))
				}
			case 4:
				if len(w.polls) > 0 {
					w.answer(rapid.SampledFrom([]*filter.Reply{{Status: 304}, {Status: 500}}).Draw(t, "answer"))
				}
			}
		}
		w.pass(lastPause)
		version++
		w.answer(snapshot(version))
		for range 10 {
			w.pass(lastPause)
			if len(w.reports) > 0 {
				take(ok)
			}
		}
		if requests == 0 {
			require.Empty(t, told)
		} else {
			require.Equal(t, flight(requests, 10*requests), told)
		}
	})
}
