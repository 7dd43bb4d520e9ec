// Package xds serves the companion's lists of replicas to Envoy by EDS (state of the world and delta, on its own stream or in ADS), so that
// proxy and companion have the same list even without a file.
package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoverygrpc "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointgrpc "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
)

// Server is a gRPC server of EndpointDiscoveryService and AggregatedDiscoveryService. Its methods are safe for concurrent use.
type Server struct {
	cache *cachev3.LinearCache
	grpc  *grpc.Server
}

// New returns a server that knows no cluster yet. A request for a cluster is answered after Set, so that Envoy waits and does not take a pool
// for empty.
func New(log *slog.Logger) *Server {
	s := &Server{
		cache: cachev3.NewLinearCache(resourcev3.EndpointType, cachev3.WithLogger(logger{log})),
		// Notice proxies that vanished, and permit the keepalive pings of the others.
		grpc: grpc.NewServer(
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		),
	}
	// The server ends its streams with the gRPC server, not with a context.
	discovery := serverv3.NewServer(context.Background(), patient{s.cache}, nil)
	endpointgrpc.RegisterEndpointDiscoveryServiceServer(s.grpc, discovery)
	discoverygrpc.RegisterAggregatedDiscoveryServiceServer(s.grpc, discovery)
	return s
}

// patient is a cache that answers a first request only when there is something to send. The library answers it at once, if need be with
// nothing, and Envoy would take every requested cluster for empty.
type patient struct{ *cachev3.LinearCache }

// CreateWatch implements cachev3.ConfigWatcher. A request with a version is not answered before there is a change; what was sent on
// the stream is known without it.
func (c patient) CreateWatch(r *cachev3.Request, sub cachev3.Subscription, value chan cachev3.Response) (func(), error) {
	if r.GetVersionInfo() == "" && !sub.IsWildcard() {
		r = proto.CloneOf(r)
		r.VersionInfo = "0"
	}
	return c.LinearCache.CreateWatch(r, sub, value)
}

// Set sets the replicas of a cluster, in the order of endpoints. The same list again sends nothing.
func (s *Server) Set(cluster string, endpoints []discover.Endpoint) error {
	assignment, err := assign(cluster, endpoints)
	if err != nil {
		return err
	}
	return s.cache.UpdateResource(cluster, assignment)
}

// Serve serves until Stop.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(l); !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
		return err
	}
	return nil
}

// Stop ends all streams. Envoy keeps the lists that it has, and comes back when there is a server again.
func (s *Server) Stop() { s.grpc.Stop() }

func assign(cluster string, endpoints []discover.Endpoint) (*endpointv3.ClusterLoadAssignment, error) {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: cluster}
	levels := priorities(endpoints)
	for level := range levels {
		a.Endpoints = append(a.Endpoints, &endpointv3.LocalityLbEndpoints{Priority: uint32(level)})
	}
	for _, e := range endpoints {
		address, err := netip.ParseAddrPort(e.Address)
		if err != nil {
			return nil, fmt.Errorf("cluster %s: %w", cluster, err)
		}
		health := corev3.HealthStatus_UNKNOWN // Envoy takes that for healthy; readiness is for the picker
		if !e.Usable {
			health = corev3.HealthStatus_DRAINING
		}
		level, _ := slices.BinarySearch(levels, e.Priority)
		locality := a.Endpoints[min(level, len(levels)-1)]
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointv3.LbEndpoint{
			HealthStatus: health,
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: address.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(address.Port())},
				}}},
			}},
		})
	}
	return a, nil
}

// maxPriority is Envoy's bound.
const maxPriority = 128

// priorities returns the priorities in use, sorted. Envoy gets their indexes, since it requires numbers from 0 without gaps. Those beyond its
// bound share the last one.
func priorities(endpoints []discover.Endpoint) (levels []uint16) {
	for _, e := range endpoints {
		levels = append(levels, e.Priority)
	}
	slices.Sort(levels)
	levels = slices.Compact(levels)
	return levels[:min(len(levels), maxPriority+1)]
}

// logger passes the library's messages to slog; all but warnings and errors are for debugging.
type logger struct{ *slog.Logger }

func (l logger) Debugf(format string, args ...any) { l.Debug("xds: " + fmt.Sprintf(format, args...)) }

func (l logger) Infof(format string, args ...any) { l.Debug("xds: " + fmt.Sprintf(format, args...)) }

func (l logger) Warnf(format string, args ...any) { l.Warn("xds: " + fmt.Sprintf(format, args...)) }

func (l logger) Errorf(format string, args ...any) { l.Error("xds: " + fmt.Sprintf(format, args...)) }
