package quota_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// administer asks the companion's admin API, and expects success.
func administer(t *testing.T, s *stack.Stack, method, path string, body any) gjson.Result {
	t.Helper()
	status, text, err := s.AskAdmin(t.Context(), method, path, body)
	require.NoError(t, err)
	require.Less(t, status, 300, "%s %s: %s", method, path, text)
	return gjson.ParseBytes(text)
}

// settled waits until an account has used exactly as much.
func settled(t *testing.T, s *stack.Stack, want int64, parts ...string) {
	t.Helper()
	eventually(t, fmt.Sprint(parts, " has used ", want), func() (bool, error) {
		got, err := s.Used(t.Context(), parts...)
		if err == nil && got != want {
			err = fmt.Errorf("it has used %d", got)
		}
		return got == want, err
	})
}
