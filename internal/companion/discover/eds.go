// Package discover finds the replicas of each pool: in the file that Envoy itself reads, so that proxy and companion have the same list, or
// by a DNS name.
package discover

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// Endpoint is one replica as its source lists it.
type Endpoint struct {
	Address string // ip:port, an IPv6 address in brackets
	// Usable is false if the source lists the replica as taking no new requests (unhealthy, draining or timed out).
	Usable bool
	// Engine is the kind of model server by its labels; "" if they have none.
	Engine string
	// Priority is its priority: those with the lowest number come first.
	Priority uint16
}

// Assignment is the list of a source.
type Assignment struct {
	Cluster   string     // the Envoy cluster that it is for, "" if unknown
	Endpoints []Endpoint // sorted by address, each address once; may be empty, as Envoy takes it
	// Unknown is the error about fields that this build does not know, "" if there are none. Envoy ignores such fields, so they are not fatal here.
	Unknown string
	// Skipped is the error about endpoints that were skipped because they cannot be used, nil if none.
	Skipped error
}

// Parse reads an EDS file as Envoy's path_config_source does: a DiscoveryResponse in YAML or JSON whose one resource is a
// ClusterLoadAssignment (envoy.config.endpoint.v3).
func Parse(doc []byte) (*Assignment, error) {
	response, unknown, err := readResponse(doc)
	if err != nil {
		return nil, err
	}
	if n := len(response); n != 1 {
		return nil, fmt.Errorf("%d resources, want one ClusterLoadAssignment", n)
	}
	var resource anypb.Any
	if err := protojson.Unmarshal(response[0], &resource); err != nil {
		unknown = plain(err).Error()
		resource.Reset()
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(response[0], &resource); err != nil {
			return nil, fmt.Errorf("not a DiscoveryResponse: %w", plain(err))
		}
	}
	var cla endpointv3.ClusterLoadAssignment
	if err := resource.UnmarshalTo(&cla); err != nil {
		return nil, fmt.Errorf("the resource is %s, want a ClusterLoadAssignment", resource.TypeUrl)
	}
	endpoints, skipped, err := endpointsOf(&cla)
	if err == nil && len(endpoints) == 0 {
		err = skipped
	}
	if err != nil {
		return nil, err
	}
	return &Assignment{Cluster: cla.ClusterName, Endpoints: endpoints, Unknown: unknown, Skipped: skipped}, nil
}

// responseFields are those of a DiscoveryResponse, beside its resources. Its Go type comes with all of gRPC, which is too much for a module in
// Envoy.
var responseFields = []string{"version_info", "canary", "type_url", "nonce", "control_plane", "resource_errors"}

// readResponse reads a DiscoveryResponse, in YAML, of which JSON is a part. It returns the resources in JSON, and the error about a field that
// it does not have, "" if there is none.
func readResponse(doc []byte) (resources []json.RawMessage, unknown string, err error) {
	var tree any
	if err := yaml.Unmarshal(doc, &tree); err != nil {
		return nil, "", err
	}
	response, ok := tree.(map[string]any)
	if !ok {
		return nil, "", errors.New("not a DiscoveryResponse: the document is not a mapping")
	}
	for _, name := range slices.Sorted(maps.Keys(response)) {
		if name == "resources" {
			var text []byte
			if text, err = json.Marshal(response[name]); err == nil {
				err = json.Unmarshal(text, &resources)
			}
		} else if !slices.ContainsFunc(responseFields, func(field string) bool { return name == field || name == camel(field) }) {
			unknown = fmt.Sprintf("unknown field %q", name)
		}
	}
	if err != nil {
		err = errors.New("not a DiscoveryResponse: resources is not a list of messages")
	}
	return resources, unknown, err
}

// camel returns a field's name as JSON has it by default.
func camel(field string) string {
	var b strings.Builder
	for i, word := range strings.Split(field, "_") {
		if i > 0 {
			word = strings.ToUpper(word[:1]) + word[1:]
		}
		b.WriteString(word)
	}
	return b.String()
}

// plain replaces the random no-break space that protobuf puts into its messages so that nobody compares them.
func plain(err error) error {
	return errors.New(strings.ReplaceAll(err.Error(), "\u00a0", " "))
}

// endpointsOf returns the usable endpoints, and an error about those that Envoy accepts but that cannot be reached from here. A file that Envoy
// rejects because of one endpoint is an error, since the two lists would differ.
func endpointsOf(cla *endpointv3.ClusterLoadAssignment) (found []Endpoint, skipped, err error) {
	for i, locality := range cla.Endpoints {
		for j, lb := range locality.LbEndpoints {
			address, err := addressOf(lb.GetEndpoint().GetAddress())
			if err != nil {
				err = fmt.Errorf("endpoints[%d].lb_endpoints[%d]: %w", i, j, err)
			}
			switch {
			case errors.Is(err, errNoSocket):
				skipped = errors.Join(skipped, err)
				continue
			case err != nil:
				return nil, nil, err
			}
			if isFollower(lb.Metadata) {
				continue // its leader takes its requests
			}
			found = append(found, Endpoint{
				Address: address, Usable: usable(lb.HealthStatus), Engine: engineOf(lb.Metadata), Priority: uint16(min(locality.Priority, math.MaxUint16)),
			})
		}
	}
	return merge(found), skipped, nil
}

// merge sorts endpoints and makes those with the same address (for example in two localities) one replica, which is usable if one of them is
// and has the lowest of their priorities.
func merge(found []Endpoint) []Endpoint {
	slices.SortStableFunc(found, func(a, b Endpoint) int { return cmp.Compare(a.Address, b.Address) })
	merged := found[:0]
	for _, e := range found {
		if n := len(merged); n > 0 && merged[n-1].Address == e.Address {
			merged[n-1].Usable = merged[n-1].Usable || e.Usable
			merged[n-1].Priority = min(merged[n-1].Priority, e.Priority)
			merged[n-1].Engine = cmp.Or(merged[n-1].Engine, e.Engine)
			continue
		}
		merged = append(merged, e)
	}
	return merged
}

// workerIndexLabel numbers the hosts of a group that is one replica, as LeaderWorkerSet does. The first one is the leader, which alone takes
// requests and has metrics.
const workerIndexLabel = "leaderworkerset.sigs.k8s.io/worker-index"

// isFollower reports whether an endpoint is a member of a group other than its leader. The index is a string, as labels are, or a number.
func isFollower(m *corev3.Metadata) bool {
	index := label(m, workerIndexLabel)
	return index.GetNumberValue() != 0 || index.GetStringValue() != "" && index.GetStringValue() != "0"
}

// engineLabels are the labels by which other endpoint pickers know the kind of a model server, the newer first.
var engineLabels = []string{"llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"}

func engineOf(m *corev3.Metadata) string {
	for _, name := range engineLabels {
		if word := label(m, name).GetStringValue(); word != "" {
			return word
		}
	}
	return ""
}

// label finds a label in an endpoint's metadata, in any namespace; nil if it is not there.
func label(m *corev3.Metadata, name string) *structpb.Value {
	for _, namespace := range slices.Sorted(maps.Keys(m.GetFilterMetadata())) {
		if value := m.FilterMetadata[namespace].GetFields()[name]; value != nil {
			return value
		}
	}
	return nil
}

// errNoSocket is for an endpoint with an address of another kind, such as a pipe.
var errNoSocket = errors.New("no socket_address")

// addressOf writes an address the way Envoy does when it compares override_host's header with its hosts.
func addressOf(a *corev3.Address) (string, error) {
	socket := a.GetSocketAddress()
	if socket == nil {
		return "", errNoSocket
	}
	ip, err := netip.ParseAddr(socket.Address)
	if err != nil {
		return "", fmt.Errorf("%q is not an IP address", socket.Address)
	}
	port := socket.GetPortValue()
	if port == 0 || port > 65535 {
		return "", fmt.Errorf("%s has no port_value in 1..65535", socket.Address)
	}
	return netip.AddrPortFrom(ip, uint16(port)).String(), nil
}

func usable(s corev3.HealthStatus) bool {
	switch s {
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_DRAINING, corev3.HealthStatus_TIMEOUT:
		return false
	}
	return true
}
