package main

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	wasmvmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// edit changes the shipped bootstrap for a benchmark.
type edit func(*bootstrapv3.Bootstrap, *hcmv3.HttpConnectionManager) error

// applyAll makes the edits.
func applyAll(edits []edit, b *bootstrapv3.Bootstrap) error {
	network := b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0]
	m := &hcmv3.HttpConnectionManager{}
	if err := network.GetTypedConfig().UnmarshalTo(m); err != nil {
		return err
	}
	for _, e := range edits {
		if err := e(b, m); err != nil {
			return err
		}
	}
	return network.GetTypedConfig().MarshalFrom(m)
}

// discardAccessLog makes Envoy write the access log as usual, but nobody reads it.
func discardAccessLog(_ *bootstrapv3.Bootstrap, m *hcmv3.HttpConnectionManager) error {
	log := m.GetAccessLog()[0]
	shipped := &streamv3.StdoutAccessLog{}
	if err := log.GetTypedConfig().UnmarshalTo(shipped); err != nil {
		return err
	}
	log.Name = "envoy.access_loggers.file"
	return log.GetTypedConfig().MarshalFrom(&filev3.FileAccessLog{
		Path:            "/dev/null",
		AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: shipped.GetLogFormat()},
	})
}

// traceGC makes Go's runtime in a wasm VM log each garbage collection. The one in a module reads Envoy's environment.
func traceGC(_ *bootstrapv3.Bootstrap, m *hcmv3.HttpConnectionManager) error {
	config := m.GetHttpFilters()[0].GetTypedConfig()
	w := &wasmv3.Wasm{}
	if !config.MessageIs(w) {
		return nil
	}
	if err := config.UnmarshalTo(w); err != nil {
		return err
	}
	w.GetConfig().GetVmConfig().EnvironmentVariables = &wasmvmv3.EnvironmentVariables{KeyValues: map[string]string{"GODEBUG": "gctrace=1"}}
	return config.MarshalFrom(w)
}

// processing defines which messages an ext_proc server gets, and how.
type processing struct {
	name       string // of the cluster
	mode       *extprocv3.ProcessingMode
	attributes []string                // sent with the response headers
	namespace  string                  // of the metadata that it may set
	override   bool                    // it may select other modes itself
	tls        *corev3.TransportSocket // nil for plain text
}

// ownProcessing is for the server that runs Inlet's chain. It gets bodies of requests whole: the decision needs their
// end, and an unchanged body need not be sent back, as it would have to be in the streamed modes.
func ownProcessing() processing {
	return processing{
		name: "extproc",
		mode: &extprocv3.ProcessingMode{
			RequestHeaderMode:   extprocv3.ProcessingMode_SEND,
			RequestBodyMode:     extprocv3.ProcessingMode_BUFFERED,
			RequestTrailerMode:  extprocv3.ProcessingMode_SKIP,
			ResponseHeaderMode:  extprocv3.ProcessingMode_SEND,
			ResponseBodyMode:    extprocv3.ProcessingMode_STREAMED,
			ResponseTrailerMode: extprocv3.ProcessingMode_SKIP,
		},
		attributes: []string{"upstream.address"},
		namespace:  "inlet",
	}
}

// peerProcessing is the configuration of the extension's charts: charts/body-based-routing/templates/istio.yaml for the
// router, charts/standalone/values.yaml for the picker; TLS without a check of the certificate for both.
func peerProcessing(name string) (processing, error) {
	const streamed = extprocv3.ProcessingMode_FULL_DUPLEX_STREAMED
	mode := &extprocv3.ProcessingMode{
		RequestHeaderMode:   extprocv3.ProcessingMode_SEND,
		RequestBodyMode:     streamed,
		RequestTrailerMode:  extprocv3.ProcessingMode_SEND,
		ResponseHeaderMode:  extprocv3.ProcessingMode_SKIP,
		ResponseBodyMode:    extprocv3.ProcessingMode_NONE,
		ResponseTrailerMode: extprocv3.ProcessingMode_SKIP,
	}
	if name == "epp" {
		mode.ResponseHeaderMode, mode.ResponseBodyMode = extprocv3.ProcessingMode_SEND, streamed
		mode.ResponseTrailerMode = extprocv3.ProcessingMode_SEND
	}
	tls, err := anypb.New(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{AlpnProtocols: []string{"h2"}}})
	return processing{name: name, mode: mode, override: name == "bbr", tls: &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: tls},
	}}, err
}

// addExtProc puts an ext_proc filter before the router, and a cluster for its server.
func addExtProc(address string, p processing) edit {
	return func(b *bootstrapv3.Bootstrap, m *hcmv3.HttpConnectionManager) error {
		filter := &extprocv3.ExternalProcessor{
			GrpcService: &corev3.GrpcService{
				TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: p.name}},
			},
			ProcessingMode:     p.mode,
			ResponseAttributes: p.attributes,
			AllowModeOverride:  p.override,
			MessageTimeout:     durationpb.New(30 * time.Second), // a loaded machine should not cause a failure
		}
		if p.namespace != "" {
			filter.MetadataOptions = &extprocv3.MetadataOptions{
				ReceivingNamespaces: &extprocv3.MetadataOptions_MetadataNamespaces{Untyped: []string{p.namespace}},
			}
		}
		config, err := anypb.New(filter)
		if err != nil {
			return err
		}
		last := len(m.GetHttpFilters()) - 1
		m.HttpFilters = slices.Insert(m.GetHttpFilters(), last, &hcmv3.HttpFilter{
			Name:       "envoy.filters.http.ext_proc." + p.name,
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config},
		})
		cluster, err := grpcCluster(p.name, address, b.GetStaticResources().GetClusters()[0].GetCircuitBreakers())
		if err != nil {
			return err
		}
		cluster.TransportSocket = p.tls
		b.GetStaticResources().Clusters = append(b.GetStaticResources().GetClusters(), cluster)
		return nil
	}
}

// grpcCluster is a cluster of one server that speaks HTTP/2.
func grpcCluster(name, address string, limits *clusterv3.CircuitBreakers) (*clusterv3.Cluster, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	http2, err := anypb.New(&upstreamsv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
				},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(5 * time.Second),
		CircuitBreakers:      proto.CloneOf(limits),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2,
		},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(at)}},
			}}}},
		},
	}, nil
}

func socketAddress(at netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: at.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())},
	}}}
}
