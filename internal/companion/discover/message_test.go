package discover

import (
	"reflect"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// TestFieldsAreEnvoys: the messages here have the fields of Envoy's, all of them and no others.
func TestFieldsAreEnvoys(t *testing.T) {
	for _, m := range []struct {
		envoys proto.Message
		ours   any
		also   string
	}{
		{&discoveryv3.DiscoveryResponse{}, response{}, ""},
		{&endpointv3.ClusterLoadAssignment{}, assignment{}, "@type"},
		{&endpointv3.LocalityLbEndpoints{}, locality{}, ""},
		{&endpointv3.LbEndpoint{}, lbEndpoint{}, ""},
		{&endpointv3.Endpoint{}, lbEndpoint{}.Endpoint, ""},
		{&corev3.Address{}, address{}, ""},
		{&corev3.SocketAddress{}, reflect.New(reflect.TypeOf(address{}.Socket).Elem()).Elem().Interface(), ""},
		{&corev3.Metadata{}, metadata{}, ""},
	} {
		fields := m.envoys.ProtoReflect().Descriptor().Fields()
		var want, have []string
		for i := range fields.Len() {
			want = append(want, string(fields.Get(i).Name()))
		}
		if m.also != "" {
			want = append(want, m.also)
		}
		for i, ours := 0, reflect.TypeOf(m.ours); i < ours.NumField(); i++ {
			have = append(have, ours.Field(i).Tag.Get("json"))
		}
		require.ElementsMatch(t, want, have, "%T", m.envoys)
	}
	words := corev3.HealthStatus_name
	require.Len(t, words, len(healthWords))
	for i, word := range healthWords {
		require.Equal(t, words[int32(i)], word)
	}
}
