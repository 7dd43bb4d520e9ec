package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// cache has the objects of one kind in one namespace, or in all of them, as a watch keeps it up to date. It holds only what read returns of
// them. It is the store of a client-go Reflector, which gets a whole list after each gap: so a deletion that was missed is none that is forgotten.
type cache[T metav1.Object] struct {
	what    string // for messages: "pods in namespace models"
	list    func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch   func(context.Context, metav1.ListOptions) (watch.Interface, error)
	read    func(object any) T // of what list and watch return
	changed func()
	gone    func() // called when the API server no longer has the kind; may be nil
	log     *slog.Logger

	mu      sync.Mutex
	objects map[string]map[string]T // by namespace and name
	synced  bool
	failure string // why it cannot be read; "" if it can, or was not tried
}

// run follows the objects until ctx ends.
func (c *cache[T]) run(ctx context.Context) {
	quiet := logr.Discard() // what client-go has to say is said here, and once
	reflector := toolscache.NewReflectorWithOptions(&toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			got, err := c.list(ctx, o)
			c.tried(ctx, err)
			return got, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			got, err := c.watch(ctx, o)
			var refused apierrors.APIStatus
			if o.SendInitialEvents == nil || !errors.As(err, &refused) { // else the server has no watch that begins with a list, and a list follows
				c.tried(ctx, err)
			}
			return got, err
		},
	}, nil, c, toolscache.ReflectorOptions{
		Name: c.what, TypeDescription: c.what, Logger: &quiet,
		// The API server is asked again within seconds when it is back, whatever the time that it was away.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 6, Cap: 5 * time.Second},
	})
	reflector.RunWithContext(klog.NewContext(ctx, quiet))
}

// tried notes whether the API server answered, and logs what changed about that.
func (c *cache[T]) tried(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if c.gone != nil && apierrors.IsNotFound(err) {
		c.gone()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.failure
	c.failure = ""
	switch {
	case apierrors.IsForbidden(err):
		c.failure = fmt.Sprintf("RBAC forbids to list and watch %s: %v", c.what, err)
	case err != nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err): // an expired version is nothing but a reason for a list
		c.failure = fmt.Sprintf("cannot list or watch %s: %v", c.what, err)
	}
	switch {
	case c.failure == before:
	case c.failure != "":
		c.log.Warn(c.failure + "; the last state stays")
	default:
		c.log.Info("can list and watch " + c.what + " again")
	}
	if c.failure != before {
		c.changed()
	}
}

// of returns the objects of a namespace by name, and whether all of them were read.
func (c *cache[T]) of(namespace string) (objects map[string]T, synced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.objects[namespace]), c.synced
}

// missing says what the cache still waits for; "" if for nothing.
func (c *cache[T]) missing() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.synced:
		return ""
	case c.failure != "":
		return c.failure
	}
	return c.what + " are not listed yet"
}

// forget empties the cache, as if nothing had been read.
func (c *cache[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.objects, c.synced = nil, false
}

// Transformer implements toolscache.TransformingStore, so that a first list does not gather whole objects either.
func (c *cache[T]) Transformer() toolscache.TransformFunc {
	return func(object any) (any, error) { return c.convert(object), nil }
}

func (c *cache[T]) convert(object any) T {
	if read, ok := object.(T); ok {
		return read
	}
	return c.read(object)
}

// Add implements toolscache.ReflectorStore.
func (c *cache[T]) Add(object any) error {
	read := c.convert(object)
	c.mu.Lock()
	c.put(read)
	c.mu.Unlock()
	c.changed()
	return nil
}

// put sets an object. Callers hold c.mu.
func (c *cache[T]) put(read T) {
	namespace := read.GetNamespace()
	if c.objects == nil {
		c.objects = make(map[string]map[string]T)
	}
	if c.objects[namespace] == nil {
		c.objects[namespace] = make(map[string]T)
	}
	c.objects[namespace][read.GetName()] = read
}

// Update implements toolscache.ReflectorStore.
func (c *cache[T]) Update(object any) error { return c.Add(object) }

// Delete implements toolscache.ReflectorStore.
func (c *cache[T]) Delete(object any) error {
	read := c.convert(object)
	c.mu.Lock()
	delete(c.objects[read.GetNamespace()], read.GetName())
	c.mu.Unlock()
	c.changed()
	return nil
}

// Replace implements toolscache.ReflectorStore: these are all objects that there are.
func (c *cache[T]) Replace(objects []any, _ string) error {
	c.mu.Lock()
	c.objects, c.synced = nil, true
	for _, object := range objects {
		c.put(c.convert(object))
	}
	c.mu.Unlock()
	c.changed()
	return nil
}

// Resync implements toolscache.ReflectorStore.
func (c *cache[T]) Resync() error { return nil }
