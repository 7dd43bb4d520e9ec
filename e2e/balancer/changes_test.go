package balancer_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	balancerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/dynamic_modules/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// picking is a chain with the picker.
const picking = `
filters:
  - bbr: {models: [{name: llama, targets: [{pool: llama}]}, {name: gemma, targets: [{pool: gemma}]}]}
  - picker: {endpoints: 3}
companion: {cluster: inlet-companion}
`

// host is a host of a cluster that is listed in the bootstrap.
type host struct {
	address  string
	health   corev3.HealthStatus
	priority uint32
	weight   uint32
}

// setHosts lists the hosts of a cluster.
func setHosts(t *testing.T, c *clusterv3.Cluster, hosts ...host) {
	t.Helper()
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.EdsClusterConfig = nil
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.GetName()}
	for _, h := range hosts {
		e := &endpointv3.LbEndpoint{HealthStatus: h.health}
		if h.weight > 0 {
			e.LoadBalancingWeight = wrapperspb.UInt32(h.weight)
		}
		name, port := split(t, h.address)
		e.HostIdentifier = &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
			Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: name, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
			}},
		}}}
		c.LoadAssignment.Endpoints = append(c.LoadAssignment.Endpoints, &endpointv3.LocalityLbEndpoints{
			LbEndpoints: []*endpointv3.LbEndpoint{e}, Priority: h.priority,
			Locality: &corev3.Locality{Zone: fmt.Sprint(len(c.LoadAssignment.GetEndpoints()))},
		})
	}
}

// cluster returns the cluster of a pool.
func cluster(b *bootstrapv3.Bootstrap, name string) *clusterv3.Cluster {
	for _, c := range b.GetStaticResources().GetClusters() {
		if c.GetName() == name {
			return c
		}
	}
	panic("no cluster " + name)
}

// TestPicked: a replica that the picker lists first and that Envoy knows as unhealthy is not asked. The picker learns who served and
// why, and the replica is not taken for one that has failed.
func TestPicked(t *testing.T) {
	a, b := newReplica(t, "a"), newReplica(t, "b")
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, NativeLB: true, Chain: picking,
		Pools: []stack.Pool{{Name: "llama", Addresses: []string{a.address(), b.address()}}},
		Edit: func(bootstrap *bootstrapv3.Bootstrap) {
			setHosts(t, cluster(bootstrap, "llama"), host{address: a.address(), health: corev3.HealthStatus_UNHEALTHY}, host{address: b.address()})
		},
	})
	count := func(name string, labels ...string) int {
		m, err := s.Metrics(t.Context())
		require.NoError(t, err)
		return int(m.Sum(name, labels...))
	}
	// The replicas have no metrics: the picker ranks them at random.
	eventually(t, "the picker lists both, a first", func() bool {
		require.Equal(t, "b", ask(t, s, "llama").replica)
		return count("inlet_balancer_skip_total", "cluster", "llama", "reason", "unhealthy") >= 3
	})
	skips := count("inlet_balancer_skip_total", "cluster", "llama", "reason", "unhealthy")
	require.Equal(t, skips, count("inlet_balancer_pick_total", "cluster", "llama", "reason", "next"))
	require.Equal(t, skips, count("inlet_unfollowed_total", "pool", "llama", "reason", "unhealthy"))
	require.Equal(t, skips, count("inlet_unfollowed_total"), "for no other reason")
	require.Equal(t, skips, count("inlet_pick_total", "pool", "llama", "outcome", "missed"))
	require.Zero(t, count("inlet_ejection_total"))
	eventually(t, "nothing is in flight", func() bool { return count("inlet_in_flight_requests") == 0 })
	require.Empty(t, s.EnvoyErrors())
}

// TestChangesUnderLoad: replicas come and go, become unhealthy and healthy, and a cluster is removed and added again, while
// requests run. None fails, and of each removed cluster every policy is gone.
func TestChangesUnderLoad(t *testing.T) {
	const workers, rounds = 2, 20
	var all []string
	for i := range 6 {
		all = append(all, newReplica(t, fmt.Sprint(i)).address())
	}
	removed := false
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, NativeLB: true, Chain: picking, Updatable: true, Workers: workers,
		Pools: []stack.Pool{{Name: "llama", Addresses: all}, {Name: "gemma", Addresses: all[:3]}},
		Edit: func(b *bootstrapv3.Bootstrap) { // the listener stays as it is, and so do the clients' connections
			b.StaticResources.Clusters = slices.DeleteFunc(b.GetStaticResources().GetClusters(), func(c *clusterv3.Cluster) bool { return removed && c.GetName() == "gemma" })
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	var served atomic.Int64
	var failed sync.Map
	eventually(t, "the picker knows the replicas", func() bool { return ask(t, s, "llama").attempt == "1" })
	for range 6 {
		load.Go(func() {
			for ctx.Err() == nil {
				r, err := try(s, "llama")
				if err != nil || r.attempt == "" {
					failed.Store(fmt.Sprint(r, err), true)
				}
				served.Add(1)
			}
		})
	}
	more := func(n int64) {
		until := served.Load() + n
		eventually(t, "the load goes on", func() bool { return served.Load() >= until })
	}
	instances := func(name string) int {
		m, err := s.Metrics(t.Context())
		require.NoError(t, err)
		return int(m.Sum("inlet_balancers", "cluster", name))
	}
	more(50)
	threads := instances("llama") // the main thread has one, too
	require.GreaterOrEqual(t, threads, workers)
	for i := range rounds {
		require.NoError(t, s.SetEndpoints("llama", all[i%3:3+i%4]...))
		more(20)
		require.NoError(t, s.SetHealth("llama", "UNHEALTHY", all[i%5:i%5+1], all...))
		more(20)
		removed = i%2 == 0
		require.NoError(t, s.Update(ctx, func(*stack.Options) {}))
		eventually(t, "the policies of gemma are gone, or back", func() bool { return instances("gemma") == threads*(i%2) })
		require.Equal(t, removed, ask(t, s, "gemma").attempt == "")
		require.Equal(t, threads, instances("llama"))
	}
	more(50)
	stop()
	load.Wait()
	failed.Range(func(what, _ any) bool { t.Errorf("failed: %v", what); return true })
	require.Empty(t, s.EnvoyErrors())
}

// TestClusterUpdates: priorities and weights in a real Envoy; a configuration of the policy that is refused leaves the one before.
func TestClusterUpdates(t *testing.T) {
	a, b, c := newReplica(t, "a"), newReplica(t, "b"), newReplica(t, "c")
	var hosts []host
	document := ""
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, NativeLB: true, NoCompanion: true, Chain: trusting, Updatable: true,
		Pools: []stack.Pool{{Name: "llama", Addresses: []string{a.address()}}},
		Edit: func(bootstrap *bootstrapv3.Bootstrap) {
			trust(bootstrap)
			llama := cluster(bootstrap, "llama")
			if hosts != nil {
				setHosts(t, llama, hosts...)
			}
			edit(llama.GetLoadBalancingPolicy().GetPolicies()[0].GetTypedExtensionConfig().GetTypedConfig(), func(p *balancerv3.DynamicModulesLoadBalancerConfig) {
				var err error
				p.LbPolicyConfig, err = anypb.New(wrapperspb.String(document))
				require.NoError(t, err)
			})
		},
	})
	shares := func(n int) map[string]int {
		got := map[string]int{}
		for range n {
			got[ask(t, s, "llama").replica]++
		}
		return got
	}
	require.Equal(t, map[string]int{"a": 20}, shares(20))

	const sick = corev3.HealthStatus_UNHEALTHY
	for name, c := range map[string]struct {
		hosts []host
		a, c  [2]int // requests of 100 without a list, least and most
	}{
		"the first priority is healthy": {[]host{{address: a.address()}, {address: b.address(), priority: 1}, {address: c.address(), priority: 1}}, [2]int{100, 100}, [2]int{0, 0}},
		"it is not":                     {[]host{{address: a.address(), health: sick}, {address: b.address(), priority: 1}, {address: c.address(), priority: 1}}, [2]int{0, 0}, [2]int{20, 80}},
		"by weight":                     {[]host{{address: a.address(), weight: 1}, {address: b.address(), weight: 1}, {address: c.address(), weight: 8}}, [2]int{0, 30}, [2]int{60, 95}},
	} {
		hosts = c.hosts
		require.NoError(t, s.Update(t.Context(), func(*stack.Options) {}), name)
		got := shares(100)
		require.GreaterOrEqual(t, got["a"], c.a[0], "%s: %v", name, got)
		require.LessOrEqual(t, got["a"], c.a[1], "%s: %v", name, got)
		require.GreaterOrEqual(t, got["c"], c.c[0], "%s: %v", name, got)
		require.LessOrEqual(t, got["c"], c.c[1], "%s: %v", name, got)
		require.Equal(t, "c", ask(t, s, "llama", c.hosts[2].address).replica, "the list goes over the priorities")
	}

	hosts, document = []host{{address: a.address()}, {address: b.address()}}, "fallback: none"
	require.NoError(t, s.Update(t.Context(), func(*stack.Options) {}))
	require.Equal(t, "503", ask(t, s, "llama").replica, "without a list there is no host")
	require.Equal(t, "b", ask(t, s, "llama", b.address()).replica)

	require.Empty(t, s.EnvoyErrors())
	document = "fallbak: none"
	ctx, cancel := context.WithTimeout(t.Context(), patience/4)
	defer cancel()
	require.Error(t, s.Update(ctx, func(*stack.Options) {}), "the cluster is refused")
	require.Contains(t, fmt.Sprint(s.EnvoyErrors()), `lb_policy_config: 1:1: unknown key "fallbak" (did you mean "fallback"?)`)
	require.Equal(t, "b", ask(t, s, "llama", b.address()).replica)
}

// split returns the host and the port of an address.
func split(t *testing.T, address string) (string, uint32) {
	t.Helper()
	a, err := netip.ParseAddrPort(address)
	require.NoError(t, err)
	return a.Addr().String(), uint32(a.Port())
}
