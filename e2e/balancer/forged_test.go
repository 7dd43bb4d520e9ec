package balancer_test

import (
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// withoutInlet leads all requests to the pool llama past Inlet.
func withoutInlet(t *testing.T, b *bootstrapv3.Bootstrap) {
	t.Helper()
	off, err := anypb.New(&routev3.FilterConfig{Disabled: true})
	require.NoError(t, err)
	edit(b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0].GetTypedConfig(), func(m *hcmv3.HttpConnectionManager) {
		host := m.GetRouteConfig().GetVirtualHosts()[0]
		host.Routes = append([]*routev3.Route{{
			Match:                &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action:               &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "llama"}}},
			TypedPerFilterConfig: map[string]*anypb.Any{"inlet": off},
		}}, host.GetRoutes()...)
	})
}

// TestForged: where a route has no Inlet filter, nobody but the listener removes a client's own list. It does, and so the
// client does not choose the replica; without that it would.
func TestForged(t *testing.T) {
	a, b := newReplica(t, "a"), newReplica(t, "b")
	for name, trusted := range map[string]bool{"the list is removed": false, "the list is let in": true} {
		t.Run(name, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: stack.Module, NativeLB: true, NoCompanion: true, Chain: trusting,
				Pools: []stack.Pool{{Name: "llama", Addresses: []string{a.address(), b.address()}}},
				Edit: func(bootstrap *bootstrapv3.Bootstrap) {
					withoutInlet(t, bootstrap)
					if trusted {
						trust(bootstrap)
					}
				},
			})
			seen := map[string]int{}
			for range 60 {
				seen[ask(t, s, "unknown to Inlet", b.address()).replica]++
			}
			if trusted {
				require.Equal(t, map[string]int{"b": 60}, seen)
			} else {
				require.Equal(t, 60, seen["a"]+seen["b"], "%v", seen)
				require.NotZero(t, seen["a"])
			}
		})
	}
}
