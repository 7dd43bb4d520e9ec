package kube

import (
	"encoding/json"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/inlet-proxy/inlet/internal/companion/replicas"
)

// poolKinds are the kinds of InferencePools by their API groups.
var poolKinds = map[string]schema.GroupVersionResource{
	replicas.PoolGroup:    {Group: replicas.PoolGroup, Version: "v1", Resource: "inferencepools"},
	replicas.OldPoolGroup: {Group: replicas.OldPoolGroup, Version: "v1alpha2", Resource: "inferencepools"},
}

// inferencePool is what is used of an InferencePool of either group. What may be absent is a pointer: absent and empty differ.
type inferencePool struct {
	metav1.ObjectMeta
	labels   map[string]string // of its Pods
	ports    []uint16
	protocol string // "" is HTTP/1.1
	picker   *pickerRef
	parents  []any // of its status
}

// pickerRef is the reference to an endpoint picker.
type pickerRef struct {
	Group *string `json:"group"`
	Kind  *string `json:"kind"`
	Name  string  `json:"name"`
	Port  *struct {
		Number int `json:"number"`
	} `json:"port"`
}

// h2c is the protocol of a pool whose replicas expect HTTP/2 without TLS.
const h2c = "kubernetes.io/h2c"

// readPool reads an InferencePool. A field that is missing or of another type stays empty: then the pool has no replicas, and a note says so.
func readPool(object *unstructured.Unstructured) *inferencePool {
	p := &inferencePool{ObjectMeta: metav1.ObjectMeta{
		Name: object.GetName(), Namespace: object.GetNamespace(), UID: object.GetUID(), Generation: object.GetGeneration(),
		ResourceVersion: object.GetResourceVersion(), DeletionTimestamp: object.GetDeletionTimestamp(),
	}}
	p.parents, _, _ = unstructured.NestedSlice(object.Object, "status", "parents")
	type portNumber struct {
		Number int `json:"number"`
	}
	if object.GroupVersionKind().Group == replicas.OldPoolGroup {
		var spec struct {
			Selector map[string]string `json:"selector"`
			Port     int               `json:"targetPortNumber"`
			Picker   *pickerRef        `json:"extensionRef"`
		}
		readSpec(object, &spec)
		p.labels, p.picker = spec.Selector, spec.Picker
		p.addPort(spec.Port)
		return p
	}
	var spec struct {
		Selector struct {
			Labels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		Ports    []portNumber `json:"targetPorts"`
		Protocol string       `json:"appProtocol"`
		Picker   *pickerRef   `json:"endpointPickerRef"`
	}
	readSpec(object, &spec)
	p.labels, p.protocol, p.picker = spec.Selector.Labels, spec.Protocol, spec.Picker
	for _, port := range spec.Ports {
		p.addPort(port.Number)
	}
	return p
}

func (p *inferencePool) addPort(number int) {
	if number > 0 && number <= 65535 {
		p.ports = append(p.ports, uint16(number))
	}
}

// readSpec reads an object's spec as far as it can: the API server has checked it against the kind's schema.
func readSpec(object *unstructured.Unstructured, spec any) {
	fields, _, _ := unstructured.NestedMap(object.Object, "spec")
	_ = runtime.DefaultUnstructuredConverter.FromUnstructured(fields, spec)
}

// hasResource reads the answer to a request for the resources of a group and version. A group that does not exist has none.
func hasResource(text []byte, name string, err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(text, &list); err != nil {
		return false, err
	}
	for _, r := range list.APIResources {
		if r.Name == name {
			return true, nil
		}
	}
	return false, nil
}
