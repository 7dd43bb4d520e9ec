package redisbin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// A server that is killed and started again has its address and what it saved.
func TestServer(t *testing.T) {
	s, err := Start(t.Context(), t.TempDir(), "--appendonly", "yes", "--appendfsync", "always")
	require.NoError(t, err)
	t.Cleanup(func() { s.Stop() })
	client := redis.NewClient(&redis.Options{Addr: s.Address(), DialerRetries: 1})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	require.NoError(t, client.Set(t.Context(), "a", 1, 0).Err())
	s.Kill()
	require.Error(t, client.Get(t.Context(), "a").Err())
	require.NoError(t, s.Restart(t.Context()))
	require.Equal(t, "1", client.Get(t.Context(), "a").Val())
}

func TestCluster(t *testing.T) {
	c, err := StartCluster(t.Context(), 3, t.TempDir)
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addresses()[:1]})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	for _, key := range []string{"a", "b", "c", "d", "e"} { // in slots of different servers
		require.NoError(t, client.Set(t.Context(), key, key, 0).Err())
		require.Equal(t, key, client.Get(t.Context(), key).Val())
	}
}

// Without redis-server and without Debian's tools the error says what to do.
func TestNothingToFetchWith(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", filepath.Join(dir, "bin"))
	t.Setenv("INLET_CACHE", filepath.Join(dir, "cache"))
	_, err := Find(t.Context(), nil)
	require.ErrorContains(t, err, "install redis-server")
	left, err := os.ReadDir(filepath.Join(dir, "cache"))
	require.NoError(t, err)
	require.Empty(t, left, "temporary folders are removed")
}
