package e2e_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	setmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/hosttest"
)

// edits are a scenario's changes to the shipped bootstrap.
type edits struct {
	abi      string
	name     string              // of listener and VM; as shipped if empty
	trusted  bool                // clients may send control headers: another gateway is in front
	pools    map[string][]string // addresses of the replicas
	services map[string]string   // addresses by cluster, the companion's too
	subset   *hosttest.Subset    // with addresses; nil: no hint
	metadata map[string]map[string]string

	unfollowed  bool // the clusters ignore the ranked list
	maxRequests int  // limit of a cluster; 0: as shipped

	keeper *keeper
}

// keeper is a listener that stays when those of the scenarios come and go. As long as it has the plugin, V8 has its
// machine code, which takes more than ten seconds to make.
type keeper struct{ listener *listenerv3.Listener }

// of returns it: made of the shipped one at first, later the same.
func (k *keeper) of(shipped *listenerv3.Listener) *listenerv3.Listener {
	if k.listener == nil {
		k.listener = proto.CloneOf(shipped)
		k.listener.Name = "keeper"
		k.listener.GetAddress().GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{}
	}
	return k.listener
}

func (e *edits) apply(b *bootstrapv3.Bootstrap) {
	if e.keeper != nil {
		b.StaticResources.Listeners = append(b.StaticResources.Listeners, e.keeper.of(b.GetStaticResources().GetListeners()[0]))
	}
	var companion *clusterv3.Cluster
	for _, c := range b.GetStaticResources().GetClusters() {
		if addresses, ok := e.pools[c.GetName()]; ok {
			setEndpoints(c, addresses...)
			allowTrailers(c)
			e.limit(c)
		}
		if c.GetName() == hosttest.CompanionCluster {
			companion = c
		}
	}
	for name, address := range e.services {
		c := companion
		if name != hosttest.CompanionCluster {
			c = proto.CloneOf(companion)
			c.Name = name
			b.StaticResources.Clusters = append(b.StaticResources.Clusters, c)
		}
		setEndpoints(c, address)
	}
	editManager(b, func(m *hcmv3.HttpConnectionManager) {
		if e.trusted {
			m.EarlyHeaderMutationExtensions = nil
		}
		if e.subset != nil {
			m.HttpFilters = slices.Insert(m.HttpFilters, 0, sayingSubset(e.subset))
		}
		if e.metadata != nil {
			m.HttpFilters = slices.Insert(m.HttpFilters, 0, sayingMetadata(e.metadata))
		}
		m.HttpProtocolOptions = &corev3.Http1ProtocolOptions{EnableTrailers: true}
		if e.abi == stack.Wasm && e.name != "" {
			editAny(inletFilter(m).GetTypedConfig(), func(w *wasmv3.Wasm) { w.Config.GetVmConfig().VmId = e.name })
		}
	})
	if e.name != "" {
		b.GetStaticResources().GetListeners()[0].Name = e.name
	}
	mergeOnScrape(b)
	nameProbeLabels(b)
}

// limit gives a cluster the scenario's limits.
func (e *edits) limit(c *clusterv3.Cluster) {
	if e.unfollowed {
		c.LoadBalancingPolicy = nil
	}
	if e.maxRequests > 0 {
		c.GetCircuitBreakers().GetThresholds()[0].MaxRequests = wrapperspb.UInt32(uint32(e.maxRequests))
	}
}

// sayingSubset is a filter that sets the subset hint for every request, like a gateway
// in front of Inlet.
func sayingSubset(s *hosttest.Subset) *hcmv3.HttpFilter {
	value := structpb.NewStringValue(strings.Join(s.Replicas, ", "))
	if !s.Text {
		list := &structpb.ListValue{}
		for _, address := range s.Replicas {
			list.Values = append(list.Values, structpb.NewStringValue(address))
		}
		value = structpb.NewListValue(list)
	}
	return saying("subset", &setmetadatav3.Metadata{
		MetadataNamespace: filter.SubsetNamespace,
		Value:             &structpb.Struct{Fields: map[string]*structpb.Value{filter.SubsetKey: value}},
	})
}

// sayingMetadata is a filter that sets dynamic metadata for every request.
func sayingMetadata(all map[string]map[string]string) *hcmv3.HttpFilter {
	var said []*setmetadatav3.Metadata
	for namespace, keys := range all {
		values := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		for key, value := range keys {
			values.Fields[key] = structpb.NewStringValue(value)
		}
		said = append(said, &setmetadatav3.Metadata{MetadataNamespace: namespace, Value: values})
	}
	return saying("metadata", said...)
}

// saying is a filter of Envoy that sets dynamic metadata.
func saying(name string, said ...*setmetadatav3.Metadata) *hcmv3.HttpFilter {
	config, err := anypb.New(&setmetadatav3.Config{Metadata: said})
	if err != nil {
		panic(err)
	}
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}}
}

// nameProbeLabels adds the labels of the probe's metrics to those of the
// shipped filters.
func nameProbeLabels(b *bootstrapv3.Bootstrap) {
	if b.StatsConfig == nil {
		return // the module has labels without them
	}
	for _, label := range []string{"complete", "refused", "reply"} {
		b.StatsConfig.StatsTags = append(b.StatsConfig.GetStatsTags(), &metricsv3.TagSpecifier{
			TagName:  label,
			TagValue: &metricsv3.TagSpecifier_Regex{Regex: `^wasmcustom\..*?(;` + label + `=([^;]*))`},
		})
	}
}

// mergeOnScrape makes histograms current after at most two scrapes, which otherwise
// takes seconds.
func mergeOnScrape(b *bootstrapv3.Bootstrap) {
	b.StatsFlush = &bootstrapv3.Bootstrap_StatsFlushOnAdmin{StatsFlushOnAdmin: true}
}

// setEndpoints lists the hosts of a cluster in the bootstrap itself.
func setEndpoints(c *clusterv3.Cluster, addresses ...string) {
	endpoints := &endpointv3.LocalityLbEndpoints{}
	for _, a := range addresses {
		parsed := netip.MustParseAddrPort(a)
		endpoints.LbEndpoints = append(endpoints.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
				Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address:       parsed.Addr().String(),
					PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(parsed.Port())},
				}},
			}}},
		})
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.EdsClusterConfig = nil
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{
		ClusterName: c.GetName(), Endpoints: []*endpointv3.LocalityLbEndpoints{endpoints},
	}
}

// allowTrailers forwards HTTP/1 trailers, which Envoy drops by default, to the replicas.
func allowTrailers(c *clusterv3.Cluster) {
	//nolint:staticcheck // the field that replaces it needs ten more lines for the same effect
	c.HttpProtocolOptions = &corev3.Http1ProtocolOptions{EnableTrailers: true}
}

// editManager changes the HTTP connection manager of the gateway's listener.
func editManager(b *bootstrapv3.Bootstrap, f func(*hcmv3.HttpConnectionManager)) {
	network := b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0]
	editAny(network.GetTypedConfig(), f)
}

// editAny changes the message inside an Any. It panics if it is another message: then
// the shipped bootstrap has changed its structure.
func editAny[T proto.Message](a *anypb.Any, f func(T)) {
	message, err := a.UnmarshalNew()
	if err != nil {
		panic(err)
	}
	typed, ok := message.(T)
	if !ok {
		panic(fmt.Sprintf("a %s where another message was expected", a.GetTypeUrl()))
	}
	f(typed)
	if err := a.MarshalFrom(message); err != nil {
		panic(err)
	}
}

// inletFilter returns the position of the Inlet filter.
func inletFilter(m *hcmv3.HttpConnectionManager) *hcmv3.HttpFilter {
	i := slices.IndexFunc(m.GetHttpFilters(), func(f *hcmv3.HttpFilter) bool { return f.GetName() == "inlet" })
	return m.GetHttpFilters()[i]
}
