package kube

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
)

// place names a namespace in messages; "" is all of them.
func place(namespace string) string {
	if namespace == "" {
		return " in all namespaces"
	}
	return " in namespace " + namespace
}

func (c *Cluster) podsOf(namespace string, changed func(), log *slog.Logger) *cache[*pod] {
	lw := toolscache.NewListWatchFromClient(c.core, "pods", namespace, fields.Everything())
	return &cache[*pod]{
		what: "pods" + place(namespace), changed: changed, log: log,
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			if o.ResourceVersion == "0" {
				o.ResourceVersion = "" // else the API server ignores the size of a page
			}
			list, err := lw.ListWithContext(ctx, o)
			if pods, ok := list.(*corev1.PodList); ok && err == nil {
				for i := range pods.Items {
					strip(&pods.Items[i])
				}
			}
			return list, err
		},
		watch: lw.WatchWithContext,
		read:  func(object any) *pod { return readPod(object.(*corev1.Pod)) },
	}
}

// slicesOf follows the EndpointSlices of some Services.
func (c *Cluster) slicesOf(namespace string, services []string, changed func(), log *slog.Logger) (*cache[*slice], error) {
	selector, err := labels.NewRequirement(discoveryv1.LabelServiceName, "in", services)
	if err != nil {
		return nil, err
	}
	lw := filtered(c.discovery, "endpointslices", namespace, func(o *metav1.ListOptions) { o.LabelSelector = selector.String() })
	return &cache[*slice]{
		what: "endpointslices.discovery.k8s.io" + place(namespace), changed: changed, log: log,
		list: lw.ListWithContext, watch: lw.WatchWithContext,
		read: func(object any) *slice {
			one := object.(*slice)
			one.ManagedFields, one.Annotations = nil, nil
			return one
		},
	}, nil
}

func filtered(client rest.Interface, resource, namespace string, filter func(*metav1.ListOptions)) *toolscache.ListWatch {
	return toolscache.NewFilteredListWatchFromClient(client, resource, namespace, filter)
}

// custom is the cache of a kind that is defined by a CustomResourceDefinition, which may be installed and removed at any time.
type custom[T metav1.Object] struct {
	*cache[T]
	cluster *Cluster
	kind    schema.GroupVersionResource
	absent  atomic.Bool
}

// lookAgain is how often a kind that is not installed is looked for. To watch the definitions would need rights in the whole cluster.
const lookAgain = time.Second

// run follows the objects while their kind is there, until ctx ends.
func (c *custom[T]) run(ctx context.Context) {
	for ctx.Err() == nil {
		there, err := c.cluster.serves(ctx, c.kind)
		c.tried(ctx, err)
		switch {
		case err != nil: // which does not say that it is absent
		case !there:
			if !c.absent.Swap(true) {
				c.log.Warn("kind is not installed; looking for it", "kind", c.kind.GroupResource().String(), "version", c.kind.Version)
				c.changed()
			}
		default:
			if c.absent.Swap(false) {
				c.log.Info("kind is installed now", "kind", c.kind.GroupResource().String(), "version", c.kind.Version)
			}
			c.follow(ctx)
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
	}
}

// follow follows the objects until their kind is gone.
func (c *custom[T]) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.gone = cancel
	c.cache.run(ctx)
	c.forget()
}

func (c *Cluster) customOf(kind schema.GroupVersionResource, namespace string, changed func(), log *slog.Logger) *custom[*inferencePool] {
	client := c.dynamic.Resource(kind).Namespace(namespace)
	return &custom[*inferencePool]{cluster: c, kind: kind, cache: &cache[*inferencePool]{
		what: kind.GroupResource().String() + place(namespace), changed: changed, log: log,
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) { return client.Watch(ctx, o) },
		read:  func(object any) *inferencePool { return readPool(object.(*unstructured.Unstructured)) },
	}}
}
