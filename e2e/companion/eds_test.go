// Package companion_test runs the companion with a real Envoy: Envoy gets its replicas from the EDS that the companion
// serves, and Inlet follows the snapshots by deltas.
package companion_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// start runs a program until the test ends, and shows what it printed if the test failed.
func start(t *testing.T, path string, args ...string) (stdout io.Reader) {
	t.Helper()
	cmd := exec.Command(path, args...)
	var log strings.Builder
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(path), log.String())
		}
	})
	return stdout
}

// write replaces a file atomically.
func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

func edsFile(addresses ...string) string {
	var b strings.Builder
	b.WriteString("resources:\n- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  cluster_name: llama\n  endpoints:\n  - lb_endpoints:\n")
	for _, a := range addresses {
		fmt.Fprintf(&b, "    - endpoint: {address: {socket_address: {address: %s, port_value: 80}}}\n", a)
	}
	return b.String()
}

func bootstrap(xds string) string {
	host, port, _ := strings.Cut(xds, ":")
	return fmt.Sprintf(`
node: {id: test, cluster: test}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: companion}}]}
static_resources:
  clusters:
  - name: by-eds
    type: EDS
    eds_cluster_config:
      service_name: llama
      eds_config: {resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: companion}}]}}
  - name: by-delta
    type: EDS
    eds_cluster_config:
      service_name: llama
      eds_config: {resource_api_version: V3, api_config_source: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: companion}}]}}
  - name: by-ads
    type: EDS
    eds_cluster_config: {service_name: fixed, eds_config: {resource_api_version: V3, ads: {}}}
  - name: companion
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: companion
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]
`, host, port)
}

// hosts are the addresses in each of Envoy's clusters.
func hosts(t *testing.T, admin string) map[string][]string {
	t.Helper()
	resp, err := http.Get("http://" + admin + "/clusters")
	require.NoError(t, err)
	defer resp.Body.Close()
	found := map[string][]string{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		cluster, rest, _ := strings.Cut(lines.Text(), "::")
		if host, _, ok := strings.Cut(rest, "::cx_active::"); ok {
			found[cluster] = append(found[cluster], host)
		}
	}
	for _, list := range found {
		slices.Sort(list)
	}
	return found
}

// A replica that is added to a pool, and one that is removed, also changes Envoy's cluster.
func TestEnvoyFollowsTheCompanion(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	root, err := stack.Root()
	require.NoError(t, err)
	require.NoError(t, stack.Build(ctx, root, os.Stderr, stack.CompanionProgram))
	envoy, err := envoybin.Find(ctx, envoybin.Options{Progress: os.Stderr})
	require.NoError(t, err)

	dir := t.TempDir()
	list, config, boot, adminFile := filepath.Join(dir, "eds.yaml"), filepath.Join(dir, "companion.yaml"), filepath.Join(dir, "envoy.yaml"), filepath.Join(dir, "admin")
	write(t, list, edsFile("127.0.0.11"))
	write(t, config, fmt.Sprintf(`
listen: 127.0.0.1:0
serve: {xds: 127.0.0.1:0}
pools: [{name: llama-pool, eds: %q}, {name: fixed, static: ["127.0.0.21:80", "[::1]:80"]}]
`, list))
	lines := bufio.NewScanner(start(t, stack.CompanionProgram.Path(root), "--config", config))
	xds := ""
	for xds == "" && lines.Scan() {
		xds, _ = strings.CutPrefix(lines.Text(), "companion serving EDS on ")
		if xds == lines.Text() {
			xds = ""
		}
	}
	require.NotEmpty(t, xds)

	write(t, boot, bootstrap(xds))
	start(t, envoy, "-c", boot, "--admin-address-path", adminFile, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning")
	var admin string
	until := func(what string, ok func() bool) {
		t.Helper()
		poll := time.NewTicker(20 * time.Millisecond)
		defer poll.Stop()
		for !ok() {
			select {
			case <-ctx.Done():
				require.Fail(t, "not seen: "+what)
			case <-poll.C:
			}
		}
	}
	until("the admin address", func() bool {
		text, err := os.ReadFile(adminFile)
		admin = strings.TrimSpace(string(text))
		return err == nil && admin != ""
	})
	for _, want := range [][]string{
		{"127.0.0.11:80"},
		{"127.0.0.11:80", "127.0.0.12:80"},
		{"127.0.0.12:80"},
		nil,
	} {
		write(t, list, edsFile(addressesOf(want)...))
		until(fmt.Sprint(want), func() bool {
			now := hosts(t, admin)
			return slices.Equal(now["by-eds"], want) && slices.Equal(now["by-delta"], want)
		})
	}
	require.Equal(t, []string{"127.0.0.21:80", "[::1]:80"}, hosts(t, admin)["by-ads"])
}

func addressesOf(list []string) (addresses []string) {
	for _, a := range list {
		addresses = append(addresses, strings.TrimSuffix(a, ":80"))
	}
	return addresses
}
