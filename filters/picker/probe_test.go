package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// An ejected replica is tried by a request that it can serve: one for a model that it does not list, which others do, would only be
// answered with 404.
func TestATryNeedsTheModel(t *testing.T) {
	for _, p := range profiles {
		r := newRig(t, "{health: {failures: 1, eject: 5s}, slowStart: 0s, profile: "+p.name+"}")
		eps := ready(3)
		for i, model := range []string{"a", "b", "b"} {
			eps[i].Models = &endpoint.Models{Names: []string{model}}
		}
		asked := func(model string) *filter.Exchange {
			x := request(0, 0)
			x.Route.Target = model
			return x
		}
		r.serve(eps...)
		require.Equal(t, eps[0].Address, r.serveOne(t, asked("a"), 500), p.name)
		r.now = r.now.Add(5 * time.Second)
		r.serve(eps...)
		x := asked("b")
		require.NotEqual(t, eps[0].Address, r.send(t, x), p.name)
		require.NotContains(t, header(x, EndpointHeader), eps[0].Address, p.name)
		for _, model := range []string{"a", "c"} { // nobody else lists "c": then the lists are not believed
			x = asked(model)
			require.Equal(t, eps[0].Address, r.send(t, x), p.name)
			require.Contains(t, string(x.Why()), "by=probe", p.name)
			r.f.OnDone(x, filter.End{Refused: true}) // nothing was learnt
		}

		eps[0].Models = nil
		r.serve(eps...)
		require.Equal(t, eps[0].Address, r.send(t, asked("b")), "%s: it may serve anything", p.name)
	}
}

// One that is ejected and has said that it is full is not tried before that is over, and then at once.
func TestATryNeedsRoom(t *testing.T) {
	r := newRig(t, "{health: {failures: 1, eject: 5s}, slowStart: 0s}")
	r.serve(ready(2)...)
	sick := "10.0.0.000:80"
	x, y := request(0, 0), request(0, 0)
	for _, both := range []*filter.Exchange{x, y} {
		both.Subset = within(sick)
		require.Equal(t, sick, r.send(t, both))
	}
	x.Response.Headers = headers{"retry-after": "30"}
	r.answer(x, 429)
	r.answer(y, 500)
	r.now = r.now.Add(10 * time.Second)
	r.serve(ready(2)...)
	require.NotEqual(t, sick, r.send(t, request(0, 0)))
	r.now = r.now.Add(20 * time.Second)
	r.serve(ready(2)...)
	require.Equal(t, sick, r.send(t, request(0, 0)), "though the one before is still in progress")
}
