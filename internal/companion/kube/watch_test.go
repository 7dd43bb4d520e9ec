package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
)

// newWatcher returns a Watcher of the pools llama, by InferencePool, and service, by Service, that asks a server at url.
func newWatcher(t require.TestingT, url string, log *slog.Logger, all bool) *Watcher {
	cluster, err := connect(&rest.Config{Host: url}, "models")
	require.NoError(t, err)
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	byPool, byService := *fromPool, *fromService
	byPool.Namespace, byService.Namespace = "", ""
	w, err := New(cluster, []replicas.Pool{
		{Name: "llama", Kubernetes: &byPool}, {Name: "service", Kubernetes: &byService}, {Name: "static", Static: []string{"10.0.0.1:80"}},
	}, Options{AllNamespaces: all, Log: log})
	require.NoError(t, err)
	return w
}

// change is one event of a watch.
type change func(w *Watcher) error

func (w *Watcher) only() (*cache[*pod], *cache[*slice], *custom[*inferencePool]) {
	at := w.at("models")
	return w.pods[at], w.slices[at], w.kinds[kindKey{replicas.PoolGroup, at}]
}

func podIs(p *corev1.Pod) change {
	return func(w *Watcher) error { pods, _, _ := w.only(); return pods.Update(p.DeepCopy()) }
}

func podGone(p *corev1.Pod) change {
	return func(w *Watcher) error { pods, _, _ := w.only(); return pods.Delete(p.DeepCopy()) }
}

// podsAre is a list after a gap in the watch, as an API server's restart makes it: what was deleted meanwhile is just not in it.
func podsAre(list ...*corev1.Pod) change {
	return func(w *Watcher) error {
		pods, _, _ := w.only()
		var objects []any
		for _, p := range list {
			objects = append(objects, p.DeepCopy())
		}
		return pods.Replace(objects, "1")
	}
}

func poolIs(text string) change {
	return func(w *Watcher) error { _, _, kind := w.only(); return kind.Update(objectOf(text)) }
}

func poolGone(text string) change {
	return func(w *Watcher) error { _, _, kind := w.only(); return kind.Delete(objectOf(text)) }
}

func sliceIs(s *slice) change {
	return func(w *Watcher) error { _, slices, _ := w.only(); return slices.Update(s.DeepCopy()) }
}

func objectOf(text string) *unstructured.Unstructured {
	object := new(unstructured.Unstructured)
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		panic(err)
	}
	return object
}

// In whatever order the events of several objects come, with lists in between, the replicas are the same in the end.
func TestEveryOrderEndsAlike(t *testing.T) {
	a, b, c := podOf("a", "10.0.0.1", "ready"), podOf("b", "10.0.0.2"), podOf("c", "10.0.0.2", "ready", "app=other")
	bReady, bEnds := podOf("b", "10.0.0.2", "ready"), podOf("b", "10.0.0.2", "ready", "terminating")
	cMoved := podOf("c", "10.0.0.2", "ready")
	otherPool := strings.Replace(v1Pool, "app: vllm", "app: other", 1)
	sequences := [][]change{
		{podIs(a), podIs(podOf("a", "10.0.0.1")), podIs(a)},
		{podIs(b), podIs(bReady), podIs(bEnds), podGone(bEnds), podIs(bReady), podIs(bEnds)},
		{podIs(c), podIs(cMoved), podGone(cMoved), podIs(cMoved)},
		{poolIs(otherPool), poolIs(v1Pool), poolGone(v1Pool), poolIs(otherPool), poolIs(v1Pool)},
		{sliceIs(sliceOf("x", discoveryv1.AddressTypeIPv4)), sliceIs(sliceOf("x", discoveryv1.AddressTypeIPv4, "10.0.0.1 pod=a", "10.0.0.2 pod=b"))},
	}
	rapid.Check(t, func(t *rapid.T) {
		w := newWatcher(t, "http://127.0.0.1:1", nil, rapid.Bool().Draw(t, "all namespaces"))
		pods, slices, kind := w.only()
		seen := map[string]*discover.Assignment{}
		found := func(pool string, a *discover.Assignment) { seen[pool] = a }
		require.NoError(t, pods.Replace(nil, ""))
		w.look(found)
		require.Empty(t, seen, "not before everything was read")
		require.NoError(t, slices.Replace(nil, ""))
		require.NoError(t, kind.Replace(nil, ""))
		next := make([]int, len(sequences))
		for left := 20; left > 0; left-- {
			i := rapid.IntRange(0, len(sequences)-1).Draw(t, "sequence")
			if next[i] < len(sequences[i]) {
				require.NoError(t, sequences[i][next[i]](w))
				next[i]++
			}
			if rapid.Bool().Draw(t, "look") {
				w.look(found)
			}
		}
		for i, rest := range next {
			for _, one := range sequences[i][rest:] {
				require.NoError(t, one(w))
			}
		}
		if rapid.Bool().Draw(t, "list") {
			require.NoError(t, podsAre(a, bEnds, cMoved)(w))
		}
		w.look(found)
		require.Equal(t, []string{"10.0.0.1:8000", "10.0.0.2:8000"}, listed(seen["llama"]))
		require.Equal(t, "uid-c", seen["llama"].Endpoints[1].Identity)
		require.Equal(t, []string{"10.0.0.1:8000", "10.0.0.2:8000 draining"}, listed(seen["service"]))
	})
}

// A Pod whose deletion was missed is no ghost, and a pool that is gone has no replicas at once.
func TestListAfterGap(t *testing.T) {
	w := newWatcher(t, "http://127.0.0.1:1", nil, false)
	seen := map[string]*discover.Assignment{}
	calls := 0
	look := func() {
		w.look(func(pool string, a *discover.Assignment) {
			seen[pool] = a
			calls++
		})
	}
	a, b := podOf("a", "10.0.0.1", "ready"), podOf("b", "10.0.0.2", "ready")
	_, slices, kind := w.only()
	require.NoError(t, slices.Replace(nil, ""))
	require.NoError(t, kind.Replace([]any{objectOf(v1Pool)}, ""))
	require.NoError(t, podsAre(a, b)(w))
	look()
	require.Equal(t, []string{"10.0.0.1:8000", "10.0.0.2:8000"}, listed(seen["llama"]))
	require.NoError(t, podsAre(b)(w))
	look()
	require.Equal(t, []string{"10.0.0.2:8000"}, listed(seen["llama"]))
	before := calls
	require.NoError(t, podIs(b)(w))
	look()
	require.Equal(t, before, calls, "nothing new")
	require.NoError(t, poolGone(v1Pool)(w))
	look()
	require.Empty(t, seen["llama"].Endpoints)
	kind.absent.Store(true)
	kind.forget()
	look()
	require.ErrorContains(t, w.last["llama"].Skipped, "not installed")
}

// fakeServer answers as an API server that has many Pods and no watch of lists.
type fakeServer struct {
	pods    int
	filler  string
	largest atomic.Int64 // page of Pods
	denied  atomic.Bool
	kinds   atomic.Bool // the kind InferencePool is installed
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	answer := func(status int, object any) {
		text, _ := json.Marshal(object)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(text)
	}
	failed := func(code int, reason metav1.StatusReason, message string) {
		answer(code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: reason, Message: message})
	}
	switch {
	case q.Get("sendInitialEvents") == "true":
		failed(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "sendInitialEvents is forbidden")
	case q.Get("watch") != "":
		w.Header().Set("Content-Type", "application/json")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case strings.HasSuffix(r.URL.Path, "/pods") && f.denied.Load():
		failed(http.StatusForbidden, metav1.StatusReasonForbidden, `User "inlet" cannot list resource "pods"`)
	case strings.HasSuffix(r.URL.Path, "/pods"):
		limit, _ := strconv.Atoi(q.Get("limit"))
		if q.Get("resourceVersion") == "0" || limit == 0 {
			limit = f.pods // as a real one: all of them
		}
		from, _ := strconv.Atoi(q.Get("continue"))
		list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "7"}}
		for i := from; i < min(from+limit, f.pods); i++ {
			list.Items = append(list.Items, *f.pod(i))
		}
		if from+limit < f.pods {
			list.Continue = strconv.Itoa(from + limit)
		}
		f.largest.Store(max(f.largest.Load(), int64(len(list.Items))))
		// As the API server does for clients that accept it: with so many objects JSON takes long.
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		_ = protobuf.NewSerializer(nil, nil).Encode(&list, w)
	case strings.HasSuffix(r.URL.Path, "/endpointslices"):
		answer(http.StatusOK, discoveryv1.EndpointSliceList{TypeMeta: metav1.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "7"}})
	case !f.kinds.Load():
		failed(http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	case strings.HasSuffix(r.URL.Path, "/v1"):
		answer(http.StatusOK, metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "inferencepools"}}})
	default:
		answer(http.StatusOK, map[string]any{
			"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePoolList", "metadata": map[string]any{"resourceVersion": "7"}, "items": []any{objectOf(v1Pool).Object},
		})
	}
}

func (f *fakeServer) pod(i int) *corev1.Pod {
	p := podOf(fmt.Sprintf("llama-deployment-5d8f7c9b6-%05d", i), fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), "ready", "pod-template-hash=5d8f7c9b6", "team=search", "release=2026-11")
	p.Annotations = map[string]string{"filler": f.filler}
	return p
}

// run runs a Watcher until the test ends, and returns what it has found.
func run(t *testing.T, w *Watcher) (found func(pool string) *discover.Assignment) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	seen := map[string]*discover.Assignment{}
	var wait sync.WaitGroup
	wait.Go(func() {
		w.Run(ctx, func(pool string, a *discover.Assignment) {
			mu.Lock()
			defer mu.Unlock()
			seen[pool] = a
		})
	})
	t.Cleanup(func() {
		cancel()
		wait.Wait()
	})
	return func(pool string) *discover.Assignment {
		mu.Lock()
		defer mu.Unlock()
		return seen[pool]
	}
}

// Of tens of thousands of Pods little stays in memory, and never all of them come at once.
func TestMemoryOfManyPods(t *testing.T) {
	const pods = 50_000
	server := httptest.NewServer(&fakeServer{pods: pods, filler: strings.Repeat("x", 500)})
	t.Cleanup(server.Close)
	heap := func() uint64 {
		var m goruntime.MemStats
		goruntime.GC()
		goruntime.GC()
		goruntime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	w := newWatcher(t, server.URL, nil, false)
	all, _, _ := w.only()
	before := heap()
	run(t, w)
	require.Eventually(t, func() bool { return all.missing() == "" }, time.Minute, 10*time.Millisecond)
	kept, _ := all.of("models")
	require.Len(t, kept, pods)
	kept = nil //nolint:ineffassign,wastedassign // the clone is not to be measured
	perPod := int64(heap()-before) / pods
	t.Logf("%d bytes for each Pod", perPod)
	require.Less(t, perPod, int64(1500))
	require.LessOrEqual(t, server.Config.Handler.(*fakeServer).largest.Load(), int64(500))
}

// A kind that is not installed is an empty pool and a message, not a failure; when it comes, the pool has its replicas.
func TestKindInstalledLate(t *testing.T) {
	fake := &fakeServer{pods: 3}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	var log lockedBuffer
	w := newWatcher(t, server.URL, slog.New(slog.NewTextHandler(&log, nil)), false)
	found := run(t, w)
	require.Eventually(t, func() bool { return found("llama") != nil && found("service") != nil }, 10*time.Second, time.Millisecond)
	require.Empty(t, found("llama").Endpoints)
	require.Empty(t, w.Missing())
	require.Contains(t, log.String(), "kind is not installed")
	require.Contains(t, log.String(), "kind=inferencepools.inference.networking.k8s.io")
	fake.kinds.Store(true)
	require.Eventually(t, func() bool { return len(found("llama").Endpoints) == 3 }, 10*time.Second, time.Millisecond)
	require.Contains(t, log.String(), "kind is installed now")
}

// Missing rights are said, and what they hide is not taken for empty.
func TestForbidden(t *testing.T) {
	fake := &fakeServer{pods: 3}
	fake.kinds.Store(true)
	fake.denied.Store(true)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	var log lockedBuffer
	w := newWatcher(t, server.URL, slog.New(slog.NewTextHandler(&log, nil)), false)
	found := run(t, w)
	said := func() bool {
		return strings.Contains(strings.Join(w.Missing(), ""), "RBAC forbids to list and watch pods in namespace models")
	}
	require.Eventually(t, said, 10*time.Second, time.Millisecond)
	require.Nil(t, found("llama"))
	require.Equal(t, 1, strings.Count(log.String(), "RBAC forbids"))
	fake.denied.Store(false)
	require.Eventually(t, func() bool { return found("llama") != nil }, 10*time.Second, time.Millisecond)
	require.Len(t, found("llama").Endpoints, 3)
	require.Contains(t, log.String(), "can list and watch pods in namespace models again")
}

func TestCheck(t *testing.T) {
	fake := &fakeServer{pods: 2}
	fake.kinds.Store(true)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	got := map[string]int{}
	require.NoError(t, newWatcher(t, server.URL, nil, false).Check(t.Context(), func(p *replicas.Pool, a *discover.Assignment) { got[p.Name] = len(a.Endpoints) }))
	require.Equal(t, map[string]int{"llama": 2, "service": 0}, got)
	fake.denied.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorContains(t, newWatcher(t, server.URL, nil, false).Check(ctx, func(*replicas.Pool, *discover.Assignment) {}), "RBAC forbids")
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// An API server that is away changes nothing, and is said once.
func TestServerAway(t *testing.T) {
	fake := &fakeServer{pods: 3}
	fake.kinds.Store(true)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	var log lockedBuffer
	found := run(t, newWatcher(t, server.URL, slog.New(slog.NewTextHandler(&log, nil)), false))
	require.Eventually(t, func() bool { return found("llama") != nil }, 10*time.Second, time.Millisecond)
	require.NoError(t, server.Listener.Close())
	server.CloseClientConnections()
	require.Eventually(t, func() bool {
		return strings.Contains(log.String(), "cannot list or watch pods in namespace models")
	}, 10*time.Second, time.Millisecond)
	require.Len(t, found("llama").Endpoints, 3)
}
