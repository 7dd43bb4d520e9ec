package kube

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"

	"github.com/inlet-proxy/inlet/internal/companion/replicas"
)

// Gateway is a Gateway whose requests the pools serve, and the name under which that is reported in the status of InferencePools.
type Gateway struct{ Namespace, Name, Controller string }

// statusWriter writes the entry of one Gateway in the status of InferencePools. Several companions write the same; nobody needs to lead, since
// each write replaces this one entry of the version that was read.
type statusWriter struct {
	gateway Gateway
	client  dynamic.Interface
	log     *slog.Logger
	failed  string // the last error, to be logged once
}

// isOurs reports whether an entry of status.parents is that of the Gateway.
func (g *Gateway) isOurs(entry any, namespace string) bool {
	e, _ := entry.(map[string]any)
	text := func(fields ...string) string {
		s, _, _ := unstructured.NestedString(e, fields...)
		return s
	}
	return text("controllerName") == g.Controller &&
		cmp.Or(text("parentRef", "group"), gatewayGroup) == gatewayGroup && cmp.Or(text("parentRef", "kind"), "Gateway") == "Gateway" &&
		text("parentRef", "name") == g.Name && cmp.Or(text("parentRef", "namespace"), namespace) == g.Namespace
}

const gatewayGroup = "gateway.networking.k8s.io"

// conditions returns what there is to say about a pool.
func conditions(p *inferencePool) []metav1.Condition {
	accepted := metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted", Message: "Inlet picks among the Pods of this pool."}
	resolved := metav1.Condition{Type: "ResolvedRefs", Status: metav1.ConditionTrue, Reason: "ResolvedRefs", Message: "All references are valid."}
	if ref := p.picker; ref != nil {
		accepted.Message = fmt.Sprintf("Inlet picks among the Pods of this pool; the endpoint picker %s is not asked.", ref.Name)
		service := (ref.Kind == nil || *ref.Kind == "Service") && (ref.Group == nil || *ref.Group == "")
		switch {
		case !service:
			resolved.Status, resolved.Reason = metav1.ConditionFalse, "InvalidExtensionRef"
			resolved.Message = "The endpointPickerRef is not a Service."
		case ref.Port == nil:
			resolved.Status, resolved.Reason = metav1.ConditionFalse, "InvalidExtensionRef"
			resolved.Message = "The endpointPickerRef is a Service without a port."
		}
	}
	all := []metav1.Condition{accepted, resolved}
	for i := range all {
		all[i].ObservedGeneration = p.Generation
	}
	return all
}

// merged returns status.parents with the Gateway's entry for the pool as it is now, and reports whether that is a change. What others wrote is
// kept as it is.
func (g *Gateway) merged(p *inferencePool, parents []any, now time.Time) (with []any, changed bool) {
	entry := map[string]any{
		"controllerName": g.Controller,
		"parentRef":      map[string]any{"group": gatewayGroup, "kind": "Gateway", "namespace": g.Namespace, "name": g.Name},
	}
	found := false
	var before []any
	for _, one := range parents {
		if !g.isOurs(one, p.Namespace) {
			with = append(with, one)
			continue
		}
		if found {
			changed = true // ours, twice
			continue
		}
		found = true
		before, _, _ = unstructured.NestedSlice(one.(map[string]any), "conditions")
		with = append(with, entry)
	}
	if !found {
		with, changed = append(with, entry), true
	}
	list, differs := mergeConditions(before, conditions(p), now)
	entry["conditions"] = list
	return with, changed || differs
}

// mergeConditions returns the conditions with the times at which each got its status.
func mergeConditions(before []any, now []metav1.Condition, at time.Time) (list []any, changed bool) {
	changed = len(before) != len(now)
	for i, c := range now {
		since := at.UTC().Format(time.RFC3339)
		same := false
		for _, one := range before {
			old, _ := one.(map[string]any)
			if old["type"] != c.Type {
				continue
			}
			if t, ok := old["lastTransitionTime"].(string); ok && old["status"] == string(c.Status) {
				since = t
			}
			same = old["status"] == string(c.Status) && old["reason"] == c.Reason && old["message"] == c.Message && old["observedGeneration"] == c.ObservedGeneration
		}
		changed = changed || !same
		list = append(list, map[string]any{
			"type": now[i].Type, "status": string(c.Status), "reason": c.Reason, "message": c.Message,
			"observedGeneration": c.ObservedGeneration, "lastTransitionTime": since,
		})
	}
	return list, changed
}

// write brings the entry in the status of a pool up to date, if the last known version needs that.
func (s *statusWriter) write(ctx context.Context, p *inferencePool) {
	if _, changed := s.gateway.merged(p, p.parents, time.Now()); !changed {
		return
	}
	client := s.client.Resource(poolKinds[replicas.PoolGroup]).Namespace(p.Namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		object, err := client.Get(ctx, p.Name, metav1.GetOptions{}) // the cache may be behind, and others write too
		if err != nil {
			return err
		}
		live := readPool(object)
		parents, changed := s.gateway.merged(live, live.parents, time.Now())
		if !changed || live.UID != p.UID {
			return nil
		}
		if err := unstructured.SetNestedSlice(object.Object, parents, "status", "parents"); err != nil {
			return err
		}
		_, err = client.UpdateStatus(ctx, object, metav1.UpdateOptions{})
		return err
	})
	s.logFailure(ctx, p, err)
}

func (s *statusWriter) logFailure(ctx context.Context, p *inferencePool, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != s.failed && text != "" && ctx.Err() == nil {
		s.log.Warn("cannot write the status of an InferencePool", "namespace", p.Namespace, "name", p.Name, "reason", text)
	}
	s.failed = text
}

// statusEvery is how often a status that could not be written is tried again.
const statusEvery = 5 * time.Second

// writeStatus keeps the status of all pools up to date until ctx ends. pending signals that something may have changed.
func (w *Watcher) writeStatus(ctx context.Context) {
	again := time.NewTicker(statusEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.pending:
		case <-again.C:
		}
		for _, p := range w.pools {
			from := p.Kubernetes
			if from.InferencePool == "" || from.Group != replicas.PoolGroup {
				continue
			}
			found, _ := w.kinds[kindKey{from.Group, w.at(from.Namespace)}].of(from.Namespace)
			if one := found[from.InferencePool]; one != nil && one.DeletionTimestamp == nil {
				w.status.write(ctx, one)
			}
		}
	}
}
