package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// The log says which endpoint is ejected, for how long, and for what.
func TestEjectionsAreLogged(t *testing.T) {
	const address = "10.0.0.000:80"
	for name, c := range map[string]struct {
		failures int
		reasons  []string
		want     string
	}{
		"responses": {3, []string{reasonStatus, reasonStatus, reasonStatus}, "3 consecutive 5xx responses"},
		"retries":   {2, []string{reasonConnect, reasonConnect}, "2 consecutive attempts that Envoy retried elsewhere"},
		"silence":   {2, []string{reasonTimeout, reasonTimeout}, "2 consecutive requests that ended without a first byte"},
		"several":   {3, []string{reasonStatus, reasonStatus, reasonConnect}, "3 consecutive failures"},
		"one":       {1, []string{reasonStatus}, "1 5xx response"},
	} {
		r := newRig(t, "{}")
		r.f.health.failures = c.failures
		r.serve(endpoint.Endpoint{Address: address, Ready: true}, endpoint.Endpoint{Address: "10.0.0.001:80", Ready: true})
		m := r.f.fleet.find(address)
		r.f.failed(m, "p", reasonConnect)
		r.f.fleet.succeeded(m) // begins a new count, of whatever reasons
		r.logs = nil
		r.now = r.now.Add(time.Hour)
		require.False(t, m.health.ejected)
		for _, reason := range c.reasons {
			require.Empty(t, r.logs, name)
			r.f.failed(m, "p", reason)
		}
		require.Equal(t, []string{"ejecting endpoint " + address + " for 5s: " + c.want + ", in pool p"}, r.logs, name)

		r.now = r.now.Add(5 * time.Second)
		require.True(t, r.f.fleet.startProbe(m, r.now))
		r.f.failed(m, "p", reasonTimeout)
		require.Equal(t, "ejecting endpoint "+address+" for 10s: the half-open probe failed (request that ended without a first byte), in pool p", r.logs[1], name)
		r.f.failed(m, "p", reasonStatus)
		require.Len(t, r.logs, 2, "%s: it is ejected already", name)
	}
}
