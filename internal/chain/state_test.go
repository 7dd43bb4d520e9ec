package chain_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Every hook of every filter finds the state that this filter has left, whatever hook ran before.
func TestEachHookFindsItsOwnState(t *testing.T) {
	r := &rig{metrics: samples{}}
	var known []filter.Factory
	for _, name := range []string{"v", "w"} {
		found := func(x *filter.Exchange) filter.Verdict {
			require.Equal(t, name, x.State())
			return filter.Next
		}
		w := &watching{
			scripted: scripted{
				name: name, trace: &r.trace, needs: filter.NeedRequest | filter.NeedUsage,
				headers:  func(x *filter.Exchange) filter.Verdict { x.SetState(name); return filter.Next },
				request:  found,
				response: found,
				done:     func(x *filter.Exchange, _ filter.End) { found(x) },
			},
			first: func(x *filter.Exchange) { found(x) },
		}
		known = append(known, filter.Factory{Name: name, New: func(*conf.Object, *filter.Deps) filter.Filter { return w }})
	}
	deps := &filter.Deps{
		Now: time.Now, Rand: func() uint64 { return 1 }, Metrics: r.metrics,
		Log: func(_ filter.Level, m string) { r.logs = append(r.logs, m) },
	}
	c, err := chain.New([]byte("filters: [v: {}, w: {}]"), known, deps)
	require.NoError(t, err)
	r.chain = c
	s, _ := r.send(post(), body)
	s.ResponseHeaders(false)
	s.ResponseBody([]byte("{}"), true)
	s.Done()
	require.Len(t, r.trace, 10, "%q", r.trace)
	require.Empty(t, r.logs, "no hook panicked")
}
