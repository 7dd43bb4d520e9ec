package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// leave ends a request whose client waited so long: for headers, or for what follows them.
func (r *rig) leave(x *filter.Exchange, waited time.Duration, status int, end filter.End) {
	s := stateOf(x)
	x.Response.Served, x.Response.Status = x.Target.Address, status
	if status > 0 {
		r.f.OnResponseHeaders(x)
	}
	r.now = s.sentAt.Add(waited)
	r.snapshot.Received = r.now
	end.Status, end.At = status, r.now
	r.f.OnDone(x, end)
}

// begin has a replica begin its answer after a time, and end it.
func (r *rig) begin(x *filter.Exchange, took time.Duration) {
	x.Response.Served, x.Response.Status = x.Target.Address, 200
	r.f.OnResponseHeaders(x)
	r.now = r.now.Add(took)
	r.snapshot.Received = r.now
	r.f.OnFirstByte(x)
	r.f.OnDone(x, filter.End{Complete: true, Status: 200, At: r.now})
}

// A replica that never answers while its metrics are well is ejected, and holds no prompt
// of which nothing was ever answered.
func TestSilence(t *testing.T) {
	for name, c := range map[string]struct {
		status int // of the headers, before which or after which nothing comes
		end    filter.End
	}{
		"without headers":    {0, filter.End{}},
		"after the headers":  {200, filter.End{}},
		"headers and broken": {200, filter.End{Broken: true}},
	} {
		r := newRig(t, "{slowStart: 0s}")
		r.serve(ready(3)...)
		sick := "10.0.0.001:80"
		sent := 0
		for i := 0; r.ejections() == 0; i++ {
			require.Less(t, i, 100, name)
			x := request(uint64(i), 10)
			if at := r.send(t, x); at != sick {
				r.begin(x, 50*time.Millisecond)
				continue
			}
			sent++
			require.Zero(t, stateOf(x).hitBlocks)
			r.leave(x, 4*time.Second, c.status, c.end)
			again := request(uint64(i), 10)
			at := r.send(t, again)
			require.Zero(t, stateOf(again).hitBlocks, name)
			if !c.end.Broken {
				require.NotEqual(t, sick, at, "%s: the next attempt goes elsewhere", name)
			}
			r.f.OnDone(again, filter.End{Refused: true})
			if r.ejections() == 0 {
				r.now = r.now.Add(5 * time.Second)
				r.snapshot.Received = r.now
			}
		}
		require.Equal(t, 3, sent, name)
		require.EqualValues(t, 1, r.samples["inlet_ejection_total/p,silent"], name)
		for i := range 30 {
			require.NotEqual(t, sick, r.serveOne(t, request(uint64(1000+i), 10), 200), name)
		}
	}
}

// What looks like silence and is none.
func TestNoSilence(t *testing.T) {
	for name, once := range map[string]func(r *rig, x, other *filter.Exchange){
		"the client is quick": func(r *rig, x, other *filter.Exchange) {
			r.begin(other, 50*time.Millisecond)
			r.leave(x, time.Second, 0, filter.End{})
		},
		"all take long": func(r *rig, x, other *filter.Exchange) {
			r.begin(other, 10*time.Second)
			r.leave(x, 30*time.Second, 200, filter.End{})
		},
		"nobody answers": func(r *rig, x, other *filter.Exchange) {
			r.leave(x, 10*time.Second, 0, filter.End{})
		},
		"the replica answers somebody else": func(r *rig, x, other *filter.Exchange) {
			r.begin(other, 50*time.Millisecond)
			y := request(0, 0)
			r.send(nil2{}, y)
			y.Target.Address = x.Target.Address
			r.begin(y, time.Second)
			r.leave(x, 10*time.Second, 0, filter.End{})
		},
		"the client never sent all": func(r *rig, x, other *filter.Exchange) {
			r.begin(other, 50*time.Millisecond)
			r.leave(x, 10*time.Second, 0, filter.End{Partial: true})
		},
		"Inlet refused it late": func(r *rig, x, other *filter.Exchange) {
			r.begin(other, 50*time.Millisecond)
			r.leave(x, 10*time.Second, 0, filter.End{Refused: true})
		},
		"it never left Envoy": func(r *rig, x, other *filter.Exchange) {
			r.begin(other, 50*time.Millisecond)
			x.Target.Address = ""
			r.leave(x, 10*time.Second, 0, filter.End{})
		},
		"it answered": func(r *rig, x, other *filter.Exchange) {
			r.begin(other, 50*time.Millisecond)
			x.Response.Served, x.Response.Status = x.Target.Address, 200
			r.f.OnResponseHeaders(x)
			r.f.OnFirstByte(x)
			r.leave(x, 10*time.Second, 200, filter.End{})
		},
	} {
		r := newRig(t, "{health: {failures: 1}, slowStart: 0s}")
		r.serve(ready(2)...)
		for range 10 {
			x, other := request(1, 10), request(0, 0)
			r.send(t, x)
			r.send(t, other)
			once(r, x, other)
			r.f.OnDone(other, filter.End{Refused: true})
		}
		require.Zero(t, r.ejections(), name)
	}
}

type nil2 struct{}

func (nil2) Errorf(string, ...any) {}
func (nil2) FailNow()              {}

// What ended before its first byte was not computed, as far as is known; others are told.
func TestWhatWasNotAnsweredIsTakenBack(t *testing.T) {
	for _, status := range []int{0, 200, 404} {
		w := newWorkers(t, 2, "{}")
		p := &relayed{}
		w.rigs[0].deps.Peers = p
		w.rigs[0].f = w.rigs[0].filter(t, "{}")
		w.serve(ready(1))
		w.tick(t)
		first := request(1, 10)
		at := w.rigs[0].send(t, first)
		w.rigs[0].f.OnFirstByte(first)
		x := request(1, 15)
		w.rigs[0].send(t, x)
		w.tick(t)
		require.Equal(t, 15, w.rigs[1].known(at, request(1, 15)), "others know at once")
		w.rigs[0].leave(x, 0, status, filter.End{})
		w.tick(t)
		w.tick(t)
		require.Equal(t, 10, w.rigs[1].known(at, request(1, 15)), status)

		peer := newRig(t, "{}")
		peer.serve(ready(1)...)
		peer.deps.Peers = &relayed{}
		peer.f = peer.filter(t, "{}")
		peer.f.receive(p.told)
		require.Equal(t, 10, peer.known(at, request(1, 15)), status)
	}
}

// The one that is tried stays out if it is silent again.
func TestATryThatIsSilent(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 5s}, slowStart: 0s}")
	r.serve(ready(2)...)
	x := request(0, 0)
	sick := r.send(t, x)
	r.answer(x, 500)
	r.now = r.now.Add(5 * time.Second)
	r.serve(ready(2)...)
	x = request(0, 0)
	require.Equal(t, sick, r.send(t, x))
	r.leave(x, 4*time.Second, 200, filter.End{})
	r.now = r.now.Add(9 * time.Second)
	require.NotEqual(t, sick, r.serveOne(t, request(0, 0), 200))
	r.now = r.now.Add(time.Second)
	require.Equal(t, sick, r.send(t, request(0, 0)))
}

// Silence counts against a replica only if another one answered since the first of the silent requests in a row was sent: o is an answer
// of another, s a silence.
func TestSilenceIsComparedWithOthers(t *testing.T) {
	for course, ejected := range map[string]bool{
		"oss": false, "osss": false, "ossss": false, "osoos": false,
		"ososs": true, "oossos": true, "ossos": true, "osssos": true,
	} {
		r := newRig(t, "{slowStart: 0s, health: {failures: 3}}")
		r.serve(ready(2)...)
		const sick = "10.0.0.001:80"
		send := func(toSick bool) *filter.Exchange {
			for range 100 {
				r.now = r.now.Add(time.Second)
				r.snapshot.Received = r.now
				x := request(0, 0)
				if at := r.send(t, x); (at == sick) == toSick {
					return x
				}
				r.f.OnDone(x, filter.End{Refused: true})
			}
			t.Fatal("never chosen")
			return nil
		}
		for i, what := range course {
			require.Zero(t, r.ejections(), "%s at %d", course, i)
			if what == 'o' {
				r.begin(send(false), 50*time.Millisecond)
			} else {
				r.leave(send(true), 4*time.Second, 0, filter.End{})
			}
		}
		require.Equal(t, ejected, r.ejections() == 1, course)
	}
}

// A client that waited for health.firstByte has waited long, and one that left a moment before has not.
func TestHowLongIsSilence(t *testing.T) {
	for waited, long := range map[time.Duration]bool{3*time.Second - 1: false, 3 * time.Second: true} {
		r := newRig(t, "{slowStart: 0s, health: {failures: 1}}")
		r.serve(ready(2)...)
		x, other := request(1, 10), request(0, 0)
		x.Subset, other.Subset = within("10.0.0.000:80"), within("10.0.0.001:80")
		r.send(t, x)
		r.send(t, other)
		r.begin(other, 50*time.Millisecond)
		r.leave(x, waited, 0, filter.End{})
		require.Equal(t, long, r.ejections() == 1, waited)
	}
}
