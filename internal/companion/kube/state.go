package kube

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
)

// objects are those of one namespace. What follows from them depends on nothing else, and not on their order.
type objects struct {
	pools  map[string]*inferencePool // by name, of the group that is asked for
	absent bool                      // that group is not installed
	pods   map[string]*pod           // by name
	slices []*slice
}

// assignment returns the replicas of a pool. The notes in Skipped say what is left out, and why a pool has none.
func assignment(from *replicas.Kubernetes, in objects) *discover.Assignment {
	var s state
	if from.Service != "" {
		s.ofService(from, in)
	} else {
		s.ofPool(from, in)
	}
	slices.SortFunc(s.notes, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return &discover.Assignment{Endpoints: s.settle(), Skipped: errors.Join(s.notes...)}
}

// candidate is a replica that one object speaks for.
type candidate struct {
	discover.Endpoint
	serving bool  // it still answers, but is to end
	created int64 // when its Pod was
}

type state struct {
	candidates []candidate
	notes      []error
}

func (s *state) notef(format string, args ...any) {
	s.notes = append(s.notes, fmt.Errorf(format, args...))
}

func (s *state) ofPool(from *replicas.Kubernetes, in objects) {
	p := in.pools[from.InferencePool]
	switch {
	case in.absent:
		s.notef("the kind InferencePool of %s is not installed: the pool is empty until it is", from.Group)
		return
	case p == nil || p.DeletionTimestamp != nil:
		s.notef("there is no InferencePool %s/%s of %s: the pool is empty until there is", from.Namespace, from.InferencePool, from.Group)
		return
	case len(p.labels) == 0:
		s.notef("the selector is empty: it selects nothing")
	case len(p.ports) == 0:
		s.notef("there is no target port")
	}
	if p.protocol == h2c {
		s.notef("note: appProtocol is %s, but metrics are requested by HTTP/1.1: replicas that speak only HTTP/2 are never ready", h2c)
	}
	selected := 0
	for _, pod := range in.pods {
		if selects(p.labels, pod) && !pod.follower() {
			selected++
			s.addPod(pod, p.ports, from.Family)
		}
	}
	if selected == 0 && len(p.labels) > 0 {
		s.notef("no Pod in namespace %s has the labels of InferencePool %s", from.Namespace, from.InferencePool)
	}
}

// addPod adds each port of a Pod as a replica. A Pod that is not ready yet is left out, so that its first scrape is when it is; one that is to
// end stays until it has ended, since it may still answer requests.
func (s *state) addPod(p *pod, ports []uint16, family string) {
	if !p.ready && !p.terminating() {
		return
	}
	i := slices.IndexFunc(p.ips, func(ip netip.Addr) bool { return inFamily(ip, family) })
	if i < 0 {
		if len(p.ips) > 0 {
			s.notef("pod %s has no %s address", p.Name, family)
		}
		return
	}
	for _, port := range ports {
		s.candidates = append(s.candidates, candidateOf(p, netip.AddrPortFrom(p.ips[i], port)))
	}
}

func candidateOf(p *pod, address netip.AddrPort) candidate {
	return candidate{
		Endpoint: discover.Endpoint{
			Address: address.String(), Usable: p.ready && !p.terminating(), Engine: p.engine(), Identity: string(p.UID), Started: p.started,
		},
		serving: p.ready && p.terminating(),
		created: p.CreationTimestamp.Unix(),
	}
}

func inFamily(ip netip.Addr, family string) bool {
	switch family {
	case discover.FamilyIPv4:
		return ip.Is4()
	case discover.FamilyIPv6:
		return ip.Is6()
	}
	return true
}

// slice is what is used of an EndpointSlice.
type slice = discoveryv1.EndpointSlice

func (s *state) ofService(from *replicas.Kubernetes, in objects) {
	all := make([]*slice, 0, len(in.slices))
	for _, one := range in.slices {
		if one.Labels[discoveryv1.LabelServiceName] == from.Service && one.DeletionTimestamp == nil {
			all = append(all, one)
		}
	}
	if len(all) == 0 {
		s.notef("Service %s/%s has no EndpointSlice: the pool is empty until it has", from.Namespace, from.Service)
	}
	family := from.Family
	if family == discover.FamilyAuto {
		family = familyOf(all)
	}
	for _, one := range all {
		s.addSlice(from, one, family, in.pods)
	}
}

// familyOf returns the address family of a Service whose slices may be of both: a replica usually has the same addresses in both, so one is
// used.
func familyOf(all []*slice) string {
	if slices.ContainsFunc(all, func(one *slice) bool { return one.AddressType == discoveryv1.AddressTypeIPv4 }) {
		return discover.FamilyIPv4
	}
	return discover.FamilyIPv6
}

func (s *state) addSlice(from *replicas.Kubernetes, one *slice, family string, pods map[string]*pod) {
	switch one.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
	default:
		s.notef("EndpointSlice %s is of type %s: left out", one.Name, one.AddressType)
		return
	}
	if !strings.EqualFold(string(one.AddressType), family) || len(one.Endpoints) == 0 {
		return
	}
	port, err := portOf(one, from.Port)
	if err != nil {
		s.notes = append(s.notes, err)
		return
	}
	for i := range one.Endpoints {
		s.addEndpoint(one, &one.Endpoints[i], port, pods)
	}
}

// portOf returns the port of a slice with a name or number; "" is the only one.
func portOf(one *slice, wanted string) (uint16, error) {
	var found []uint16
	for _, p := range one.Ports {
		if p.Port == nil || *p.Port < 1 || *p.Port > 65535 || p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP {
			continue
		}
		if wanted == "" || p.Name != nil && *p.Name == wanted || strconv.Itoa(int(*p.Port)) == wanted {
			found = append(found, uint16(*p.Port))
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return 0, fmt.Errorf("EndpointSlice %s has several ports: name one", one.Name)
	case wanted == "":
		return 0, fmt.Errorf("EndpointSlice %s has no port: left out", one.Name)
	}
	return 0, fmt.Errorf("EndpointSlice %s has no port %s: left out", one.Name, wanted)
}

// addEndpoint adds an endpoint of a slice. If it is a Pod, that alone says whether it is ready: a Service may publish those that are not.
func (s *state) addEndpoint(one *slice, e *discoveryv1.Endpoint, port uint16, pods map[string]*pod) {
	if len(e.Addresses) == 0 {
		return
	}
	ip, err := netip.ParseAddr(e.Addresses[0]) // the others mean the same endpoint, by the API's definition
	if err != nil {
		s.notef("EndpointSlice %s: %q is not an IP address: left out", one.Name, e.Addresses[0])
		return
	}
	address := netip.AddrPortFrom(ip.Unmap(), port)
	if ref := e.TargetRef; ref != nil && ref.Kind == "Pod" {
		p := pods[ref.Name]
		if p == nil || ref.UID != "" && p.UID != ref.UID || p.follower() || len(p.ips) == 0 || !p.ready && !p.terminating() {
			return
		}
		s.candidates = append(s.candidates, candidateOf(p, address))
		return
	}
	terminating := e.Conditions.Terminating != nil && *e.Conditions.Terminating
	ready := e.Conditions.Ready == nil || *e.Conditions.Ready
	serving := ready
	if e.Conditions.Serving != nil {
		serving = *e.Conditions.Serving
	}
	if ready || terminating {
		s.candidates = append(s.candidates, candidate{
			Endpoint: discover.Endpoint{Address: address.String(), Usable: ready && !terminating}, serving: serving && terminating,
		})
	}
}

// settle returns each address once, sorted: of several Pods that have it, the one that takes requests. If none of all replicas takes new
// requests, those that are to end and still answer do.
func (s *state) settle() []discover.Endpoint {
	slices.SortFunc(s.candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), trueFirst(a.Usable, b.Usable), trueFirst(a.serving, b.serving),
			cmp.Compare(b.created, a.created), cmp.Compare(b.Identity, a.Identity))
	})
	all := slices.CompactFunc(s.candidates, func(a, b candidate) bool { return a.Address == b.Address })
	ending := !slices.ContainsFunc(all, func(c candidate) bool { return c.Usable })
	endpoints := make([]discover.Endpoint, len(all))
	for i, c := range all {
		endpoints[i] = c.Endpoint
		endpoints[i].Usable = c.Usable || ending && c.serving
	}
	return endpoints
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}
