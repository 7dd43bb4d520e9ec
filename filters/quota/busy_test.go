package quota

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/account"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// deaf is a store that writes nothing, for a reason.
type deaf struct {
	kv.Store
	reason error
}

func (s *deaf) Set(key string, value []byte, cas uint32) error {
	if s.reason != nil {
		return s.reason
	}
	return s.Store.Set(key, value, cas)
}

// A worker that loses every round against others refuses with 503, whatever onStoreFailure says: who floods must not get past a limit. That key
// is for a store that fails.
func TestContentionIsNoStoreFailure(t *testing.T) {
	for _, test := range []struct {
		mode, code, cause string
		reason            error
		status            int
	}{
		{"FailOpen", "quota_busy", contended, kv.ErrMismatch, 503},
		{"FailClosed", "quota_busy", contended, kv.ErrMismatch, 503},
		{"FailOpen", "", storeFailed, errors.New("down"), 200},
		{"FailClosed", "quota_unavailable", storeFailed, errors.New("down"), 503},
	} {
		t.Run(test.mode+" "+test.cause, func(t *testing.T) {
			r := newRig(t, "anonymous: a")
			store := &deaf{Store: mem.NewStore()}
			r.deps.Worker, r.deps.Store = "w", store
			clear(r.kept)
			r.load(subscribed("requests: 5/day, concurrency: 1") + "onStoreFailure: " + test.mode)
			require.Equal(t, 200, r.send(body{}).end(ends{status: 200}).status())
			store.reason = test.reason
			c := r.send(body{})
			require.Equal(t, test.status, c.status())
			require.EqualValues(t, 1, r.samples["inlet_quota_store_failure_total "+test.cause])
			require.Contains(t, string(c.x.Why()), test.cause)
			if refusal := c.v.Refusal(); refusal != nil {
				require.Equal(t, test.code, refusal.Code)
				require.Equal(t, time.Second, refusal.RetryAfter)
			}
			c.end(ends{status: 200})
			store.reason = nil
			require.Equal(t, 200, r.send(body{}).end(ends{status: 200}).status())
		})
	}
}

// fullTable has no place for any account.
type fullTable struct{ account.Table }

func (fullTable) Take(time.Time, []account.Demand, time.Duration) account.Result {
	return account.Result{Outcome: account.Full}
}

// A table that is full refuses with 503 too. In shadow mode nothing is refused.
func TestNoPlaceForACounter(t *testing.T) {
	for shadow, want := range map[string]int{"": 503, "shadow: true": 200} {
		r := newRig(t, subscribed("requests: 5/day")+shadow)
		r.f.table = fullTable{r.f.table}
		require.Equal(t, want, r.send(body{}).status())
		require.EqualValues(t, 1, r.samples["inlet_quota_store_failure_total full"])
	}
}
