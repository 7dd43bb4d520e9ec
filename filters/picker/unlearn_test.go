package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Two requests with one prompt: the result of the first takes nothing back that the
// second was answered with.
func TestWhatAnotherWasAnsweredStays(t *testing.T) {
	for name, end := range map[string]func(r *rig, x *filter.Exchange){
		"the client leaves soon": func(r *rig, x *filter.Exchange) { r.leave(x, time.Second, 0, filter.End{}) },
		"the client leaves late": func(r *rig, x *filter.Exchange) { r.leave(x, time.Minute, 200, filter.End{}) },
		"it is broken off":       func(r *rig, x *filter.Exchange) { r.leave(x, time.Second, 200, filter.End{Broken: true}) },
		"400":                    func(r *rig, x *filter.Exchange) { r.answer(x, 400) },
		"503":                    func(r *rig, x *filter.Exchange) { r.answer(x, 503) },
		"it never left Envoy": func(r *rig, x *filter.Exchange) {
			r.reply(x, filter.Response{Status: 503, Origin: filter.OfProxy})
		},
	} {
		r := newRig(t, "{slowStart: 0s}")
		r.serve(ready(1)...)
		x, y := request(1, 30), request(1, 20)
		r.send(t, x)
		at := r.send(t, y)
		r.begin(y, 50*time.Millisecond)
		end(r, x)
		require.Equal(t, 20, r.known(at, request(1, 30)), name)
	}
}

// One impatient client of a prompt that shares its beginning with a conversation takes back
// what its own request would have added.
func TestAnImpatientClientLosesOthersNothing(t *testing.T) {
	for _, waited := range []time.Duration{3100 * time.Millisecond, 2 * time.Minute} {
		r := newRig(t, "{slowStart: 0s}")
		r.serve(ready(1)...)
		a := request(1, 20)
		at := r.send(t, a)
		r.begin(a, 50*time.Millisecond)
		fork := func() *filter.Exchange {
			x := request(1, 10)
			x.Request.Prefix = append(x.Request.Prefix, request(7, 10).Request.Prefix...)
			return x
		}
		b := fork()
		r.send(t, b)
		r.leave(b, waited, 0, filter.End{})
		require.Equal(t, 20, r.known(at, request(1, 20)), waited)
		require.Equal(t, 10, r.known(at, fork()), waited)
	}
}

// An ejection empties the index, whatever was answered before: what comes next has to be answered again.
func TestAnEjectionEndsWhatWasAnswered(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 1s}, slowStart: 0s}")
	r.serve(ready(1)...)
	a := request(1, 20)
	at := r.send(t, a)
	r.begin(a, 50*time.Millisecond)
	m := r.f.fleet.find(at)
	r.f.failed(m, "p", reasonStatus)
	r.f.fleet.succeeded(m)
	b := request(1, 20)
	r.send(t, b)
	require.Zero(t, stateOf(b).hitBlocks)
	r.leave(b, time.Second, 0, filter.End{})
	require.Zero(t, r.known(at, request(1, 20)))
}

// ... nor in other workers, who do not know who was answered elsewhere.
func TestWhatAnotherWorkerWasAnsweredStays(t *testing.T) {
	w := newWorkers(t, 3, "{slowStart: 0s}")
	w.serve(ready(1))
	w.tick(t)
	x, y := request(1, 30), request(1, 20)
	w.rigs[0].send(t, x)
	at := w.rigs[1].send(t, y)
	w.rigs[1].begin(y, 50*time.Millisecond)
	w.tick(t)
	w.rigs[0].leave(x, time.Second, 0, filter.End{})
	for range 4 {
		w.tick(t)
	}
	for i, r := range w.rigs {
		require.Equal(t, 20, r.known(at, request(1, 30)), "worker %d", i)
	}
}
