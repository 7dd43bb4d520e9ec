package kube_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/inlet-proxy/inlet/e2e/apiserver"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// servers starts model servers at some addresses with one port, which it returns, and returns a function that writes the address of each.
func servers(t *testing.T, ips ...string) (port int, at func(i int) string) {
	t.Helper()
	port = freePort(t, ips...)
	at = func(i int) string { return net.JoinHostPort(ips[i], strconv.Itoa(port)) }
	for i := range ips {
		server(t, at(i))
	}
	return port, at
}

// While the API server is away the replicas stay, and a Pod that went just then is no ghost: the companion reads all of them again.
func TestAPIServerRestarts(t *testing.T) {
	c := startCluster(t)
	c.install()
	ips := []string{"127.0.2.1", "127.0.2.2", "127.0.2.3"}
	port, at := servers(t, ips...)
	for i, name := range []string{"a", "b"} {
		c.pod(name, "vllm", ips[i])
		c.status(name, ips[i], true)
	}
	c.pool("llama", "vllm", port)
	kubeconfig, err := c.Kubeconfig("admin")
	require.NoError(t, err)
	configuration := fmt.Sprintf("kubernetes: {kubeconfig: %q}\npools: [{name: llama, kubernetes: {inferencePool: llama}}]\n", kubeconfig)
	comp := startCompanion(t, configuration)
	comp.hasReady("llama", at(0), at(1))

	c.Kill()
	until(t, "the failure in the log", func() bool { return strings.Contains(comp.logged(), "cannot list or watch pods in namespace default") })
	require.Equal(t, []string{at(0), at(1)}, comp.ready("llama"))
	require.NoError(t, comp.Pause(t.Context())) // so that it misses the deletion
	require.NoError(t, c.Restart(t.Context()))
	c.remove("b")
	require.NoError(t, comp.Resume())
	comp.hasReady("llama", at(0))
	until(t, "the recovery in the log", func() bool {
		return strings.Contains(comp.logged(), "can list and watch pods in namespace default again")
	})
	c.pod("c", "vllm", ips[2])
	c.status("c", ips[2], true)
	comp.hasReady("llama", at(0), at(2))

	// A companion that starts while the API server is away does not say that there are no replicas.
	c.Kill()
	late := startCompanion(t, configuration)
	until(t, "the failure in the log", func() bool { return strings.Contains(late.logged(), "cannot list or watch pods") })
	status, body := late.get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, string(body), "kubernetes: cannot list or watch pods in namespace default")
	require.Nil(t, late.ready("llama"))
	require.NoError(t, c.Restart(t.Context()))
	late.hasReady("llama", at(0), at(2))
}

// Without the kind InferencePool the other pools work, and the pools by it are empty until it is there. When it is removed they are empty again.
func TestKindComesLate(t *testing.T) {
	c := startCluster(t)
	port, at := servers(t, "127.0.3.1", "127.0.3.2")
	kubeconfig, err := c.Kubeconfig("admin")
	require.NoError(t, err)
	comp := startCompanion(t, fmt.Sprintf(`
kubernetes: {kubeconfig: %q}
pools: [{name: llama, kubernetes: {inferencePool: llama}}, {name: fixed, static: [%q]}]
`, kubeconfig, at(1)))
	comp.hasReady("fixed", at(1))
	comp.hasReady("llama")
	require.Contains(t, comp.logged(), "kind is not installed")
	status, _ := comp.get("/readyz")
	require.Equal(t, http.StatusOK, status)

	c.pod("a", "vllm", "127.0.3.1")
	c.status("a", "127.0.3.1", true)
	c.install()
	c.pool("llama", "vllm", port)
	comp.hasReady("llama", at(0))
	require.NoError(t, c.Resource(definitionKind).Delete(t.Context(), "inferencepools.inference.networking.k8s.io", metav1.DeleteOptions{}))
	comp.hasReady("llama")
	until(t, "that the kind is gone", func() bool { return strings.Count(comp.logged(), "kind is not installed") == 2 })
	c.install()
	c.pool("llama", "vllm", port)
	comp.hasReady("llama", at(0))
	comp.hasReady("fixed", at(1))
}

// The companion needs the rights of the shipped roles and no more, and says which are missing.
func TestRights(t *testing.T) {
	c := startCluster(t, "inlet")
	c.install()
	port, at := servers(t, "127.0.4.1")
	c.pod("a", "vllm", "127.0.4.1")
	c.status("a", "127.0.4.1", true)
	c.pool("llama", "vllm", port)
	c.endpoints("llama", port, "a", "192.0.2.1") // the API server refuses loopback addresses there; nobody answers at this one
	kubeconfig, err := c.Kubeconfig("inlet")
	require.NoError(t, err)
	comp := startCompanion(t, fmt.Sprintf(`
kubernetes: {kubeconfig: %q, gateway: {name: inlet, namespace: infra}}
pools: [{name: llama, kubernetes: {inferencePool: llama}}, {name: service, kubernetes: {service: llama, port: http}}]
`, kubeconfig))
	for _, what := range []string{"pods in namespace default", "inferencepools.inference.networking.k8s.io in namespace default", "endpointslices.discovery.k8s.io in namespace default"} {
		until(t, "that "+what+" are forbidden", func() bool { return strings.Contains(comp.logged(), "RBAC forbids to list and watch "+what) })
	}
	status, body := comp.get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, string(body), `User "inlet" cannot list resource "pods"`)

	c.grant("rbac.yaml")
	comp.hasReady("llama", at(0))
	until(t, "the endpoint of the Service", func() bool {
		_, body := comp.get("/v1/snapshot.json")
		return strings.Contains(string(body), fmt.Sprintf("192.0.2.1:%d", port))
	})
	until(t, "that the status is forbidden", func() bool { return strings.Contains(comp.logged(), "cannot write the status of an InferencePool") })
	c.grant("status-rbac.yaml")
	until(t, "the status", func() bool { return len(c.parents("llama")) == 1 })
}

// The Role for all namespaces is enough for that.
func TestAllNamespaces(t *testing.T) {
	c := startCluster(t, "inlet")
	c.install()
	port, at := servers(t, "127.0.5.1")
	c.pod("a", "vllm", "127.0.5.1")
	c.status("a", "127.0.5.1", true)
	c.pool("llama", "vllm", port)
	c.grant("cluster-rbac.yaml")
	kubeconfig, err := c.Kubeconfig("inlet")
	require.NoError(t, err)
	comp := startCompanion(t, fmt.Sprintf("kubernetes: {kubeconfig: %q, allNamespaces: true}\npools: [{name: llama, kubernetes: {inferencePool: llama}}, {name: none, kubernetes: {inferencePool: llama, namespace: other}}]\n", kubeconfig))
	comp.hasReady("llama", at(0))
	comp.hasReady("none")
	require.NotContains(t, comp.logged(), "RBAC")
}

// Products and keys come from a ConfigMap and a Secret, with rights to these two objects alone.
func TestKeys(t *testing.T) {
	c := startCluster(t, "inlet")
	c.grant("keys-rbac.yaml")
	products := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: inlet-products, namespace: default}\ndata: {all.yaml: \"products: [{name: trial, requests: 5/min}]\"}\n"
	keys := func(names ...string) string {
		var list []string
		for _, name := range names {
			list = append(list, fmt.Sprintf("{name: %s, sha256: \"%x\", products: [trial]}", name, sha256.Sum256([]byte(name))))
		}
		return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: inlet-keys, namespace: default}\nstringData: {keys.yaml: %q}\n", "keys: ["+strings.Join(list, ", ")+"]")
	}
	c.apply(products)
	kubeconfig, err := c.Kubeconfig("inlet")
	require.NoError(t, err)
	comp := startCompanion(t, fmt.Sprintf(`
kubernetes: {kubeconfig: %q}
quota: {kubernetes: {configMap: inlet-products, secret: inlet-keys}}
pools: [{name: fixed, static: ["127.0.0.1:1"]}]
`, kubeconfig))
	until(t, "that the Secret is missing", func() bool { return strings.Contains(comp.logged(), "there is no Secret default/inlet-keys") })
	has := func(n int) func() bool {
		return func() bool {
			_, body := comp.get("/metrics")
			return strings.Contains(string(body), fmt.Sprintf("\ninlet_companion_quota_keys %d\n", n))
		}
	}
	c.apply(keys("ann"))
	until(t, "one key", has(1))
	c.apply(keys("ann", "bob"))
	until(t, "two keys", has(2))
	c.apply(strings.Replace(keys("ann"), "[trial]", "[none]", 1))
	until(t, "that a product is missing", func() bool {
		return strings.Contains(comp.logged(), "the directory of keys cannot be read") && strings.Contains(comp.logged(), `none`)
	})
	require.True(t, has(2)(), "the last good one stays")
	require.NotContains(t, comp.logged(), "RBAC")
}

// Two companions write the status of a pool, where another controller has its own entry: each entry is there once, and then nobody writes again.
func TestTwoWriteStatus(t *testing.T) {
	c := startCluster(t)
	c.install()
	port, at := servers(t, "127.0.6.1")
	c.pod("a", "vllm", "127.0.6.1")
	c.status("a", "127.0.6.1", true)
	c.pool("llama", "vllm", port)
	c.setParents("llama", map[string]any{"controllerName": "other.test/controller", "parentRef": map[string]any{"name": "other"}})
	kubeconfig, err := c.Kubeconfig("admin")
	require.NoError(t, err)
	configuration := fmt.Sprintf("kubernetes: {kubeconfig: %q, gateway: {name: inlet, namespace: infra}}\npools: [{name: llama, kubernetes: {inferencePool: llama}}]\n", kubeconfig)
	first, second := startCompanion(t, configuration), startCompanion(t, configuration)
	first.hasReady("llama", at(0))
	second.hasReady("llama", at(0))
	entries := func() (text string, version string) {
		pool := c.get("llama")
		all, _, err := unstructured.NestedSlice(pool.Object, "status", "parents")
		require.NoError(t, err)
		written, err := json.Marshal(all)
		require.NoError(t, err)
		return string(written), pool.GetResourceVersion()
	}
	until(t, "both entries", func() bool { return len(c.parents("llama")) == 2 })
	text, _ := entries()
	require.Contains(t, text, "other.test/controller")
	require.Contains(t, text, `"reason":"Accepted"`)
	require.Contains(t, text, `"observedGeneration":1`)
	require.Contains(t, text, `"reason":"ResolvedRefs"`)

	// A new generation, again by both at once.
	c.pool("llama", "vllm", port, port+1)
	until(t, "the new generation", func() bool { text, _ := entries(); return strings.Count(text, `"observedGeneration":2`) == 2 })
	require.Len(t, c.parents("llama"), 2)

	// The other controller wipes all entries but its own, as some do.
	c.setParents("llama", map[string]any{"controllerName": "other.test/controller", "parentRef": map[string]any{"name": "other"}})
	until(t, "the entry is back", func() bool { return len(c.parents("llama")) == 2 })
	_, version := entries()
	c.status("a", "127.0.6.1", false) // a change that is no reason to write
	first.hasReady("llama")
	second.hasReady("llama")
	_, after := entries()
	require.Equal(t, version, after, "nothing was written without need")
}

// grant applies a shipped manifest in namespace default, for the user inlet in place of the ServiceAccount.
func (c *cluster) grant(name string) {
	c.t.Helper()
	root, err := stack.Root()
	require.NoError(c.t, err)
	objects, err := apiserver.Objects(filepath.Join(root, "envoy", "gateway", "companion", name))
	require.NoError(c.t, err)
	require.NotEmpty(c.t, objects)
	for _, o := range objects {
		if !strings.HasPrefix(o.GetKind(), "Cluster") {
			o.SetNamespace("default")
		}
		if _, bound := o.Object["subjects"]; bound {
			o.Object["subjects"] = []any{map[string]any{"kind": "User", "name": "inlet", "apiGroup": "rbac.authorization.k8s.io"}}
		}
	}
	require.NoError(c.t, apiserver.Apply(c.t.Context(), c, objects...))
}

// endpoints applies an EndpointSlice of a Service with one Pod, as the controller that this API server lacks would.
func (c *cluster) endpoints(service string, port int, podName, ip string) {
	c.t.Helper()
	c.apply(fmt.Sprintf(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s-1, namespace: default, labels: {kubernetes.io/service-name: %s}}
addressType: IPv4
ports: [{name: http, port: %d}]
endpoints: [{addresses: [%q], conditions: {ready: true}, targetRef: {kind: Pod, name: %s, namespace: default}}]
`, service, service, port, ip, podName))
}

func (c *cluster) get(pool string) *unstructured.Unstructured {
	c.t.Helper()
	object, err := c.Resource(poolKind).Namespace("default").Get(c.t.Context(), pool, metav1.GetOptions{})
	require.NoError(c.t, err)
	return object
}

func (c *cluster) parents(pool string) []any {
	c.t.Helper()
	parents, _, err := unstructured.NestedSlice(c.get(pool).Object, "status", "parents")
	require.NoError(c.t, err)
	return parents
}

// setParents writes the whole status, as a controller does that thinks it is alone.
func (c *cluster) setParents(pool string, parents ...any) {
	c.t.Helper()
	for {
		object := c.get(pool)
		require.NoError(c.t, unstructured.SetNestedSlice(object.Object, parents, "status", "parents"))
		_, err := c.Resource(poolKind).Namespace("default").UpdateStatus(c.t.Context(), object, metav1.UpdateOptions{})
		if err == nil {
			return
		}
		require.ErrorContains(c.t, err, "the object has been modified")
	}
}
