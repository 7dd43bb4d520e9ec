package quota

import (
	"testing"

	"github.com/stretchr/testify/require"
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
