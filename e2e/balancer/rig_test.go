// Package balancer_test runs the load-balancing policy of the native module in a real Envoy.
package balancer_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const patience = 20 * time.Second

var client = &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// listHeader has the ranked list.
const listHeader = "x-gateway-destination-endpoint"

// trusting is a chain that chooses the pool, and leaves the list to the client.
const trusting = `
filters: [{bbr: {models: [{name: llama, targets: [{pool: llama}]}, {name: gemma, targets: [{pool: gemma}]}]}}]
controlHeaders: trust
`

// replica is a server that says which one it is and at which attempt it was asked.
type replica struct {
	*httptest.Server
	name string
}

// newReplica starts one. It closes each connection, so that Envoy finds out about its end only when it connects.
func newReplica(t *testing.T, name string) *replica {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("content-type", "application/json")
		w.Header().Set("x-replica", name)
		w.Header().Set("x-attempt", r.Header.Get("x-envoy-attempt-count"))
		_, _ = io.WriteString(w, "{}")
	}))
	s.Config.SetKeepAlivesEnabled(false)
	s.Start()
	t.Cleanup(s.Close)
	return &replica{s, name}
}

func (r *replica) address() string { return strings.TrimPrefix(r.URL, "http://") }

// trust lets clients send the list.
func trust(b *bootstrapv3.Bootstrap) {
	edit(b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0].GetTypedConfig(),
		func(m *hcmv3.HttpConnectionManager) { m.EarlyHeaderMutationExtensions = nil })
}

// edit changes the message inside an Any. It panics if it is another message.
func edit[T proto.Message](a *anypb.Any, f func(T)) {
	message, err := a.UnmarshalNew()
	if err != nil {
		panic(err)
	}
	f(message.(T))
	if err := a.MarshalFrom(message); err != nil {
		panic(err)
	}
}

// result is a response: the replica, or "503" if there is none, and the attempt that it was.
type result struct{ replica, attempt string }

// ask sends a request for a model with a list.
func ask(t *testing.T, s *stack.Stack, model string, list ...string) result {
	t.Helper()
	r, err := try(s, model, list...)
	require.NoError(t, err)
	return r
}

func try(s *stack.Stack, model string, list ...string) (result, error) {
	req, err := http.NewRequest(http.MethodPost, s.URL()+"/v1/chat/completions", strings.NewReader(`{"model":"`+model+`"}`))
	if err != nil {
		return result{}, err
	}
	req.Header.Set("content-type", "application/json")
	if len(list) > 0 {
		req.Header.Set(listHeader, strings.Join(list, ", "))
	}
	res, err := client.Do(req)
	if err != nil {
		return result{}, err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return result{}, err
	}
	if res.StatusCode != http.StatusOK {
		return result{replica: fmt.Sprint(res.StatusCode)}, nil
	}
	return result{res.Header.Get("x-replica"), res.Header.Get("x-attempt")}, nil
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 5*time.Millisecond, what)
}

// stat reads one of Envoy's statistics of a cluster.
func stat(t *testing.T, s *stack.Stack, name, cluster string) int {
	t.Helper()
	m, err := s.Metrics(t.Context())
	require.NoError(t, err)
	return int(m.Sum(name, "envoy_cluster_name", cluster))
}

// growth is how much metrics of the policy have grown since it was made, by reason.
type growth struct {
	t      *testing.T
	s      *stack.Stack
	before map[string]int
}

func watch(t *testing.T, s *stack.Stack) *growth {
	g := &growth{t: t, s: s}
	g.before = g.now()
	return g
}

func (g *growth) now() map[string]int {
	g.t.Helper()
	m, err := g.s.Metrics(g.t.Context())
	require.NoError(g.t, err)
	all := map[string]int{}
	for _, sample := range m {
		switch sample.Name {
		case "inlet_balancer_pick_total":
			all[sample.Labels["reason"]] += int(sample.Value)
		case "inlet_balancer_skip_total":
			all["skip "+sample.Labels["reason"]] += int(sample.Value)
		}
	}
	return all
}

// is requires the growth. Samples are recorded before the response goes on.
func (g *growth) is(want map[string]int) {
	g.t.Helper()
	now := g.now()
	got := map[string]int{}
	for reason, n := range now {
		if n -= g.before[reason]; n != 0 {
			got[reason] = n
		}
	}
	require.Equal(g.t, want, got)
	g.before = now
}
