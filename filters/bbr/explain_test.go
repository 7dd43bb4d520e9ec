package bbr

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// What the access log shows for each decision.
func TestTheAccessLogSaysWhy(t *testing.T) {
	s := replicas
	for _, c := range []struct{ document, body, want string }{
		{models, `{"model":"plain"}`, "bbr=plain>plain@p"},
		{models, `{"model":"gemma-support"}`, "bbr=gemma-support>lora-1-gemma@gemma"},
		{models + "unknownModel: pass", `{"model":"nobody"}`, "bbr=nobody"},
		{models + "unknownModel: pass", `{"model":"a b=c"}`, "bbr=a_b_c"},
		{"{}", `{"model":"any/thing"}`, "bbr=any/thing"},
		{"missingModel: pass", `{"messages":[]}`, "bbr=no-model"},
		{learned, `{"model":"poems"}`, "bbr=poems>poems@one"},
	} {
		x, v := route(t, learning(t, c.document, &s), c.body)
		require.Equal(t, filter.Next, v, c.body)
		require.Equal(t, c.want, string(x.Why()), c.body)
	}
	var none *endpoint.Snapshot
	x, v := route(t, learning(t, models, &none), `{"model":"nobody"}`)
	require.NotNil(t, v.Refusal())
	require.Empty(t, x.Why())
}
