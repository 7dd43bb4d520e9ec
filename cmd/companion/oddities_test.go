package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/modelsim/sim"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// simulated starts a simulated replica.
func simulated(t *testing.T, cfg sim.Config) *sim.Server {
	cfg.Models = []string{"m"}
	s := sim.New(cfg)
	require.NoError(t, s.Start("127.0.0.1:0"))
	t.Cleanup(func() { s.Close() })
	return s
}

// A proxy learns of priorities, of sleep, of a cache told in tokens, and of an endpoint that cannot be asked only what matters to it.
func TestWhatAProxyHears(t *testing.T) {
	first, second := simulated(t, sim.Config{HybridBlocks: 20, KVBlocks: 1000, BlockSize: 16}), simulated(t, sim.Config{})
	path := filepath.Join(t.TempDir(), "p.yaml")
	host := func(s *sim.Server) string {
		return fmt.Sprintf("{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}", s.Addr()[len("127.0.0.1:"):])
	}
	list := fmt.Sprintf(`resources:
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: p
  endpoints:
  - priority: 1
    lb_endpoints: [%s, {endpoint: {address: {pipe: {path: /run/x}}}}]
  - lb_endpoints: [%s]
`, host(second), host(first))
	require.NoError(t, os.WriteFile(path, []byte(list), 0o600))

	c := startCompanion(t, map[string]string{"p": path})
	of := func(s *endpoint.Snapshot, replica *sim.Server) (e endpoint.Endpoint) {
		for _, e = range s.Pools[0].Endpoints {
			if e.Address == replica.Addr() {
				return e
			}
		}
		require.Fail(t, "not listed", "%+v", s)
		return e
	}
	c.until("both are ready", func(s *endpoint.Snapshot) bool { return of(s, first).Ready && of(s, second).Ready })
	require.Len(t, c.have.Pools[0].Endpoints, 2)
	before := of(c.have, first)
	require.EqualValues(t, 0, before.Priority)
	require.EqualValues(t, 1, of(c.have, second).Priority)
	require.Equal(t, endpoint.Cache{BlockTokens: 16, Blocks: 1000}, before.Cache)
	require.NotZero(t, before.Started)
	_, metrics := c.get("/metrics")
	require.Contains(t, metrics, `inlet_companion_endpoint_lists_total{result="failed"} 1`)

	first.Sleep(2)
	c.until("the first one sleeps", func(s *endpoint.Snapshot) bool { return !of(s, first).Ready })
	require.NotEqual(t, before.Started, of(c.have, first).Started, "its cache is empty")
	first.WakeUp()
	c.until("it is awake", func(s *endpoint.Snapshot) bool { return of(s, first).Ready })

	file := filepath.Join(t.TempDir(), "companion.yaml")
	require.NoError(t, os.WriteFile(file, []byte("pools: [{name: p, eds: "+path+"}]\n"), 0o600))
	out, _, err := execute(t.Context(), "--config", file, "--check")
	require.NoError(t, err)
	require.Contains(t, out, "2 endpoints")
	require.Contains(t, out, "left out: endpoints[0].lb_endpoints[1]: no socket_address")
}
