package module

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/adapters/module/balancer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// lonely is a cluster with one host, and a request that lists another before it.
type lonely struct{}

func (lonely) Priorities() int { return 1 }
func (lonely) Healthy(int) int { return 1 }
func (lonely) Hosts(int) (all, healthy []balancer.Member) {
	all = []balancer.Member{{Address: []byte("10.0.0.1:80"), Weight: 1}}
	return all, all
}
func (lonely) List() []byte { return []byte("10.0.0.2:80,10.0.0.1:80") }
func (lonely) Look(_, _, _ uint32) balancer.Look {
	return balancer.Look{Address: []byte("10.0.0.1:80"), Healthy: true}
}

// What policies count goes on with the next callback of any exchange.
func TestCountsOfPolicies(t *testing.T) {
	journal := balancer.NewJournal()
	m, s := newMeasured(t, func(filter.Metrics) {})
	counts := newBalanced(m.Metrics, journal)
	require.NoError(t, m.Err())

	one, two := balancer.New("a", balancer.Config{}, journal, nil), balancer.New("b", balancer.Config{}, journal, nil)
	one.Update(lonely{})
	for range 3 {
		_, _, ok := one.Choose(lonely{}, lonely{})
		require.True(t, ok)
	}
	require.Empty(t, s.metrics)
	counts.record()
	two.Close()
	counts.record()
	m.flush(s)
	require.Equal(t, recorded{
		"inlet_balancer_pick_total{a,next}":           3,
		"inlet_balancer_skip_total{a,not_in_cluster}": 3,
		"inlet_balancers{a}":                          1,
		"inlet_balancers{b}":                          0,
	}, s.metrics)
	counts.record()
	require.Zero(t, m.waiting.Load())
}
