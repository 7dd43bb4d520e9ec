// Package kvtest checks that a kv.Store has the semantics of Envoy's shared data. Every implementation runs it: the one in memory, the
// emulated hosts, and the real Envoy.
package kvtest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// Store runs the suite, each case on a fresh store.
func Store(t *testing.T, fresh func(t *testing.T) kv.Store) {
	cas := func(t *testing.T, s kv.Store, key string) uint32 {
		_, cas, err := s.Get(key)
		require.NoError(t, err)
		return cas
	}
	holds := func(t *testing.T, s kv.Store, key, want string) {
		t.Helper()
		value, cas, err := s.Get(key)
		require.NoError(t, err)
		require.Equal(t, want, string(value))
		require.NotZero(t, cas, "a stored value never has cas 0")
	}

	t.Run("an absent key is not found", func(t *testing.T) {
		_, _, err := fresh(t).Get("a")
		require.ErrorIs(t, err, kv.ErrNotFound)
	})
	t.Run("cas 0 creates and replaces", func(t *testing.T) {
		s := fresh(t)
		require.NoError(t, s.Set("a", []byte("1"), 0))
		require.NoError(t, s.Set("a", []byte("2"), 0))
		holds(t, s, "a", "2")
	})
	t.Run("the cas that was read replaces, once", func(t *testing.T) {
		s := fresh(t)
		require.NoError(t, s.Set("a", []byte("1"), 0))
		read := cas(t, s, "a")
		require.NoError(t, s.Set("a", []byte("2"), read))
		require.ErrorIs(t, s.Set("a", []byte("3"), read), kv.ErrMismatch)
		holds(t, s, "a", "2")
	})
	t.Run("writing the same bytes is a change", func(t *testing.T) {
		s := fresh(t)
		require.NoError(t, s.Set("a", []byte("1"), 0))
		read := cas(t, s, "a")
		require.NoError(t, s.Set("a", []byte("1"), 0))
		require.NotEqual(t, read, cas(t, s, "a"))
		require.ErrorIs(t, s.Set("a", []byte("2"), read), kv.ErrMismatch)
	})
	t.Run("any other cas creates an absent key", func(t *testing.T) {
		s := fresh(t)
		require.NoError(t, s.Set("a", []byte("1"), 77))
		holds(t, s, "a", "1")
	})
	t.Run("Create creates, and replaces nothing", func(t *testing.T) {
		s := fresh(t)
		require.NoError(t, s.Set("a", []byte("1"), kv.Create))
		require.ErrorIs(t, s.Set("a", []byte("2"), kv.Create), kv.ErrMismatch)
		holds(t, s, "a", "1")
	})
	t.Run("a refused write changes nothing", func(t *testing.T) {
		s := fresh(t)
		require.NoError(t, s.Set("a", []byte("1"), 0))
		read := cas(t, s, "a")
		require.ErrorIs(t, s.Set("a", []byte("2"), read+1), kv.ErrMismatch)
		require.Equal(t, read, cas(t, s, "a"))
	})
	t.Run("keys do not touch each other", func(t *testing.T) {
		s := fresh(t)
		require.NoError(t, s.Set("a", []byte("1"), 0))
		read := cas(t, s, "a")
		require.NoError(t, s.Set("b", []byte("2"), 0))
		require.Equal(t, read, cas(t, s, "a"))
		holds(t, s, "a", "1")
		holds(t, s, "b", "2")
	})
	t.Run("Set keeps a copy", func(t *testing.T) {
		s := fresh(t)
		value := []byte("1")
		require.NoError(t, s.Set("a", value, 0))
		value[0] = 'x'
		holds(t, s, "a", "1")
	})
}
