package e2e_test

import (
	"net/http"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	envoywasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// faultyChain is the shipped chain with the probe, which fails on demand.
const faultyChain = `
filters:
  - bbr:
      models:
        - {name: llama, targets: [{model: llama-3-8b, pool: llama}]}
        - {name: gemma, targets: [{pool: gemma}]}
  - probe: {needs: [request], failureMode: FailClosed}
  - picker: {profile: least-request, endpoints: 3}
companion: {cluster: inlet-companion}
`

// faultyChainOpen has only a filter that fails open.
const faultyChainOpen = `
filters: [{probe: {failureMode: FailOpen}}]
controlHeaders: trust
`

// TestFaults breaks Inlet while Envoy serves.
func TestFaults(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Workers: 2, Plugin: plugins[abi].probed, Chain: faultyChain, Updatable: true,
				Pools: []stack.Pool{ // llama responds within about 10 ms, so that there always are requests in progress
					{Name: "llama", Replicas: 2, Args: []string{"--model", "llama-3-8b", "--speed", "5"}},
					{Name: "gemma", Replicas: 1, Args: []string{"--model", "gemma", "--speed", "0"}},
				},
			})
			waitForPicks(t, s)
			t.Run("a bad update is refused and the old chain keeps serving", func(t *testing.T) { testBadUpdate(t, s) })
			t.Run("a panic costs one request", func(t *testing.T) { testPanic(t, s) })
			if abi == stack.Wasm { // a fault that cannot be recovered ends the process, and Envoy with it
				t.Run("a dead VM is replaced", func(t *testing.T) { testTrap(t, s) })
			}
			t.Run("failed open, forged headers go nowhere", func(t *testing.T) { testFailedOpen(t, s, abi) })
		})
	}
}

// testBadUpdate: Envoy applies an update completely or not at all.
func testBadUpdate(t *testing.T, s *stack.Stack) {
	answers := underLoad(t, s, 4, func(l *load) {
		err := s.Update(t.Context(), func(o *stack.Options) { o.Chain = threeMistakes })
		var refused *stack.Refused
		require.ErrorAs(t, err, &refused)
		for _, mistake := range mistakesFound {
			require.Contains(t, refused.Details, mistake)
		}
		l.more(200)
	})
	require.Empty(t, failures(answers))
}

// testPanic: a panic in a filter that fails closed refuses its own request, and no
// other.
func testPanic(t *testing.T, s *stack.Stack) {
	const panics = 20
	pid := s.EnvoyPID()
	answers := underLoad(t, s, 4, func(l *load) {
		for range panics {
			a := post(t.Context(), s, chatPath, smallChat, "x-probe-panic", "request")
			require.NoError(t, a.err)
			require.Equal(t, http.StatusInternalServerError, a.status)
			require.Equal(t, "internal_error", a.header.Get("x-inlet-reason"))
		}
	})
	require.Empty(t, failures(answers))
	require.Equal(t, pid, s.EnvoyPID())
	m, err := s.Metrics(t.Context())
	require.NoError(t, err)
	require.InDelta(t, panics, m.Sum("inlet_filter_failure_total", "filter", "probe", "failure_mode", "FailClosed"), 0)
}

// testTrap: a VM that crashes loses the requests that it holds. Those of the other
// worker continue, and the VM is replaced by the time of the next request.
func testTrap(t *testing.T, s *stack.Stack) {
	const clients, deaths = 8, 6
	answers := underLoad(t, s, clients, func(l *load) {
		for range deaths {
			earlier := l.lost()
			died := time.Now()
			a := post(t.Context(), s, chatPath, smallChat, "x-probe-trap", "request", "connection", "close") // on any worker
			require.NoError(t, a.err)
			require.Equal(t, http.StatusServiceUnavailable, a.status)
			l.more(200)
			lost := l.lost()[len(earlier):]
			require.LessOrEqual(t, len(lost), clients, "what was in progress, and nothing later")
			var last time.Duration
			for _, a := range lost {
				last = max(last, a.began.Sub(died))
			}
			require.Less(t, last, time.Second)
			t.Logf("a VM died: %d requests lost, the last one sent %v after", len(lost), last)
		}
	})
	for _, a := range failures(answers) {
		require.NoError(t, a.err)
		require.Equal(t, http.StatusServiceUnavailable, a.status)
	}
	waitForPicks(t, s) // the new VMs know the replicas
}

// testFailedOpen: when Inlet does not check a request, its client's control headers
// must not count either. Envoy's early removal ensures that: the chain, if it runs at
// all, trusts these headers.
func testFailedOpen(t *testing.T, s *stack.Stack, abi string) {
	update := func(edit func(*bootstrapv3.Bootstrap)) {
		require.NoError(t, s.Update(t.Context(), func(o *stack.Options) { o.Chain, o.Edit = faultyChainOpen, edit }))
		client.CloseIdleConnections() // those of the removed listener
	}
	update(func(b *bootstrapv3.Bootstrap) { failOpen(b, "failed-open", abi) })
	breakOpen := func(headers ...string) answer {
		if abi == stack.Wasm {
			// The VM is permanently dead; Inlet does not see later requests.
			_ = post(t.Context(), s, chatPath, smallChat, "x-probe-trap", "requestHeaders")
		} else {
			headers = append(headers, "x-probe-panic", "requestHeaders")
		}
		return post(t.Context(), s, chatPath, smallChat, headers...)
	}
	wanted := forged(s.PoolReplicas("gemma")[0].Address())
	for range 10 {
		a := breakOpen(wanted...)
		require.Equal(t, http.StatusNotFound, a.status, "%+v", a)
		require.Contains(t, string(a.body), `"no_pool"`)
		require.Empty(t, a.header.Get("x-modelsim-replica"))
	}
	testForgedNowhere(t, s)

	// Without the early removal the same requests get through, so the removal was what
	// stopped them.
	update(func(b *bootstrapv3.Bootstrap) {
		failOpen(b, "failed-open-unguarded", abi)
		editManager(b, func(m *hcmv3.HttpConnectionManager) { m.EarlyHeaderMutationExtensions = nil })
	})
	a := breakOpen(wanted...)
	require.Equal(t, "gemma-1", a.header.Get("x-modelsim-replica"), "%+v", a)
}

// failOpen gives the gateway a new listener, with a plugin that Envoy bypasses after a crash.
func failOpen(b *bootstrapv3.Bootstrap, name, abi string) {
	b.GetStaticResources().GetListeners()[0].Name = name
	if abi != stack.Wasm {
		return // in the module only the filters can fail open
	}
	editManager(b, func(m *hcmv3.HttpConnectionManager) {
		editAny(inletFilter(m).GetTypedConfig(), func(w *wasmv3.Wasm) {
			w.Config.FailurePolicy = envoywasmv3.FailurePolicy_FAIL_OPEN
			w.Config.ReloadConfig = nil
			w.Config.GetVmConfig().VmId = name
		})
	})
}
