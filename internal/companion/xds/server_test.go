package xds_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointgrpc "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/xds"
)

const endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

func serve(t *testing.T) (*xds.Server, *grpc.ClientConn) {
	s := xds.New(slog.New(slog.NewTextHandler(io.Discard, nil)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		require.NoError(t, <-done)
	})
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return s, conn
}

// stream is what EDS and ADS streams have in common.
type stream interface {
	Send(*discoveryv3.DiscoveryRequest) error
	Recv() (*discoveryv3.DiscoveryResponse, error)
}

// next receives and acknowledges an answer with one assignment, written as ip:port and health.
func next(t *testing.T, s stream, cluster string) (list []string) {
	t.Helper()
	response, err := s.Recv()
	require.NoError(t, err)
	require.NoError(t, s.Send(&discoveryv3.DiscoveryRequest{
		TypeUrl: endpointType, ResourceNames: []string{cluster}, VersionInfo: response.VersionInfo, ResponseNonce: response.Nonce,
	}))
	require.Len(t, response.Resources, 1)
	var a endpointv3.ClusterLoadAssignment
	require.NoError(t, response.Resources[0].UnmarshalTo(&a))
	require.Equal(t, cluster, a.ClusterName)
	for i, locality := range a.Endpoints {
		require.EqualValues(t, i, locality.Priority, "without a gap")
		for _, e := range locality.LbEndpoints {
			require.NoError(t, e.ValidateAll())
			socket := e.GetEndpoint().GetAddress().GetSocketAddress()
			text := net.JoinHostPort(socket.Address, "80")
			require.EqualValues(t, 80, socket.GetPortValue())
			if i > 0 {
				text += fmt.Sprintf(" behind %d", i)
			}
			if e.HealthStatus != corev3.HealthStatus_UNKNOWN {
				text += " " + e.HealthStatus.String()
			}
			list = append(list, text)
		}
	}
	return list
}

func TestStreams(t *testing.T) {
	for name, open := range map[string]func(context.Context, *grpc.ClientConn) (stream, error){
		"EDS": func(ctx context.Context, c *grpc.ClientConn) (stream, error) {
			return endpointgrpc.NewEndpointDiscoveryServiceClient(c).StreamEndpoints(ctx)
		},
		"ADS": func(ctx context.Context, c *grpc.ClientConn) (stream, error) {
			return discoveryv3.NewAggregatedDiscoveryServiceClient(c).StreamAggregatedResources(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, conn := serve(t)
			st, err := open(t.Context(), conn)
			require.NoError(t, err)
			require.NoError(t, st.Send(&discoveryv3.DiscoveryRequest{
				Node: &corev3.Node{Id: "test"}, TypeUrl: endpointType, ResourceNames: []string{"llama"},
			}))
			require.Eventually(t, func() bool { return s.Waiting("llama") == 1 }, 20*time.Second, time.Millisecond)
			// Nothing is known yet, and what comes first is of another cluster: neither is an answer.
			require.NoError(t, s.Set("gemma", nil))
			require.NoError(t, s.Set("llama", []discover.Endpoint{{Address: "10.0.0.1:80", Usable: true}}))
			require.Equal(t, []string{"10.0.0.1:80"}, next(t, st, "llama"))

			require.NoError(t, s.Set("llama", []discover.Endpoint{{Address: "10.0.0.1:80"}, {Address: "[2001:db8::1]:80", Usable: true}}))
			require.Equal(t, []string{"10.0.0.1:80 DRAINING", "[2001:db8::1]:80"}, next(t, st, "llama"))

			require.NoError(t, s.Set("llama", []discover.Endpoint{
				{Address: "10.0.0.1:80", Usable: true, Priority: 20}, {Address: "10.0.0.2:80", Usable: true, Priority: 10}, {Address: "10.0.0.3:80", Priority: 30},
			}))
			require.Equal(t, []string{"10.0.0.2:80", "10.0.0.1:80 behind 1", "10.0.0.3:80 behind 2 DRAINING"}, next(t, st, "llama"))

			var many []discover.Endpoint
			for i := range 200 {
				many = append(many, discover.Endpoint{Address: fmt.Sprintf("10.0.0.%d:80", i), Usable: true, Priority: uint16(i)})
			}
			require.NoError(t, s.Set("llama", many))
			list := next(t, st, "llama")
			require.Equal(t, "10.0.0.199:80 behind 128", list[199], "Envoy has no more")

			require.NoError(t, s.Set("llama", nil))
			require.Empty(t, next(t, st, "llama"))
		})
	}
}

func TestSetErrors(t *testing.T) {
	s, _ := serve(t)
	require.ErrorContains(t, s.Set("llama", []discover.Endpoint{{Address: "replica:80"}}), "cluster llama: ")
}

func TestStopBeforeServe(t *testing.T) {
	s := xds.New(slog.New(slog.DiscardHandler))
	s.Stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, s.Serve(l))
}
