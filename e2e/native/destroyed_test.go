package native_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// holder is a server that responds when it is let.
type holder struct {
	*httptest.Server
	mu   sync.Mutex
	gate *gate
}

// gate holds requests until it is opened.
type gate struct {
	held   int
	opened chan struct{}
}

func newGate() *gate { return &gate{opened: make(chan struct{})} }

func newHolder(t *testing.T, body string) *holder {
	t.Helper()
	h := &holder{gate: newGate()}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		h.mu.Lock()
		h.gate.held++
		opened := h.gate.opened
		h.mu.Unlock()
		<-opened
		w.Header().Set("content-type", "application/json")
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(func() {
		h.release()
		h.Close()
	})
	return h
}

// release lets the held ones go, and holds those that come.
func (h *holder) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.gate.opened)
	h.gate = newGate()
}

func (h *holder) waits(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d calls are open", n), func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.gate.held >= n
	})
}

func (h *holder) address() string { return strings.TrimPrefix(h.URL, "http://") }

// addCluster adds a cluster of one address, like that of the companion.
func addCluster(b *bootstrapv3.Bootstrap, name, address string) {
	all := b.GetStaticResources().GetClusters()
	c := proto.CloneOf(all[len(all)-1])
	c.Name = name
	c.LoadAssignment.ClusterName = name
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.LoadAssignment.Endpoints = []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{lbEndpoint(address)}}}
	b.StaticResources.Clusters = append(all, c)
}

func lbEndpoint(address string) *endpointv3.LbEndpoint {
	at := netip.MustParseAddrPort(address)
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: at.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())},
		}}},
	}}}
}

func guarded(version int) string {
	return fmt.Sprintf(`
filters:
  - bbr: {models: [{name: llama, targets: [{model: version-%d, pool: llama}]}]}
  - guardrail:
      providers: [{name: guard, timeout: 60s, moderations: {cluster: guard}}]
      policies: [{on: request, use: [guard], action: block}]
companion: {cluster: inlet-companion, wait: 100ms}
`, version)
}

// TestDestroyed: configurations go while calls of their exchanges and their long poll of the companion are open; the replies
// come afterwards. Envoy destroys them on its main thread: see TestDestroyedOnWorkers.
func TestDestroyed(t *testing.T) {
	guard, companion := newHolder(t, `{"results":[{"flagged":false,"categories":{},"category_scores":{}}]}`), newHolder(t, `{}`)
	const drain = 3 * time.Second
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, Updatable: true, Chain: guarded(0), Drain: drain, NoCompanion: true, CompanionAddress: companion.address(),
		Pools: []stack.Pool{{Name: "llama", Replicas: 1, Args: []string{"--speed", "0"}}},
		Edit:  func(b *bootstrapv3.Bootstrap) { addCluster(b, "guard", guard.address()) },
	})
	companion.waits(t, 1)
	version := 0
	update := func() {
		version++
		require.NoError(t, s.Update(t.Context(), func(o *stack.Options) { o.Chain = guarded(version) }))
	}
	// held sends requests whose calls stay open.
	held := func(n int) (answers func() []answer) {
		all := make(chan answer, n)
		for range n {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			go func() { all <- do(t.Context(), client, s.URL()+chatPath, chat("llama")) }()
		}
		guard.waits(t, n)
		return func() (got []answer) {
			for range n {
				got = append(got, <-all)
			}
			return got
		}
	}
	served := func() {
		answers := held(1)
		guard.release()
		a := answers()[0]
		require.Equal(t, http.StatusOK, a.status, a)
		require.Equal(t, fmt.Sprintf("version-%d", version), a.header.Get("x-modelsim-model"))
	}
	served()

	t.Run("the reply comes while the listener drains", func(t *testing.T) {
		answers := held(4)
		update()
		guard.release()
		for _, a := range answers() {
			require.NoError(t, a.err)
			require.Equal(t, http.StatusOK, a.status, a)
			require.Equal(t, "version-0", a.header.Get("x-modelsim-model"), "the old configuration decides")
		}
		metric(t, s, 1, "inlet_configurations", "kind", "listener")
		served()
	})
	t.Run("the reply comes when the configuration is gone", func(t *testing.T) {
		answers := held(4)
		update()
		metric(t, s, 1, "inlet_configurations", "kind", "listener")
		for _, a := range answers() {
			require.True(t, a.err != nil || a.status >= 500, "Envoy has cut it: %v", a)
		}
		guard.release()
		companion.release() // also polls of configurations that are gone
		served()
		metric(t, s, 1, "inlet_configurations", "kind", "listener")
	})
	t.Run("Envoy ends", func(t *testing.T) {
		answers := held(2)
		companion.waits(t, 1)
		require.NoError(t, s.EndEnvoy(patience))
		answers()
		guard.release()
		require.Zero(t, logged(t, s, "panic"))
	})
}
