package kube_test

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// xdsOf returns an address for the EDS of a companion.
func xdsOf(t *testing.T) string { return fmt.Sprintf("127.0.0.1:%d", freePort(t, "127.0.0.1")) }

// Pods and the pool come, change and go while requests flow: none fails, and none goes where it should not.
func TestPodsWhileRequestsFlow(t *testing.T) {
	c := startCluster(t)
	c.install()
	ips := []string{"127.0.1.1", "127.0.1.2", "127.0.1.3"}
	port := freePort(t, ips...)
	at := func(i int) string { return net.JoinHostPort(ips[i], strconv.Itoa(port)) }
	servers := []interface{ Stop() }{server(t, at(0)), server(t, at(1)), server(t, at(2))}
	kubeconfig, err := c.Kubeconfig("admin")
	require.NoError(t, err)
	xds := xdsOf(t)
	comp := startCompanion(t, fmt.Sprintf(`
serve: {xds: %q}
scrape: {interval: 100ms}
kubernetes: {kubeconfig: %q}
pools: [{name: llama, kubernetes: {inferencePool: llama}}]
`, xds, kubeconfig))

	// The Pod before the pool.
	c.pod("a", "vllm", ips[0])
	c.status("a", ips[0], true)
	c.pool("llama", "vllm", port)
	comp.hasReady("llama", at(0))
	envoy := startEnvoy(t, comp, xds)
	var first answer
	until(t, "a first response", func() bool {
		first = ask(&clientOnce, envoy.URL(), "Are you there?")
		return first.failure == ""
	})
	require.Equal(t, at(0), first.replica)
	require.Contains(t, comp.logged(), "replicas in Kubernetes")
	tr := startTraffic(t, envoy.URL(), 8)

	// A Pod after the pool: not before it is ready, and then soon.
	c.pod("b", "vllm", ips[1])
	require.Equal(t, []string{at(0)}, replicasOf(tr.further(100)))
	ready := time.Now()
	c.status("b", ips[1], true)
	t.Logf("a new replica answered a request %s after its Pod was ready", tr.usedAfter(at(1), ready))

	// A Pod that is not ready for a while.
	c.status("a", ips[0], false)
	comp.hasReady("llama", at(1))
	again := time.Now()
	c.status("a", ips[0], true)
	t.Logf("a replica answered a request %s after its Pod was ready again", tr.usedAfter(at(0), again))

	// A Pod that is to end answers until the last moment, but gets no new requests.
	deleted := time.Now()
	c.terminate("b")
	comp.hasReady("llama", at(0))
	require.Equal(t, []string{at(0)}, replicasOf(settled(tr)))
	t.Logf("the last request to a deleted Pod was sent %s after the deletion", tr.lastOf(at(1), deleted))
	servers[1].Stop()
	c.remove("b")
	tr.further(100)

	// A Pod of another application gets nothing until its labels change, and a Pod whose labels change the other way gets nothing more.
	c.pod("c", "other", ips[2])
	c.status("c", ips[2], true)
	require.Equal(t, []string{at(0)}, replicasOf(tr.further(100)))
	changed := time.Now()
	c.label("c", "vllm")
	t.Logf("a replica answered a request %s after its Pod got the labels", tr.usedAfter(at(2), changed))
	c.label("a", "other")
	comp.hasReady("llama", at(2))
	require.Equal(t, []string{at(2)}, replicasOf(settled(tr)))
	require.Contains(t, comp.logged(), "readiness changed")

	tr.end()
	tr.noFailure()
	t.Logf("%d requests", len(tr.all()))

	// The selector changes, and with it every replica; then the pool goes, and comes again with another selector.
	c.pool("llama", "other", port)
	comp.hasReady("llama", at(0))
	require.NoError(t, c.Resource(poolKind).Namespace("default").Delete(t.Context(), "llama", metav1.DeleteOptions{}))
	comp.hasReady("llama")
	c.pool("llama", "vllm", port)
	comp.hasReady("llama", at(2))
}

// settled returns requests that were sent after the proxies know what the companion knows.
func settled(tr *traffic) []answer {
	tr.further(400)
	return tr.further(200)
}
