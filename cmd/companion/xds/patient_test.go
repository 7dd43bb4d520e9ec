package xds

import (
	"log/slog"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/stretchr/testify/require"
)

// Who asks for a cluster that is not known waits for it: an answer without it would be an empty cluster to Envoy.
func TestUnknownIsNotEmpty(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	request := &discoveryv3.DiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNames: []string{"llama"}}
	answers := make(chan cachev3.Response, 1)
	_, err := patient{s.cache}.CreateWatch(request, streamv3.NewSotwSubscription(request.ResourceNames, false), answers)
	require.NoError(t, err)
	require.Empty(t, answers)
	require.NoError(t, s.Set("gemma", nil))
	require.Empty(t, answers)
	require.NoError(t, s.Set("llama", nil))
	require.Equal(t, []string{"llama"}, (<-answers).GetRequest().ResourceNames)
	require.Empty(t, request.VersionInfo)
}
