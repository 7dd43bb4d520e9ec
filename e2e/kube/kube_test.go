// Package kube_test runs the companion with a real kube-apiserver, and a real Envoy that gets its replicas from the companion. Pods are made and
// changed as a kubelet would; the model servers behind them are simulated, at addresses of their own.
package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3" // that startEnvoy's bootstrap names
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/inlet-proxy/inlet/e2e/apiserver"
	"github.com/inlet-proxy/inlet/e2e/kubebin"
	"github.com/inlet-proxy/inlet/e2e/process"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// extension is the version of the Gateway API Inference Extension whose kinds are installed.
const extension = "v1.4.0"

var (
	podKind        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	poolKind       = schema.GroupVersionResource{Group: "inference.networking.k8s.io", Version: "v1", Resource: "inferencepools"}
	definitionKind = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

// cluster is an API server with what tests do in it.
type cluster struct {
	*apiserver.Server
	dynamic.Interface
	t *testing.T
}

// startCluster starts an API server that knows some users without rights.
func startCluster(t *testing.T, users ...string) *cluster {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s, err := apiserver.Start(ctx, t.TempDir(), os.Stderr, users...)
	require.NoError(t, err)
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Log(s.Logs())
		}
		cancel()
	})
	client, err := s.Client()
	require.NoError(t, err)
	return &cluster{Server: s, Interface: client, t: t}
}

// install installs the kinds of the inference extension.
func (c *cluster) install() {
	c.t.Helper()
	dir, err := kubebin.Module(c.t.Context(), "sigs.k8s.io/gateway-api-inference-extension", extension)
	require.NoError(c.t, err)
	objects, err := apiserver.Objects(filepath.Join(dir, "config", "crd", "bases"))
	require.NoError(c.t, err)
	require.NoError(c.t, apiserver.Apply(c.t.Context(), c, objects...))
}

// apply creates or changes an object in YAML.
func (c *cluster) apply(text string) {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "object.yaml")
	require.NoError(c.t, os.WriteFile(file, []byte(text), 0o600))
	objects, err := apiserver.Objects(file)
	require.NoError(c.t, err)
	require.NoError(c.t, apiserver.Apply(c.t.Context(), c, objects...))
}

// pool applies an InferencePool that selects the label app.
func (c *cluster) pool(name, app string, ports ...int) {
	c.t.Helper()
	var list []string
	for _, p := range ports {
		list = append(list, fmt.Sprintf("{number: %d}", p))
	}
	c.apply(fmt.Sprintf(`
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: %s, namespace: default}
spec:
  selector: {matchLabels: {app: %s}}
  targetPorts: [%s]
  endpointPickerRef: {name: inlet-companion, port: {number: 9002}}
`, name, app, strings.Join(list, ", ")))
}

// pod creates a Pod that runs and is not ready.
func (c *cluster) pod(name, app, ip string) {
	c.t.Helper()
	_, err := c.Resource(podKind).Namespace("default").Create(c.t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": name, "labels": map[string]any{"app": app}},
		"spec": map[string]any{
			"nodeName": "node-1", "terminationGracePeriodSeconds": int64(60),
			"containers": []any{map[string]any{"name": "server", "image": "model-server"}},
		},
	}}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	c.status(name, ip, false)
}

// status writes the status of a Pod as its kubelet would.
func (c *cluster) status(name, ip string, ready bool) {
	c.t.Helper()
	word := "False"
	if ready {
		word = "True"
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{
		"phase": "Running", "podIP": ip, "podIPs": []any{map[string]any{"ip": ip}}, "startTime": metav1.Now(),
		"conditions": []any{map[string]any{"type": "Ready", "status": word, "lastTransitionTime": metav1.Now()}},
	}})
	require.NoError(c.t, err)
	_, err = c.Resource(podKind).Namespace("default").Patch(c.t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	require.NoError(c.t, err)
}

// label gives a Pod another label app.
func (c *cluster) label(name, app string) {
	c.t.Helper()
	patch := fmt.Sprintf(`{"metadata": {"labels": {"app": %q}}}`, app)
	_, err := c.Resource(podKind).Namespace("default").Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(c.t, err)
}

// terminate deletes a Pod as a user does: it is to end within its grace period.
func (c *cluster) terminate(name string) {
	c.t.Helper()
	require.NoError(c.t, c.Resource(podKind).Namespace("default").Delete(c.t.Context(), name, metav1.DeleteOptions{}))
}

// remove removes a Pod that has ended, as its kubelet does.
func (c *cluster) remove(name string) {
	c.t.Helper()
	now := int64(0)
	require.NoError(c.t, c.Resource(podKind).Namespace("default").Delete(c.t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
}

// companion is a running companion.
type companion struct {
	process.Server
	log  string
	dir  string
	t    *testing.T
	text string
}

// startCompanion starts a companion with a configuration, in YAML without its address.
func startCompanion(t *testing.T, configuration string) *companion {
	t.Helper()
	root, err := stack.Root()
	require.NoError(t, err)
	require.NoError(t, stack.Build(t.Context(), root, os.Stderr, stack.CompanionProgram))
	c := &companion{dir: t.TempDir(), t: t, text: configuration}
	c.log = filepath.Join(c.dir, "companion.log")
	file := filepath.Join(c.dir, "companion.yaml")
	c.Server = process.Server{
		Command: process.Command{Name: "companion", Path: stack.CompanionProgram.Path(root), Dir: c.dir, Log: c.log},
		Arguments: func(address string) ([]string, error) {
			return []string{"--config", file}, os.WriteFile(file, []byte("listen: "+address+"\n"+c.text), 0o600)
		},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	require.NoError(t, c.Start(ctx))
	t.Cleanup(func() {
		c.Stop()
		cancel()
		if t.Failed() {
			t.Log(c.logged())
		}
	})
	return c
}

func (c *companion) logged() string {
	text, err := os.ReadFile(c.log)
	require.NoError(c.t, err)
	return string(text)
}

// get requests a page, whatever its status.
func (c *companion) get(path string) (status int, body []byte) {
	resp, err := http.Get(c.URL() + path)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	return resp.StatusCode, []byte(readAll(resp))
}

// ready returns the addresses of a pool's replicas that are ready, as the proxies know them, sorted; nil if there is no snapshot.
func (c *companion) ready(pool string) []string {
	status, body := c.get("/v1/snapshot.json")
	if status != http.StatusOK {
		return nil
	}
	var snapshot struct {
		Pools []struct {
			Name      string `json:"name"`
			Endpoints []struct {
				Address string `json:"address"`
				Ready   bool   `json:"ready"`
			} `json:"endpoints"`
		} `json:"pools"`
	}
	require.NoError(c.t, json.Unmarshal(body, &snapshot))
	ready := []string{}
	for _, p := range snapshot.Pools {
		for _, e := range p.Endpoints {
			if p.Name == pool && e.Ready {
				ready = append(ready, e.Address)
			}
		}
	}
	slices.Sort(ready)
	return ready
}

// hasReady waits until exactly these replicas of a pool are ready.
func (c *companion) hasReady(pool string, addresses ...string) {
	c.t.Helper()
	slices.Sort(addresses)
	until(c.t, fmt.Sprint(addresses, " are ready in ", pool), func() bool {
		ready := c.ready(pool)
		return ready != nil && slices.Equal(ready, addresses)
	})
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-limit:
			require.Fail(t, "not seen: "+what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// freePort returns a port that is free at all addresses of the servers.
func freePort(t *testing.T, addresses ...string) int {
	t.Helper()
	port, err := process.FreePort(addresses...)
	require.NoError(t, err)
	return port
}

// server starts a simulated model server at an address.
func server(t *testing.T, address string) *process.Server {
	t.Helper()
	root, err := stack.Root()
	require.NoError(t, err)
	require.NoError(t, stack.Build(t.Context(), root, os.Stderr, stack.ModelSim))
	log := filepath.Join(t.TempDir(), "modelsim.log")
	s := &process.Server{
		Command: process.Command{Name: "modelsim " + address, Path: stack.ModelSim.Path(root), Dir: root, Log: log},
		Arguments: func(string) ([]string, error) {
			return []string{"--name", address, "--listen", address, "--model", "llama-3-8b", "--drain", "5s", "--token-time", "2ms"}, nil
		},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	require.NoError(t, s.Start(ctx))
	t.Cleanup(func() {
		s.Stop()
		cancel()
	})
	return s
}

// startEnvoy starts Envoy with Inlet as a module. It gets the replicas of the pool llama from a companion that serves EDS at xds.
func startEnvoy(t *testing.T, c *companion, xds string) *stack.Stack {
	t.Helper()
	host, port, err := net.SplitHostPort(xds)
	require.NoError(t, err)
	return stack.ForTest(t, stack.Options{
		ABI: stack.Module, NoCompanion: true, CompanionAddress: c.Address(), Pools: []stack.Pool{{Name: "llama"}},
		Chain: "filters: [{bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}}, {picker: {profile: sticky, endpoints: 3}}]\n" +
			"companion: {cluster: inlet-companion}\n",
		Edit: func(b *bootstrapv3.Bootstrap) {
			var more clusterv3.Cluster
			require.NoError(t, stack.UnmarshalYAML([]byte(fmt.Sprintf(`
name: companion-xds
type: STATIC
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
load_assignment: {cluster_name: companion-xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %q, port_value: %s}}}}]}]}
`, host, port)), &more))
			var source clusterv3.Cluster
			require.NoError(t, stack.UnmarshalYAML([]byte(`
name: source
eds_cluster_config:
  eds_config: {resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: companion-xds}}]}}
`), &source))
			for _, one := range b.GetStaticResources().GetClusters() {
				if one.GetName() == "llama" {
					one.EdsClusterConfig = source.GetEdsClusterConfig()
				}
			}
			b.StaticResources.Clusters = append(b.StaticResources.Clusters, &more)
		},
	})
}
