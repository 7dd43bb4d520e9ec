package kube

import (
	"cmp"
	"net/netip"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pod is what is used of a Pod. A cluster may have tens of thousands of them, so nothing else of them stays in memory.
type pod struct {
	metav1.ObjectMeta // without annotations and managed fields
	ips               []netip.Addr
	ready             bool // its condition Ready
	started           int64
}

// strip removes from a Pod what readPod does not read.
func strip(p *corev1.Pod) {
	status := corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs, StartTime: p.Status.StartTime}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	*p = corev1.Pod{ObjectMeta: stripMeta(&p.ObjectMeta), Status: status}
}

func stripMeta(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Labels: m.Labels,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
	}
}

// readPod returns what is used of a Pod. One that has ended has no addresses.
func readPod(p *corev1.Pod) *pod {
	read := &pod{ObjectMeta: stripMeta(&p.ObjectMeta)}
	read.Labels = shared(p.Labels)
	if p.Status.StartTime != nil {
		read.started = p.Status.StartTime.Unix()
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			read.ready = c.Status == corev1.ConditionTrue
		}
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return read
	}
	texts := []string{p.Status.PodIP}
	if len(p.Status.PodIPs) > 0 {
		texts = texts[:0]
		for _, ip := range p.Status.PodIPs {
			texts = append(texts, ip.IP)
		}
	}
	for _, text := range texts {
		if ip, err := netip.ParseAddr(text); err == nil {
			read.ips = append(read.ips, ip.Unmap())
		}
	}
	return read
}

// shared returns labels whose texts are in memory once for all Pods that have them.
func shared(labels map[string]string) map[string]string {
	own := make(map[string]string, len(labels))
	for name, value := range labels {
		own[unique.Make(name).Value()] = unique.Make(value).Value()
	}
	return own
}

// terminating reports whether the Pod is to end: it takes no new requests, though it may answer its readiness probe until the last moment.
func (p *pod) terminating() bool { return p.DeletionTimestamp != nil }

// follower reports whether the Pod is a member of a group that is one replica, other than its leader, which alone takes requests.
func (p *pod) follower() bool {
	index := p.Labels["leaderworkerset.sigs.k8s.io/worker-index"]
	return index != "" && index != "0"
}

// engine returns the kind of model server by the labels that endpoint pickers use, the newer first; "" if there are none.
func (p *pod) engine() string {
	return cmp.Or(p.Labels["llm-d.ai/engine-type"], p.Labels["inference.networking.k8s.io/engine-type"])
}

// selects reports whether labels select the Pod. No labels select none.
func selects(labels map[string]string, p *pod) bool {
	if len(labels) == 0 {
		return false
	}
	for name, value := range labels {
		if got, ok := p.Labels[name]; !ok || got != value {
			return false
		}
	}
	return true
}
