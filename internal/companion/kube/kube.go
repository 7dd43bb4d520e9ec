// Package kube finds the replicas of pools in a Kubernetes cluster: the Pods of an InferencePool, or the endpoints of a Service. It watches what the
// pools name and nothing else, and needs the rights for just that.
package kube

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
)

// Options are the settings of a Watcher.
type Options struct {
	// AllNamespaces watches them with one watch for each kind, in place of one for each namespace. It needs a ClusterRole.
	AllNamespaces bool
	Gateway       *Gateway // whose entry in the status of InferencePools is written; nil: none
	Log           *slog.Logger
}

// Watcher keeps the lists of replicas of all pools up to date. Its methods are safe for concurrent use.
type Watcher struct {
	log     *slog.Logger
	pools   []replicas.Pool
	all     bool
	changed chan struct{}

	pods   map[string]*cache[*pod]   // by namespace; "" for all of them, as below
	slices map[string]*cache[*slice] // for pools by Service
	kinds  map[kindKey]*custom[*inferencePool]
	last   map[string]*discover.Assignment // by pool, what was found

	status  *statusWriter // nil: no status is written
	pending chan struct{}
}

type kindKey struct{ group, namespace string }

// New returns a Watcher for those pools that have a source in Kubernetes.
func New(cluster *Cluster, pools []replicas.Pool, o Options) (*Watcher, error) {
	w := &Watcher{
		log: o.Log, all: o.AllNamespaces, changed: make(chan struct{}, 1),
		pods: make(map[string]*cache[*pod]), slices: make(map[string]*cache[*slice]), kinds: make(map[kindKey]*custom[*inferencePool]),
		last: make(map[string]*discover.Assignment), pending: make(chan struct{}, 1),
	}
	if o.Gateway != nil {
		w.status = &statusWriter{gateway: *o.Gateway, client: cluster.dynamic, log: o.Log}
		w.status.gateway.Namespace = cmp.Or(o.Gateway.Namespace, cluster.Namespace, "default")
	}
	services := make(map[string][]string)
	for _, p := range pools {
		if p.Kubernetes == nil {
			continue
		}
		from := *p.Kubernetes
		from.Namespace = cmp.Or(from.Namespace, cluster.Namespace, "default")
		p.Kubernetes = &from
		w.pools = append(w.pools, p)
		at := w.at(from.Namespace)
		if w.pods[at] == nil {
			w.pods[at] = cluster.podsOf(at, w.notify, w.log)
		}
		if from.Service != "" {
			services[at] = append(services[at], from.Service)
		} else if key := (kindKey{from.Group, at}); w.kinds[key] == nil {
			w.kinds[key] = cluster.customOf(poolKinds[from.Group], at, w.notify, w.log)
		}
	}
	for at, names := range services {
		one, err := cluster.slicesOf(at, names, w.notify, w.log)
		if err != nil {
			return nil, err
		}
		w.slices[at] = one
	}
	return w, nil
}

// at returns the namespace that is watched for the objects of one.
func (w *Watcher) at(namespace string) string {
	if w.all {
		return ""
	}
	return namespace
}

func (w *Watcher) notify() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// settleFor is the least time between two looks at what changed: changes come in groups.
const settleFor = 5 * time.Millisecond

// Run calls found with each list of replicas that is new, until ctx ends.
func (w *Watcher) Run(ctx context.Context, found func(pool string, a *discover.Assignment)) {
	var wait sync.WaitGroup
	defer wait.Wait()
	for _, c := range w.pods {
		wait.Go(func() { c.run(ctx) })
	}
	for _, c := range w.slices {
		wait.Go(func() { c.run(ctx) })
	}
	for _, c := range w.kinds {
		wait.Go(func() { c.run(ctx) })
	}
	if w.status != nil {
		wait.Go(func() { w.writeStatus(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		}
		began := time.Now()
		w.look(found)
		select {
		case w.pending <- struct{}{}:
		default:
		}
		select { // a large cluster leaves time for other work
		case <-ctx.Done():
			return
		case <-time.After(max(settleFor, 4*time.Since(began))):
		}
	}
}

// look computes every pool's list from all that is known, and passes on those that changed.
func (w *Watcher) look(found func(pool string, a *discover.Assignment)) {
	for _, p := range w.pools {
		in, ok := w.objects(p.Kubernetes)
		if !ok {
			continue
		}
		a := assignment(p.Kubernetes, in)
		last := w.last[p.Name]
		if text := message(a); last == nil && text != "" || last != nil && text != message(last) {
			w.log.Info("replicas in Kubernetes", "pool", p.Name, "endpoints", len(a.Endpoints), "notes", text)
		}
		w.last[p.Name] = a
		if last == nil || !slices.Equal(last.Endpoints, a.Endpoints) {
			found(p.Name, a)
		}
	}
}

func message(a *discover.Assignment) string {
	if a.Skipped == nil {
		return ""
	}
	return a.Skipped.Error()
}

// objects returns what a pool's list depends on, and reports whether all of it was read.
func (w *Watcher) objects(from *replicas.Kubernetes) (in objects, ok bool) {
	at := w.at(from.Namespace)
	if in.pods, ok = w.pods[at].of(from.Namespace); !ok {
		return in, false
	}
	if from.Service != "" {
		found, ok := w.slices[at].of(from.Namespace)
		in.slices = slices.Collect(maps.Values(found))
		return in, ok
	}
	kind := w.kinds[kindKey{from.Group, at}]
	if kind.absent.Load() {
		in.absent = true
		return in, true
	}
	in.pools, ok = kind.of(from.Namespace)
	return in, ok
}

// Check calls found with the first list of each pool. An error says which pools have none before the time is over.
func (w *Watcher) Check(ctx context.Context, found func(p *replicas.Pool, a *discover.Assignment)) error {
	ctx, cancel := context.WithTimeout(ctx, checkFor)
	defer cancel()
	waits := make(map[string]*replicas.Pool)
	for i := range w.pools {
		waits[w.pools[i].Name] = &w.pools[i]
	}
	w.Run(ctx, func(pool string, _ *discover.Assignment) {
		if p := waits[pool]; p != nil {
			found(p, w.last[pool])
			delete(waits, pool)
		}
		if len(waits) == 0 {
			cancel()
		}
	})
	if len(waits) == 0 {
		return nil
	}
	return errors.New(strings.Join(w.Missing(), "\n"))
}

// checkFor is how long Check waits.
const checkFor = 10 * time.Second

// Missing lists what the pools without a list wait for, sorted.
func (w *Watcher) Missing() []string {
	if w == nil {
		return nil
	}
	var lines []string
	add := func(line string) {
		if line != "" {
			lines = append(lines, "kubernetes: "+line)
		}
	}
	for _, c := range w.pods {
		add(c.missing())
	}
	for _, c := range w.slices {
		add(c.missing())
	}
	for _, c := range w.kinds {
		if !c.absent.Load() {
			add(c.missing())
		}
	}
	slices.Sort(lines)
	return lines
}
