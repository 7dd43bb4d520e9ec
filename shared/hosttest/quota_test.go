package hosttest

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// The companion of scenarios divides a limit, is down and up again as steps say, and forgets when it is restarted.
func TestQuotaOfTheCompanion(t *testing.T) {
	now := epoch
	var q Quota
	table := account.NewMemory(account.Options{Accounts: 10, Rand: func() uint64 { return 1 }}, new(sync.Mutex))
	name := []byte("trial/requests:1m")
	take := func() account.Outcome {
		d := []account.Demand{{Key: account.KeyOf(name), Name: name, Limit: 2, Window: account.Window{Unit: account.Hour}, Amount: 1, Count: true, Shared: true}}
		r := table.Take(now, d, time.Minute)
		if r.Outcome != account.Dry {
			return r.Outcome
		}
		status, body := q.Answer(now, table.Ask(now, 0, nil, d))
		if status != 200 {
			table.Silence(now)
			return account.Unreachable
		}
		require.NoError(t, table.Heard(now, body))
		return table.Take(now, d, time.Minute).Outcome
	}
	step := func(quota string) { q.Switch(&Step{Companion: &CompanionState{Quota: quota}}, now) }

	require.Equal(t, account.Admitted, take())
	step("down")
	require.Equal(t, account.Unreachable, take())
	now = now.Add(time.Second)
	step("up")
	status, body := q.Answer(now, table.Report(now, 0, nil, 10))
	require.Equal(t, 200, status)
	require.NoError(t, table.Heard(now, body))
	require.Equal(t, account.Admitted, take())
	require.Equal(t, account.Refused, take())

	status, _ = q.Answer(now, []byte("nonsense"))
	require.Equal(t, 400, status)
	before, _ := account.ParseReply(body)
	step("restarted")
	_, body = q.Answer(now, []byte(`{"proxy":"p"}`))
	after, err := account.ParseReply(body)
	require.NoError(t, err)
	require.NotEqual(t, before.Generation, after.Generation)
	require.True(t, after.Settling)
	q.Switch(&Step{}, now)
	_, body = q.Answer(now.Add(account.Lease), []byte(`{"proxy":"p"}`))
	after, err = account.ParseReply(body)
	require.NoError(t, err)
	require.False(t, after.Settling)
}
