package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// testCompanionDies: the companion is not on the request path.
func testCompanionDies(t *testing.T, s *stack.Stack) {
	ctx := context.WithoutCancel(t.Context()) // the companion outlives this test
	answers := underLoad(t, s, 8, func(l *load) {
		s.Companion.Kill()
		l.more(1000)
		require.NoError(t, s.Companion.Start(ctx))
		eventually(t, "Envoy has the new companion's snapshot", func() (bool, error) { return companionIsHeard(ctx, s) })
		l.more(300)
	})
	require.Empty(t, failures(answers))
}

// companionIsHeard asks the companion whether some worker has its newest snapshot.
func companionIsHeard(ctx context.Context, s *stack.Stack) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Companion.URL()+"/v1/snapshot.json", nil)
	if err != nil {
		return false, err
	}
	a := do(req)
	if !a.ok() {
		return false, nil // it has just started
	}
	var twin struct {
		ID      string
		Workers []struct{ Has string }
	}
	if err := json.Unmarshal(a.body, &twin); err != nil {
		return false, err
	}
	return len(twin.Workers) > 0 && twin.Workers[0].Has == twin.ID, nil
}

// testReplicaDies: of the requests in progress on the replica that dies, only those
// are lost that it may have started. No other request fails.
func testReplicaDies(t *testing.T, s *stack.Stack) {
	const clients = 8
	ctx := context.WithoutCancel(t.Context())
	dying := s.PoolReplicas("llama")[0]
	answers := underLoad(t, s, clients, func(l *load) {
		dying.Kill()
		l.more(1000)
		require.NoError(t, dying.Start(ctx))
		eventually(t, "the replica is picked again", func() (bool, error) {
			a := post(ctx, s, chatPath, smallChat)
			return a.header.Get("x-modelsim-replica") == dying.Name, a.err
		})
	})
	failed := failures(answers)
	require.LessOrEqual(t, len(failed), clients, "at most one for each client at the moment of the death")
	for _, a := range failed {
		require.NoError(t, a.err)
		entry, err := s.Access(t.Context(), a.header.Get("x-request-id"))
		require.NoError(t, err)
		// UC: the connection ended after the request was sent on it.
		require.Equal(t, "UC", entry.Flags, "%+v", entry)
		require.Equal(t, dying.Address(), entry.Replica)
	}
}
