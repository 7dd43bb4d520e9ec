package discover_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
)

// eds is an EDS file with the given replicas on port 8000.
func eds(ips ...string) string {
	var b strings.Builder
	b.WriteString(`resources:
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: llama
  endpoints:
  - lb_endpoints:
`)
	for _, ip := range ips {
		fmt.Fprintf(&b, "    - endpoint: {address: {socket_address: {address: %q, port_value: 8000}}}\n", ip)
	}
	return b.String()
}

const one = `- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: llama
`

func TestParse(t *testing.T) {
	usable := func(addresses ...string) (list []discover.Endpoint) {
		for _, a := range addresses {
			list = append(list, discover.Endpoint{Address: a, Usable: true})
		}
		return list
	}
	for name, c := range map[string]struct {
		doc  string
		want []discover.Endpoint
	}{
		"yaml, sorted":   {eds("10.0.0.2", "10.0.0.1"), usable("10.0.0.1:8000", "10.0.0.2:8000")},
		"IPv6 as Envoy":  {eds("2001:DB8:0::1"), usable("[2001:db8::1]:8000")},
		"no endpoints":   {"version_info: v1\nresources:\n" + one, nil},
		"named twice":    {eds("10.0.0.1", "10.0.0.1"), usable("10.0.0.1:8000")},
		"json":           {`{"versionInfo":"v1","resources":[{"@type":"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment","clusterName":"llama","endpoints":[{"lbEndpoints":[{"endpoint":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":8000}}}}]}]}]}`, usable("10.0.0.1:8000")},
		"json with tabs": {"{\n\t\"resources\": [{\n\t\t\"@type\": \"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\"}]\n}", nil},
		"numbers as protobuf has them": {
			"resources:\n" + one + "  endpoints:\n  - priority: \"1\"\n    lb_endpoints: [{healthStatus: 2, endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: \"8e1\"}}}}]\n  - priority: null\n    lbEndpoints: null\n",
			[]discover.Endpoint{{Address: "10.0.0.1:80", Priority: 1}},
		},
		"names that are not fields": {"resources:\n" + one + "  endpoints:\n  - lb_endpoints:\n" + withMetadata(1, "someApp: {llm-d.ai/engine-type: sglang, aB: 1, a_b: 2}"), []discover.Endpoint{{Address: "10.0.0.1:1", Usable: true, Engine: "sglang"}}},
		"fields that are not looked into": {
			"nonce: n\nresources:\n" + one + "  policy: {overprovisioning_factor: 140}\n  endpoints:\n  - locality: {region: a}\n    loadBalancingWeight: 3\n    lb_endpoints: [{loadBalancingWeight: 1, endpoint: {hostname: h, healthCheckConfig: {port_value: 1}, address: {socketAddress: {protocol: TCP, ipv4Compat: false, address: 10.0.0.1, portValue: 1}}}}]\n",
			usable("10.0.0.1:1"),
		},
		"localities": {
			"resources:\n" + one + "  endpoints:\n  - locality: {zone: a}\n    lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 1}}}}]\n  - priority: 1\n    lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.2, port_value: 2}}}}]\n",
			[]discover.Endpoint{{Address: "10.0.0.1:1", Usable: true}, {Address: "10.0.0.2:2", Usable: true, Priority: 1}},
		},
		"in two priorities": {
			"resources:\n" + one + "  endpoints:\n  - priority: 2\n    lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 1}}}}]\n  - priority: 1\n    lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 1}}}}]\n",
			[]discover.Endpoint{{Address: "10.0.0.1:1", Usable: true, Priority: 1}},
		},
		"unhealthy hosts": {"resources:\n" + one + "  endpoints:\n  - lb_endpoints:\n" + withHealth("UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"), []discover.Endpoint{{Address: "10.0.0.0:1", Usable: true}, {Address: "10.0.0.1:1", Usable: true}, {Address: "10.0.0.2:1", Usable: false}, {Address: "10.0.0.3:1", Usable: false}, {Address: "10.0.0.4:1", Usable: false}, {Address: "10.0.0.5:1", Usable: true}}},
		"groups by their leader": {
			"resources:\n" + one + "  endpoints:\n  - lb_endpoints:\n" +
				withMetadata(1, `k8s: {leaderworkerset.sigs.k8s.io/name: big, leaderworkerset.sigs.k8s.io/worker-index: "0"}`) +
				withMetadata(2, `k8s: {leaderworkerset.sigs.k8s.io/name: big, leaderworkerset.sigs.k8s.io/worker-index: "1"}`) +
				withMetadata(3, `k8s: {leaderworkerset.sigs.k8s.io/worker-index: 0}`) +
				withMetadata(4, `k8s: {leaderworkerset.sigs.k8s.io/worker-index: 3}`) +
				withMetadata(5, `k8s: {app: big}`),
			usable("10.0.0.1:1", "10.0.0.1:3", "10.0.0.1:5"),
		},
		"engines": {
			"resources:\n" + one + "  endpoints:\n  - lb_endpoints:\n" +
				withMetadata(1, "envoy.lb: {stage: prod}, x: {llm-d.ai/engine-type: sglang}") +
				withMetadata(2, "envoy.lb: {inference.networking.k8s.io/engine-type: trtllm-serve}") +
				withMetadata(3, "a: {inference.networking.k8s.io/engine-type: vllm}, b: {llm-d.ai/engine-type: triton}") +
				withMetadata(4, "a: {llm-d.ai/engine-type: 7}"),
			[]discover.Endpoint{
				{Address: "10.0.0.1:1", Usable: true, Engine: "sglang"},
				{Address: "10.0.0.1:2", Usable: true, Engine: "trtllm-serve"},
				{Address: "10.0.0.1:3", Usable: true, Engine: "triton"},
				{Address: "10.0.0.1:4", Usable: true},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := discover.Parse([]byte(c.doc))
			require.NoError(t, err)
			require.Empty(t, got.Unknown)
			require.ElementsMatch(t, c.want, got.Endpoints)
			require.IsIncreasing(t, append([]string{""}, addresses(got)...))
		})
	}
}

func withHealth(states ...string) string {
	var b strings.Builder
	for i, s := range states {
		fmt.Fprintf(&b, "    - {health_status: %s, endpoint: {address: {socket_address: {address: 10.0.0.%d, port_value: 1}}}}\n", s, i)
	}
	return b.String()
}

func withMetadata(port int, metadata string) string {
	return fmt.Sprintf("    - {metadata: {filter_metadata: {%s}}, endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: %d}}}}\n", metadata, port)
}

func addresses(a *discover.Assignment) (list []string) {
	for _, e := range a.Endpoints {
		list = append(list, e.Address)
	}
	return list
}

// Envoy takes an endpoint with a pipe, which nobody can reach from here: the others are there. A file that Envoy refuses is refused.
func TestEndpointsThatAreLeftOut(t *testing.T) {
	pipe := "    - endpoint: {address: {pipe: {path: /run/x}}}\n"
	got, err := discover.Parse([]byte(eds("10.0.0.1") + pipe))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1:8000"}, addresses(got))
	require.EqualError(t, got.Skipped, "endpoints[0].lb_endpoints[1]: no socket_address")
	_, err = discover.Parse([]byte(eds("replica.example", "10.0.0.1") + pipe))
	require.EqualError(t, err, `endpoints[0].lb_endpoints[0]: "replica.example" is not an IP address`)

	path := filepath.Join(t.TempDir(), "llama.yaml")
	write(t, path, eds("10.0.0.1")+pipe)
	w := startWatch(t, path)
	require.EqualError(t, <-w.failed, "endpoints[0].lb_endpoints[1]: no socket_address")
	require.Equal(t, []string{"10.0.0.1:8000"}, <-w.loaded)
	write(t, path+".new", "resources:\n"+one)
	require.NoError(t, os.Rename(path+".new", path))
	require.Empty(t, <-w.loaded, "an empty list is one")
}

// Envoy takes a file with fields that it does not know; so it is taken here, and said.
func TestUnknownFieldsAreSaidAndIgnored(t *testing.T) {
	got, err := discover.Parse([]byte(eds("10.0.0.1") + "  colour: blue\n"))
	require.NoError(t, err)
	require.Contains(t, got.Unknown, `unknown field "colour"`)
	require.Equal(t, []string{"10.0.0.1:8000"}, addresses(got))
	require.Equal(t, "llama", got.Cluster)

	got, err = discover.Parse([]byte("version_info: a\ntypeUrl: b\ncolour: blue\n" + eds("10.0.0.1")))
	require.NoError(t, err)
	require.Contains(t, got.Unknown, `unknown field "colour"`)
}

func TestParseErrors(t *testing.T) {
	for name, c := range map[string]struct{ doc, want string }{
		"empty":          {"", "not a DiscoveryResponse: the document is not a mapping"},
		"not yaml":       {"a: [", "yaml: line 1: did not find expected node content"},
		"a list":         {"- a", "not a DiscoveryResponse: the document is not a mapping"},
		"wrong type":     {"resources: 3", "not a DiscoveryResponse: json: cannot unmarshal number into Go struct field response.resources"},
		"no resources":   {"resources: []", "0 resources, want one ClusterLoadAssignment"},
		"two resources":  {"resources:\n" + one + one, "2 resources, want one ClusterLoadAssignment"},
		"a cluster":      {"resources:\n- \"@type\": type.googleapis.com/google.protobuf.Empty\n", "the resource is type.googleapis.com/google.protobuf.Empty, want a ClusterLoadAssignment"},
		"unknown type":   {"resources:\n- \"@type\": type.googleapis.com/acme.Thing\n", "the resource is type.googleapis.com/acme.Thing, want a ClusterLoadAssignment"},
		"a host name":    {eds("10.0.0.1", "replica.example"), `endpoints[0].lb_endpoints[1]: "replica.example" is not an IP address`},
		"no type":        {"resources: [{cluster_name: a}]", "the resource is without @type, want a ClusterLoadAssignment"},
		"a field twice":  {"resources:\n" + one + "  clusterName: b\n", `not a DiscoveryResponse: field "cluster_name" is there twice`},
		"a port as word": {strings.ReplaceAll(eds("10.0.0.1"), "8000", "http"), `"http" is not a number between 0 and 4294967295`},
		"half a port":    {strings.ReplaceAll(eds("10.0.0.1"), "8000", "80.5"), `80.5 is not a number`},
		"another health": {"resources:\n" + one + "  endpoints:\n  - lb_endpoints:\n" + withHealth("FINE"), `"FINE" is not a health_status`},
		"no port":        {strings.ReplaceAll(eds("10.0.0.1"), ", port_value: 8000", ""), "endpoints[0].lb_endpoints[0]: 10.0.0.1 has no port_value in 1..65535"},
		"port too large": {strings.ReplaceAll(eds("10.0.0.1"), "8000", "80000"), "endpoints[0].lb_endpoints[0]: 10.0.0.1 has no port_value in 1..65535"},
		"a pipe":         {"resources:\n" + one + "  endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /run/x}}}}]}]\n", "endpoints[0].lb_endpoints[0]: no socket_address"},
		"no endpoint":    {"resources:\n" + one + "  endpoints: [{lb_endpoints: [{}]}]\n", "endpoints[0].lb_endpoints[0]: no socket_address"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := discover.Parse([]byte(c.doc))
			require.ErrorContains(t, err, c.want)
		})
	}
}

// watch runs Watch on one file and hands out what it calls with, in order.
type watch struct {
	loaded chan []string
	failed chan error
	log    *lockedBuffer
}

func startWatch(t *testing.T, path string) *watch {
	w := &watch{loaded: make(chan []string), failed: make(chan error), log: new(lockedBuffer)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- discover.Watch(ctx, []discover.File{{Pool: "llama", Path: path}}, slog.New(slog.NewTextHandler(w.log, nil)),
			func(_ string, a *discover.Assignment) {
				select {
				case w.loaded <- addresses(a):
				case <-ctx.Done():
				}
			},
			func(_ string, err error) {
				select {
				case w.failed <- err:
				case <-ctx.Done():
				}
			})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return w
}

// next returns the next list. On a busy machine a file that is written in place may be read in between, and be malformed then.
func (w *watch) next() []string {
	for {
		select {
		case list := <-w.loaded:
			return list
		case <-w.failed:
		}
	}
}

// failure waits for an error with this text.
func (w *watch) failure(text string) {
	for err := range w.failed {
		if strings.Contains(err.Error(), text) {
			return
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// Nothing is kept where there was nothing.
func TestNoListYet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "llama.yaml")
	w := startWatch(t, path)
	w.failure("no such file")
	require.Contains(t, w.log.String(), "there is no list yet")
	require.NotContains(t, w.log.String(), "keeping")
	write(t, path, eds("10.0.0.1"))
	require.Equal(t, []string{"10.0.0.1:8000"}, w.next())
}

func TestWatchChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "llama.yaml")
	write(t, path, eds("10.0.0.1"))
	w := startWatch(t, path)
	require.Equal(t, []string{"10.0.0.1:8000"}, w.next())

	write(t, path, eds("10.0.0.1", "10.0.0.2")) // in place
	require.Equal(t, []string{"10.0.0.1:8000", "10.0.0.2:8000"}, w.next())

	for i := range 3 { // by rename, again and again: a watch on the file itself would be lost at the first
		write(t, path+".new", eds(fmt.Sprintf("10.0.1.%d", i)))
		require.NoError(t, os.Rename(path+".new", path))
		require.Equal(t, []string{fmt.Sprintf("10.0.1.%d:8000", i)}, w.next())
	}

	write(t, path, "resources: [")
	w.failure("yaml: ")
	require.Contains(t, w.log.String(), "keeping the last good list")
	require.Contains(t, w.log.String(), "path="+path)
	require.Contains(t, w.log.String(), `reason="yaml: `)

	require.NoError(t, os.Remove(path))
	w.failure("no such file")

	write(t, path, eds("10.0.0.9"))
	require.Equal(t, []string{"10.0.0.9:8000"}, w.next())
}

// The same list again after it was broken is reported again, so that the listener knows that the file is good.
func TestWatchRecovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "llama.yaml")
	write(t, path, "nothing")
	w := startWatch(t, path)
	w.failure("not a mapping")
	write(t, path, eds("10.0.0.1"))
	require.Equal(t, []string{"10.0.0.1:8000"}, w.next())
	write(t, path, "nothing")
	w.failure("not a mapping")
	write(t, path, eds("10.0.0.1"))
	require.Equal(t, []string{"10.0.0.1:8000"}, w.next())
}

// A Kubernetes volume: the file is a link through "..data", a link to a directory that is swapped by rename.
func TestWatchKubernetesVolume(t *testing.T) {
	dir := t.TempDir()
	version := func(n int, content string) {
		name := fmt.Sprintf("..v%d", n)
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		write(t, filepath.Join(dir, name, "llama.yaml"), content)
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	}
	version(1, eds("10.0.0.1"))
	path := filepath.Join(dir, "llama.yaml")
	require.NoError(t, os.Symlink(filepath.Join("..data", "llama.yaml"), path))
	w := startWatch(t, path)
	require.Equal(t, []string{"10.0.0.1:8000"}, w.next())
	version(2, eds("10.0.0.2"))
	require.Equal(t, []string{"10.0.0.2:8000"}, w.next())
}

// A directory that comes later is found without an event.
func TestWatchDirectoryThatComesLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "llama.yaml")
	w := startWatch(t, path)
	w.failure("no such file")
	require.NoError(t, os.Mkdir(dir, 0o700))
	write(t, path, eds("10.0.0.1"))
	require.Equal(t, []string{"10.0.0.1:8000"}, w.next())
}

func FuzzParse(f *testing.F) {
	f.Add(eds("10.0.0.1", "::1"))
	f.Add("resources:\n" + one)
	f.Add(`{"resources":[{"@type":"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"}]}`)
	f.Fuzz(func(t *testing.T, doc string) {
		if a, err := discover.Parse([]byte(doc)); err == nil {
			require.NotNil(t, a)
		}
	})
}
