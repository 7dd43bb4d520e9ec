package stack_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// client gives up on a response that does not arrive.
var client = &http.Client{Timeout: 10 * time.Second}

// post sends a small chat and returns the status, the replica that responded, and x-request-id.
func post(t *testing.T, s *stack.Stack) (status int, replica, requestID string) {
	t.Helper()
	resp, err := client.Post(s.URL()+"/v1/chat/completions", "application/json",
		strings.NewReader(`{"model":"llama-3-8b","messages":[{"role":"user","content":"hello"}],"max_tokens":2}`))
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header.Get("x-modelsim-replica"), resp.Header.Get("x-request-id")
}

// TestStack shows what tests rely on: replicas that die, hang and come back, lists
// that change while Envoy runs, the access log and the metrics. Envoy runs without
// Inlet here.
func TestStack(t *testing.T) {
	s := stack.ForTest(t, stack.Options{
		ABI: stack.None, NoCompanion: true,
		Workers: 1, // each worker notices separately that a replica is gone
		Pools:   []stack.Pool{{Name: "llama", Replicas: 2, Args: []string{"--model", "llama-3-8b", "--speed", "0"}}},
	})
	ctx := t.Context()
	one, two := s.Replicas[0], s.Replicas[1]

	t.Run("every request is in the access log", func(t *testing.T) {
		status, replica, id := post(t, s)
		require.Equal(t, http.StatusOK, status)
		a, err := s.Access(ctx, id)
		require.NoError(t, err)
		require.Equal(t, "llama", a.Cluster)
		require.Equal(t, map[string]string{"llama-1": one.Address(), "llama-2": two.Address()}[replica], a.Replica)
		require.Equal(t, 1, a.Attempts)
	})

	t.Run("a killed replica is retried elsewhere, and comes back at its address", func(t *testing.T) {
		address := one.Address()
		one.Kill()
		// A request that meets a dead connection before Envoy has noticed the close is lost: nobody can know whether the
		// replica had started it. So first wait until Envoy has noticed it of each, and uses the other replica.
		require.Eventually(t, func() bool {
			hosts, err := s.Hosts(ctx, "llama")
			return err == nil && hosts[address]["cx_active"] == 0
		}, 10*time.Second, time.Millisecond)
		require.Eventually(t, func() bool {
			_, _, id := post(t, s)
			a, err := s.Access(ctx, id)
			return err == nil && a.Attempts == 2 && a.Status == http.StatusOK
		}, 10*time.Second, time.Millisecond)
		for range 20 {
			status, replica, _ := post(t, s)
			require.Equal(t, http.StatusOK, status)
			require.Equal(t, "llama-2", replica)
		}
		require.NoError(t, one.Start(ctx))
		require.Equal(t, address, one.Address())
		require.Eventually(t, func() bool {
			_, replica, _ := post(t, s)
			return replica == "llama-1"
		}, 10*time.Second, 10*time.Millisecond)
	})

	t.Run("a paused replica accepts connections and does not respond", func(t *testing.T) {
		require.NoError(t, two.Pause(ctx))
		impatient := http.Client{Timeout: 300 * time.Millisecond}
		_, err := impatient.Get(two.URL() + "/v1/models")
		require.NoError(t, two.Resume())
		require.Error(t, err)
		resp, err := client.Get(two.URL() + "/v1/models")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	})

	t.Run("Envoy sees a new list", func(t *testing.T) {
		require.NoError(t, s.SetEndpoints("llama", two.Address()))
		require.Eventually(t, func() bool {
			m, err := s.Metrics(ctx)
			require.NoError(t, err)
			return m.Sum("envoy_cluster_membership_total", "envoy_cluster_name", "llama") == 1
		}, 10*time.Second, 10*time.Millisecond)
		for range 10 {
			_, replica, _ := post(t, s)
			require.Equal(t, "llama-2", replica)
		}
	})

	t.Run("metrics have labels", func(t *testing.T) {
		m, err := s.Metrics(ctx)
		require.NoError(t, err)
		require.Positive(t, m.Sum("envoy_cluster_upstream_rq", "envoy_cluster_name", "llama", "envoy_response_code", "200"))
		require.Zero(t, m.Sum("envoy_cluster_upstream_rq", "envoy_cluster_name", "gemma"))
	})

	require.Empty(t, s.EnvoyErrors())
}

func TestCloseLeavesNothing(t *testing.T) {
	s := stack.ForTest(t, stack.Options{
		ABI: stack.None, NoCompanion: true,
		Pools: []stack.Pool{{Name: "llama", Replicas: 1}},
	})
	addresses := []string{strings.TrimPrefix(s.URL(), "http://"), strings.TrimPrefix(s.AdminURL(), "http://"), s.Replicas[0].Address()}
	s.Close()
	s.Close()
	require.NoDirExists(t, s.Dir)
	for _, a := range addresses {
		_, err := net.Dial("tcp", a)
		require.Error(t, err, a)
	}
}

func TestEndOfContextEndsAll(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := stack.ForTest(t, stack.Options{
		ABI: stack.None, NoCompanion: true,
		Pools: []stack.Pool{{Name: "llama", Replicas: 1}},
	})
	second, err := stack.Start(ctx, stack.Options{
		ABI: stack.None, NoCompanion: true,
		Pools: []stack.Pool{{Name: "llama", Replicas: 1}},
	})
	require.NoError(t, err)
	t.Cleanup(second.Close)
	cancel()
	<-second.EnvoyDone()
	_, err = net.Dial("tcp", strings.TrimPrefix(second.URL(), "http://"))
	require.Error(t, err)
	status, _, _ := post(t, s)
	require.Equal(t, http.StatusOK, status, "the other stack goes on")
}

func TestTakenPortIsAnErrorWithTheFix(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = stack.Start(t.Context(), stack.Options{Port: port})
	require.ErrorContains(t, err, fmt.Sprintf("port %d is taken: choose another with PORT=%d or --port, or end the program", port, port+1))
}

func TestUnknownABI(t *testing.T) {
	_, err := stack.Start(t.Context(), stack.Options{ABI: "wsam"})
	require.ErrorContains(t, err, "ABI=wsam: it is wasm, module or none")
	_, err = stack.Start(t.Context(), stack.Options{Embedded: true})
	require.ErrorContains(t, err, "needs the native module")
}

func TestFailedStartShowsWhy(t *testing.T) {
	_, err := stack.Start(t.Context(), stack.Options{
		ABI: stack.Wasm, NoCompanion: true, Plugin: "/nowhere/inlet.wasm",
		Pools: []stack.Pool{{Name: "llama", Replicas: 1}},
	})
	require.ErrorContains(t, err, "envoy ended before it was ready")
	require.ErrorContains(t, err, "/nowhere/inlet.wasm")
}
