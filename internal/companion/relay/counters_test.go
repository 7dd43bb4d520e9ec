package relay_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// What of other proxies is news, while the snapshot is the same, goes as a delta that is small however many replicas there are.
func TestNewsWithoutANewSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a snapshot's size changes with the ages in it
		r := relay.New(relay.Options{})
		r.Publish(newFleet(1000).now())
		a := listener{id: "a"}
		a.poll(t, r)
		whole := size(r, nil)
		version := a.have.Version
		before := r.Stats()
		tell(t, r, "b", []int64{3}, note(7, 1, 2))
		w := get(r, a.path(0))
		require.Less(t, w.Body.Len(), 200)
		require.Greater(t, whole, 10*w.Body.Len())
		require.Equal(t, note(7, 1, 2), a.take(t, w))
		require.Equal(t, version, a.have.Version)
		require.EqualValues(t, 3, a.have.Pools[0].Endpoints[0].Peers.Requests)
		require.Len(t, a.have.Pools[0].Endpoints, 1000)
		after := r.Stats()
		require.Equal(t, before.Deltas+1, after.Deltas)
		require.Equal(t, before.Sent, after.Sent)

		// One that is ahead of the companion, as of one before that died, gets the whole.
		ahead := *a.have
		ahead.Version++
		require.Equal(t, whole, size(r, &ahead))
	})
}

// Every counter, after a course in which each moves.
func TestCounters(t *testing.T) {
	r := relay.New(relay.Options{})
	get(r, "/v1/snapshot")
	get(r, "/v1/snapshot")
	f := newFleet(2)
	r.Publish(f.now())
	a := listener{id: "a"}
	first := get(r, a.path(0))
	a.take(t, first)
	f.scrape(0, 1).Gauges.Waiting = 9
	r.Publish(f.now())
	second := get(r, a.path(0))
	a.take(t, second)
	require.Equal(t, http.StatusNotModified, get(r, a.path(0)).Code)

	bodies := [][]byte{
		endpoint.AppendReport(nil, &endpoint.Report{Notes: note(7, 1, 2)}),
		endpoint.AppendReport(nil, &endpoint.Report{Notes: append(note(8, 1), note(9, 2)...)}),
	}
	told := 0
	for _, b := range bodies {
		require.Equal(t, http.StatusNoContent, post(r, endpoint.ReportPath("b"), b).Code)
		told += len(b)
	}
	post(r, endpoint.ReportPath("b"), []byte("garbage"))
	third := get(r, a.path(0))
	notes := a.take(t, third)
	require.Equal(t, append(append(note(7, 1, 2), note(8, 1)...), note(9, 2)...), notes)

	got := r.Stats()
	require.EqualValues(t, 2, got.Version)
	require.Equal(t, []uint64{1, 2, 1, 2}, []uint64{got.Sent, got.Deltas, got.Unchanged, got.Early})
	sent := got.SentBytes + got.Relay.SentBytes
	require.EqualValues(t, first.Body.Len()+second.Body.Len()+third.Body.Len(), sent)
	require.Greater(t, int(got.Relay.SentBytes), len(notes))
	require.Less(t, int(got.Relay.SentBytes), len(notes)+100)
	b := got.Relay
	require.Equal(t, []uint64{2, 1, uint64(told), 3, 0, 0, 3}, []uint64{b.Reports, b.Refused, b.ReportedBytes, b.Notes, b.Dropped, b.Forgotten, b.SentNotes})
	require.Equal(t, 3, b.Remembered)
	require.Equal(t, 2, b.Proxies)
	require.Positive(t, b.Bytes)
}

// An answer has 256 KiB of notes at most: the rest comes with the next ones.
func TestNotesOfAnAnswer(t *testing.T) {
	r := relay.New(relay.Options{})
	r.Publish(newFleet(1).now())
	var told []byte
	for i := range uint64(700) {
		n := note(i, make([]uint64, 100)...)
		n[len(n)-1] = 1
		told = append(told, n...)
	}
	tell(t, r, "b", nil, told)
	a := listener{id: "a"}
	one := len(note(1, make([]uint64, 100)...))
	var heard []byte
	for range 2 {
		notes := a.poll(t, r)
		require.LessOrEqual(t, len(notes), 256<<10)
		require.Greater(t, len(notes), 256<<10-one)
		heard = append(heard, notes...)
	}
	heard = append(heard, a.poll(t, r)...)
	require.Equal(t, told, heard)
	require.Equal(t, http.StatusNotModified, get(r, a.path(0)).Code)
}

// Gauges that will be overdue within half a heartbeat go along with those that are: else each replica would make versions of its own.
func TestWhatIsSoonOverdueGoesAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const beat = time.Second
		f := newFleet(3)
		r := relay.New(relay.Options{Heartbeat: beat})
		r.Publish(f.now())
		change := func(i int, after time.Duration) {
			time.Sleep(after)
			f.scrape(0, i).Gauges.Waiting++
			r.Publish(f.now())
		}
		change(1, 300*time.Millisecond)
		change(2, 500*time.Millisecond) // at 0.8
		renew := func(after time.Duration) uint64 {
			time.Sleep(after)
			for i := range 3 {
				f.scrape(0, i)
			}
			r.Publish(f.now())
			return r.Snapshot().Version
		}
		require.EqualValues(t, 3, r.Snapshot().Version)
		require.EqualValues(t, 4, renew(200*time.Millisecond), "the first one is overdue, and the second one goes along")
		require.EqualValues(t, 4, renew(500*time.Millisecond))
		require.EqualValues(t, 5, renew(300*time.Millisecond), "the third one did not, and is overdue")
	})
}

// Notes alone are news, too: a waiting proxy receives them at once.
func TestNotesWakeWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := relay.New(relay.Options{Heartbeat: time.Hour}), newFleet(1)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go r.Run(ctx, nil, func(time.Time) []endpoint.Pool { return f.pools })
		synctest.Wait()
		a := listener{id: "a"}
		a.poll(t, r)
		answer := waitFor(r, a.path(20*time.Second))
		time.Sleep(time.Second)
		began := time.Now()
		tell(t, r, "b", nil, note(7, 1, 2))
		require.Equal(t, note(7, 1, 2), a.take(t, <-answer))
		require.Less(t, time.Since(began), time.Second)
	})
}
