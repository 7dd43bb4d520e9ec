// Package discover finds the replicas of each pool: in the file that Envoy itself reads, so that proxy and companion have the same list, or
// by a DNS name.
package discover

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
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
	// Identity distinguishes replicas that have the same address one after the other, such as the UID of a Pod; "" if the source has none.
	Identity string
	// Started is when it started, in seconds since 1970, as far as the source knows; 0: unknown.
	Started int64
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
	if n := len(response.Resources); n != 1 {
		return nil, fmt.Errorf("%d resources, want one ClusterLoadAssignment", n)
	}
	cla := &response.Resources[0]
	if cla.Type[strings.LastIndexByte(cla.Type, '/')+1:] != "envoy.config.endpoint.v3.ClusterLoadAssignment" {
		return nil, fmt.Errorf("the resource is %s, want a ClusterLoadAssignment", cmp.Or(cla.Type, "without @type"))
	}
	endpoints, skipped, err := endpointsOf(cla)
	if err == nil && len(endpoints) == 0 {
		err = skipped
	}
	if err != nil {
		return nil, err
	}
	return &Assignment{Cluster: cla.ClusterName, Endpoints: endpoints, Unknown: unknown, Skipped: skipped}, nil
}

// endpointsOf returns the usable endpoints, and an error about those that Envoy accepts but that cannot be reached from here. A file that Envoy
// rejects because of one endpoint is an error, since the two lists would differ.
func endpointsOf(cla *assignment) (found []Endpoint, skipped, err error) {
	for i, locality := range cla.Endpoints {
		for j, lb := range locality.LbEndpoints {
			address, err := lb.address()
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
				Address: address, Usable: lb.HealthStatus.usable(), Engine: engineOf(lb.Metadata), Priority: uint16(min(locality.Priority, math.MaxUint16)),
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
func isFollower(m metadata) bool {
	switch index := m.label(workerIndexLabel).(type) {
	case float64:
		return index != 0
	case string:
		return index != "" && index != "0"
	}
	return false
}

// engineLabels are the labels by which other endpoint pickers know the kind of a model server, the newer first.
var engineLabels = []string{"llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"}

func engineOf(m metadata) string {
	for _, name := range engineLabels {
		if word, _ := m.label(name).(string); word != "" {
			return word
		}
	}
	return ""
}

// errNoSocket is for an endpoint with an address of another kind, such as a pipe.
var errNoSocket = errors.New("no socket_address")

// address writes the address the way Envoy does when it compares override_host's header with its hosts.
func (e *lbEndpoint) address() (string, error) {
	a := e.Endpoint.Address
	if a.Socket == nil {
		return "", errNoSocket
	}
	ip, err := netip.ParseAddr(a.Socket.Address)
	if err != nil {
		return "", fmt.Errorf("%q is not an IP address", a.Socket.Address)
	}
	port := a.Socket.PortValue
	if port == 0 || port > 65535 {
		return "", fmt.Errorf("%s has no port_value in 1..65535", a.Socket.Address)
	}
	return netip.AddrPortFrom(ip, uint16(port)).String(), nil
}
