package quota

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// Another key in another place helps who has none or a bad one, and nobody else.
func TestAdviceOfRefusals(t *testing.T) {
	f := newRig(t, "anonymous: x").f
	const places = "x-api-key: YOUR_KEY or authorization: Bearer YOUR_KEY."
	for _, c := range []struct {
		r    reason
		want string
	}{
		{keyMissing, "You didn't provide an API key. Provide your API key as " + places},
		{keyRevoked, "Your API key was revoked. Use another one, as " + places},
		{keyExpired, "Your API key has expired. Use another one, as " + places},
		{appNotApproved, "Your application is not approved. Ask the operator of this gateway to approve it."},
		{unknownApp, "Your application is not known here. Ask the operator of this gateway to add it."},
	} {
		v := f.unknown(c.r)
		require.Equal(t, c.want, v.Refusal().Message)
	}
}

// A limit that refuses has not enough left for the request, also when others have given some back in the meantime.
func TestARefusalLeavesTooLittle(t *testing.T) {
	r := newRig(t, subscribed("requests: 5/day, tokens: {total: 1000/day}"))
	c := r.send(body{max: 100})
	require.Equal(t, 200, c.status())
	q := c.x.State().(*request)
	for i, l := range q.limits {
		v := r.f.overLimit(c.x, q, account.Result{Outcome: account.Refused, At: i, Wait: time.Minute})
		name, want := "x-ratelimit-remaining-requests", "0"
		if l.measure.tokens() {
			name, want = "x-ratelimit-remaining-tokens", string(appendInt(nil, q.demands[i].Amount-1))
		}
		require.Contains(t, v.Refusal().Headers, [2]string{name, want})
	}
}
