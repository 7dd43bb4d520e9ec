package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
)

// podOf returns a Pod of the application vllm. Its words: ready, terminating, succeeded, old, an IP address, or label=value.
func podOf(name string, words ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: "models", UID: types.UID("uid-" + name), Labels: map[string]string{"app": "vllm"},
		CreationTimestamp: metav1.Unix(2000, 0),
	}}
	for _, word := range words {
		label, value, isLabel := strings.Cut(word, "=")
		switch {
		case isLabel:
			p.Labels[label] = value
		case word == "ready":
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		case word == "terminating":
			now := metav1.Now()
			p.DeletionTimestamp = &now
		case word == "succeeded":
			p.Status.Phase = corev1.PodSucceeded
		case word == "old":
			p.CreationTimestamp = metav1.Unix(1000, 0)
		default:
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: word})
			p.Status.PodIP = p.Status.PodIPs[0].IP
		}
	}
	return p
}

// poolOf reads an InferencePool in YAML.
func poolOf(t *testing.T, text string) *inferencePool {
	t.Helper()
	object := new(unstructured.Unstructured)
	require.NoError(t, yaml.Unmarshal([]byte(text), &object.Object))
	return readPool(object)
}

const v1Pool = `{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, metadata: {name: llama, namespace: models}, spec: {selector: {matchLabels: {app: vllm}}, targetPorts: [{number: 8000}]}}`

func objectsOf(pool *inferencePool, pods ...*corev1.Pod) objects {
	in := objects{pools: map[string]*inferencePool{}, pods: map[string]*pod{}}
	if pool != nil {
		in.pools[pool.Name] = pool
	}
	for _, p := range pods {
		in.pods[p.Name] = readPod(p)
	}
	return in
}

var fromPool = &replicas.Kubernetes{Namespace: "models", InferencePool: "llama", Group: replicas.PoolGroup, Family: discover.FamilyAuto}

// listed writes endpoints as "address", "address draining", and the engine if there is one.
func listed(a *discover.Assignment) []string {
	list := []string{}
	for _, e := range a.Endpoints {
		text := e.Address
		if !e.Usable {
			text += " draining"
		}
		if e.Engine != "" {
			text += " " + e.Engine
		}
		list = append(list, text)
	}
	return list
}

func TestPods(t *testing.T) {
	pool := poolOf(t, v1Pool)
	ports := poolOf(t, strings.Replace(v1Pool, "[{number: 8000}]", "[{number: 8000}, {number: 8001}]", 1))
	six := *fromPool
	six.Family = discover.FamilyIPv6
	tests := map[string]struct {
		from *replicas.Kubernetes
		in   objects
		want []string
		note string
	}{
		"ready":                             {in: objectsOf(pool, podOf("a", "10.0.0.1", "ready"), podOf("b", "10.0.0.2", "ready")), want: []string{"10.0.0.1:8000", "10.0.0.2:8000"}},
		"each port is a replica":            {in: objectsOf(ports, podOf("a", "10.0.0.1", "ready")), want: []string{"10.0.0.1:8000", "10.0.0.1:8001"}},
		"not ready":                         {in: objectsOf(pool, podOf("a", "10.0.0.1")), want: []string{}},
		"no address":                        {in: objectsOf(pool, podOf("a", "ready")), want: []string{}},
		"ended":                             {in: objectsOf(pool, podOf("a", "10.0.0.1", "ready", "succeeded")), want: []string{}},
		"other labels":                      {in: objectsOf(pool, podOf("a", "10.0.0.1", "ready", "app=other")), want: []string{}, note: "no Pod in namespace models has the labels"},
		"to end":                            {in: objectsOf(pool, podOf("a", "10.0.0.1", "ready", "terminating"), podOf("b", "10.0.0.2", "ready")), want: []string{"10.0.0.1:8000 draining", "10.0.0.2:8000"}},
		"all are to end":                    {in: objectsOf(pool, podOf("a", "10.0.0.1", "ready", "terminating"), podOf("b", "10.0.0.2", "terminating")), want: []string{"10.0.0.1:8000", "10.0.0.2:8000 draining"}},
		"not ready does not count for that": {in: objectsOf(pool, podOf("a", "10.0.0.1", "ready", "terminating"), podOf("b", "10.0.0.2")), want: []string{"10.0.0.1:8000"}},
		"the leader of a group": {in: objectsOf(pool, podOf("a", "10.0.0.1", "ready", "leaderworkerset.sigs.k8s.io/worker-index=0"),
			podOf("b", "10.0.0.2", "ready", "leaderworkerset.sigs.k8s.io/worker-index=1")), want: []string{"10.0.0.1:8000"}},
		"engines": {
			in: objectsOf(pool, podOf("a", "10.0.0.1", "ready", "inference.networking.k8s.io/engine-type=sglang"),
				podOf("b", "10.0.0.2", "ready", "inference.networking.k8s.io/engine-type=sglang", "llm-d.ai/engine-type=vllm")),
			want: []string{"10.0.0.1:8000 sglang", "10.0.0.2:8000 vllm"},
		},
		"IPv6":                                {in: objectsOf(pool, podOf("a", "FD00:0::1", "ready")), want: []string{"[fd00::1]:8000"}},
		"the primary family":                  {in: objectsOf(pool, podOf("a", "fd00::1", "10.0.0.1", "ready")), want: []string{"[fd00::1]:8000"}},
		"a family":                            {from: &six, in: objectsOf(pool, podOf("a", "10.0.0.1", "fd00::1", "ready"), podOf("b", "10.0.0.2", "ready")), want: []string{"[fd00::1]:8000"}, note: "pod b has no ipv6 address"},
		"an address twice, the new one ready": {in: objectsOf(pool, podOf("a", "10.0.0.1", "ready", "terminating"), podOf("b", "10.0.0.1", "ready")), want: []string{"10.0.0.1:8000"}},
		"no pool":                             {in: objectsOf(nil, podOf("a", "10.0.0.1", "ready")), want: []string{}, note: "there is no InferencePool models/llama"},
		"no kind":                             {in: objects{absent: true}, want: []string{}, note: "is not installed"},
		"no selector":                         {in: objectsOf(poolOf(t, strings.Replace(v1Pool, "app: vllm", "", 1)), podOf("a", "10.0.0.1", "ready")), want: []string{}, note: "the selector is empty"},
		"no ports":                            {in: objectsOf(poolOf(t, strings.Replace(v1Pool, "{number: 8000}", "", 1)), podOf("a", "10.0.0.1", "ready")), want: []string{}, note: "no target port"},
		"h2c":                                 {in: objectsOf(poolOf(t, strings.Replace(v1Pool, "targetPorts", "appProtocol: kubernetes.io/h2c, targetPorts", 1)), podOf("a", "10.0.0.1", "ready")), want: []string{"10.0.0.1:8000"}, note: "HTTP/1.1"},
		"a spec of no shape":                  {in: objectsOf(poolOf(t, strings.Replace(v1Pool, "{matchLabels: {app: vllm}}", "3", 1)), podOf("a", "10.0.0.1", "ready")), want: []string{}, note: "the selector is empty"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			from := test.from
			if from == nil {
				from = fromPool
			}
			got := assignment(from, test.in)
			require.Equal(t, test.want, listed(got))
			if test.note == "" {
				require.NoError(t, got.Skipped)
			} else {
				require.ErrorContains(t, got.Skipped, test.note)
			}
		})
	}
}

func TestOldPool(t *testing.T) {
	p := poolOf(t, `{apiVersion: inference.networking.x-k8s.io/v1alpha2, kind: InferencePool, metadata: {name: llama, namespace: models}, spec: {selector: {app: vllm}, targetPortNumber: 9000, extensionRef: {name: picker}}}`)
	require.Equal(t, []uint16{9000}, p.ports)
	require.Equal(t, "picker", p.picker.Name)
	require.Equal(t, []string{"10.0.0.1:9000"}, listed(assignment(fromPool, objectsOf(p, podOf("a", "10.0.0.1", "ready")))))
}

// What a Pod at an address was says nothing about the next one there: they have different identities.
func TestIdentity(t *testing.T) {
	pool := poolOf(t, v1Pool)
	a := podOf("a", "10.0.0.1", "ready", "old")
	started := metav1.Unix(1000, 0)
	a.Status.StartTime = &started
	require.Equal(t, []discover.Endpoint{{Address: "10.0.0.1:8000", Usable: true, Identity: "uid-a", Started: 1000}}, assignment(fromPool, objectsOf(pool, a)).Endpoints)
	b := podOf("b", "10.0.0.1", "ready")
	require.Equal(t, "uid-b", assignment(fromPool, objectsOf(pool, b)).Endpoints[0].Identity)
	require.Equal(t, "uid-b", assignment(fromPool, objectsOf(pool, a, b)).Endpoints[0].Identity, "both are ready: the newer one")
	now := metav1.Now()
	b.DeletionTimestamp = &now
	require.Equal(t, "uid-a", assignment(fromPool, objectsOf(pool, a, b)).Endpoints[0].Identity)
}

var fromService = &replicas.Kubernetes{Namespace: "models", Service: "llama", Family: discover.FamilyAuto}

// sliceOf returns an EndpointSlice of the Service llama with the port http=8000. Each endpoint is an address and words: pod=name, unready, terminating,
// serving.
func sliceOf(name string, kind discoveryv1.AddressType, endpoints ...string) *slice {
	yes, no, port, portName := true, false, int32(8000), "http"
	s := &slice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Namespace: "models", Labels: map[string]string{discoveryv1.LabelServiceName: "llama"}},
		AddressType: kind, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
	}
	for _, text := range endpoints {
		words := strings.Fields(text)
		e := discoveryv1.Endpoint{Addresses: words[:1]}
		for _, word := range words[1:] {
			switch word {
			case "unready":
				e.Conditions.Ready = &no
			case "terminating":
				e.Conditions.Terminating, e.Conditions.Ready = &yes, &no
			case "serving":
				e.Conditions.Serving = &yes
			default:
				of, _ := strings.CutPrefix(word, "pod=")
				e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: of, UID: types.UID("uid-" + of)}
			}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func TestSlices(t *testing.T) {
	const v4, v6 = discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6
	port := func(s *slice, edit func(p *discoveryv1.EndpointPort)) *slice {
		edit(&s.Ports[0])
		return s
	}
	other := sliceOf("x", v4, "10.0.0.9")
	other.Labels[discoveryv1.LabelServiceName] = "other"
	two := sliceOf("x", v4, "10.0.0.1")
	metrics, number := "metrics", int32(9000)
	two.Ports = append(two.Ports, discoveryv1.EndpointPort{Name: &metrics, Port: &number})
	tests := map[string]struct {
		port, family string
		slices       []*slice
		pods         []*corev1.Pod
		want         []string
		note         string
	}{
		"unset is ready":  {slices: []*slice{sliceOf("x", v4, "10.0.0.1")}, want: []string{"10.0.0.1:8000"}},
		"not ready":       {slices: []*slice{sliceOf("x", v4, "10.0.0.1 unready")}, want: []string{}},
		"to end":          {slices: []*slice{sliceOf("x", v4, "10.0.0.1 terminating serving", "10.0.0.2")}, want: []string{"10.0.0.1:8000 draining", "10.0.0.2:8000"}},
		"all are to end":  {slices: []*slice{sliceOf("x", v4, "10.0.0.1 terminating serving", "10.0.0.2 terminating")}, want: []string{"10.0.0.1:8000", "10.0.0.2:8000 draining"}},
		"another Service": {slices: []*slice{other}, want: []string{}, note: "Service models/llama has no EndpointSlice"},
		"in two slices":   {slices: []*slice{sliceOf("x", v4, "10.0.0.1 terminating"), sliceOf("y", v4, "10.0.0.1")}, want: []string{"10.0.0.1:8000"}},
		"a Pod decides, not publishNotReadyAddresses": {
			slices: []*slice{sliceOf("x", v4, "10.0.0.1 pod=a", "10.0.0.2 pod=b", "10.0.0.3 pod=c", "10.0.0.4 pod=gone")},
			pods:   []*corev1.Pod{podOf("a", "10.0.0.1"), podOf("b", "10.0.0.2", "ready", "llm-d.ai/engine-type=sglang"), podOf("c", "10.0.0.3", "ready", "terminating")},
			want:   []string{"10.0.0.2:8000 sglang", "10.0.0.3:8000 draining"},
		},
		"a follower":     {slices: []*slice{sliceOf("x", v4, "10.0.0.1 pod=a")}, pods: []*corev1.Pod{podOf("a", "10.0.0.1", "ready", "leaderworkerset.sigs.k8s.io/worker-index=3")}, want: []string{}},
		"both families":  {slices: []*slice{sliceOf("x", v6, "fd00::1"), sliceOf("y", v4, "10.0.0.1")}, want: []string{"10.0.0.1:8000"}},
		"only IPv6":      {slices: []*slice{sliceOf("x", v6, "FD00::1")}, want: []string{"[fd00::1]:8000"}},
		"a family":       {family: discover.FamilyIPv6, slices: []*slice{sliceOf("x", v6, "fd00::1"), sliceOf("y", v4, "10.0.0.1")}, want: []string{"[fd00::1]:8000"}},
		"host names":     {slices: []*slice{sliceOf("x", discoveryv1.AddressTypeFQDN, "a.example")}, want: []string{}, note: "is of type FQDN"},
		"no IP address":  {slices: []*slice{sliceOf("x", v4, "a.example")}, want: []string{}, note: `"a.example" is not an IP address`},
		"unset port":     {slices: []*slice{port(sliceOf("x", v4, "10.0.0.1"), func(p *discoveryv1.EndpointPort) { p.Port = nil })}, want: []string{}, note: "has no port"},
		"UDP":            {slices: []*slice{port(sliceOf("x", v4, "10.0.0.1"), func(p *discoveryv1.EndpointPort) { udp := corev1.ProtocolUDP; p.Protocol = &udp })}, want: []string{}, note: "has no port"},
		"several ports":  {slices: []*slice{two}, want: []string{}, note: "has several ports"},
		"port by name":   {port: "metrics", slices: []*slice{two}, want: []string{"10.0.0.1:9000"}},
		"port by number": {port: "8000", slices: []*slice{two}, want: []string{"10.0.0.1:8000"}},
		"no such port":   {port: "grpc", slices: []*slice{two}, want: []string{}, note: "has no port grpc"},
		"no port name":   {port: "http", slices: []*slice{port(sliceOf("x", v4, "10.0.0.1"), func(p *discoveryv1.EndpointPort) { p.Name = nil })}, want: []string{}, note: "has no port http"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			from := *fromService
			from.Port = test.port
			if test.family != "" {
				from.Family = test.family
			}
			in := objectsOf(nil, test.pods...)
			in.slices = test.slices
			got := assignment(&from, in)
			require.Equal(t, test.want, listed(got))
			if test.note == "" {
				require.NoError(t, got.Skipped)
			} else {
				require.ErrorContains(t, got.Skipped, test.note)
			}
		})
	}
}

// The memory that a Pod takes stays small, whatever it carries.
func TestPodIsStripped(t *testing.T) {
	p := podOf("a", "10.0.0.1", "ready")
	p.Annotations = map[string]string{"long": strings.Repeat("x", 1000)}
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
	p.Spec.Containers = []corev1.Container{{Name: "server"}}
	before := readPod(p)
	strip(p)
	require.Empty(t, p.Annotations)
	require.Empty(t, p.ManagedFields)
	require.Empty(t, p.Spec.Containers)
	require.Equal(t, before, readPod(p), "nothing is lost that is read")
	require.Equal(t, fmt.Sprint(time.Unix(2000, 0).Unix()), fmt.Sprint(before.CreationTimestamp.Unix()))
}
