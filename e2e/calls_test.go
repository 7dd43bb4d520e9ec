package e2e_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// A response that is held for a call beside its request may be of any length: when Envoy's buffer is full, the replica waits. What is
// screened is held by Inlet, whose own limit counts.
func TestResponsesHeldForACallBeside(t *testing.T) {
	const bufferLimit = 64 << 10
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			g := newHeldGateway(t)
			e := &edits{abi: abi, pools: map[string][]string{"llama": {g.replica}}, services: map[string]string{"guard": g.guard, "inlet-companion": g.guard}}
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Plugin: plugins[abi].probed, NoCompanion: true, Pools: []stack.Pool{{Name: "llama"}},
				Chain: "filters:\n  - bbr: {models: [{name: llama, targets: [{model: internal, pool: llama}]}]}\n  - probe: {needs: [request], timeout: 1m}\n",
				Edit: func(b *bootstrapv3.Bootstrap) {
					e.apply(b)
					b.GetStaticResources().GetListeners()[0].PerConnectionBufferLimitBytes = wrapperspb.UInt32(bufferLimit)
				},
			})
			g.s = s
			screened := 1 << 20
			if abi == stack.Wasm {
				screened = bufferLimit / 2 // a filter that holds uses this buffer there
			}
			for name, c := range map[string]heldCase{
				"read as it arrives":   {kind: "application/json", size: 32 << 20},
				"not read":             {kind: "audio/wav", size: 32 << 20},
				"a stream":             {kind: "text/event-stream", size: 32 << 20},
				"refused":              {kind: "application/json", size: 32 << 20, status: 403},
				"screened":             {kind: "application/json", size: screened, screen: "1,0"},
				"screened and refused": {kind: "application/json", size: screened, screen: "1,0", status: 403},
			} {
				t.Run(name, func(t *testing.T) { g.play(t, c) })
			}
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

type heldCase struct {
	kind, screen string
	size         int        // of the text
	status       int        // of the reply beside; 200 if 0
	said         chan error // gets nil when the replica has said all
}

// heldGateway is a replica with long responses, and a service that replies when it is told to.
type heldGateway struct {
	s              *stack.Stack
	replica, guard string
	next           chan heldCase // for the replica
	replies        chan int      // statuses for the service
}

func newHeldGateway(t *testing.T) *heldGateway {
	g := &heldGateway{next: make(chan heldCase, 1), replies: make(chan int)}
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		c := <-g.next
		w.Header().Set("content-type", c.kind)
		_, err := io.WriteString(w, c.text("internal"))
		c.said <- err
	}))
	guard := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		select {
		case status := <-g.replies:
			w.WriteHeader(status)
		case <-req.Context().Done():
		}
	}))
	t.Cleanup(replica.Close)
	t.Cleanup(guard.Close)
	g.replica, g.guard = replica.Listener.Addr().String(), guard.Listener.Addr().String()
	return g
}

// text is what the replica says, and with the model's public name what the client gets.
func (c heldCase) text(model string) string {
	switch c.kind {
	case "text/event-stream":
		event := `data: {"model":"` + model + `","choices":[{"index":0,"delta":{"content":"` + strings.Repeat("word ", 200) + `"}}]}` + "\n\n"
		return strings.Repeat(event, c.size/1000) + "data: [DONE]\n\n"
	case "application/json":
		return `{"model":"` + model + `","choices":[{"index":0,"message":{"role":"assistant","content":"` + strings.Repeat("x", c.size) + `"}}]}`
	}
	return strings.Repeat("x", c.size)
}

func (g *heldGateway) play(t *testing.T, c heldCase) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.s.URL()+"/v1/chat/completions", strings.NewReader(`{"model":"llama"}`))
	require.NoError(t, err)
	req.Header.Set("content-type", "application/json")
	req.Header.Set("x-probe-beside", "guard")
	if c.screen != "" {
		req.Header.Set("x-probe-screen", c.screen)
	}
	c.said = make(chan error, 1)
	g.next <- c
	paused := g.pauses(t)
	got := make(chan answer, 1)
	go func() { got <- do(req) }()
	if c.screen == "" {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		require.NoError(t, poll(ctx, "the replica waits", func() (bool, error) { return g.pauses(t) > paused, nil }))
	} else {
		require.NoError(t, <-c.said, "Inlet has all of it")
	}
	require.Empty(t, got, "nothing has gone to the client")
	status := c.status
	if status == 0 {
		status = http.StatusOK
	}
	g.replies <- status
	r := <-got
	require.NoError(t, r.err)
	require.Equal(t, status, r.status, "%.200s", r.body)
	if status == http.StatusOK {
		require.Equal(t, "200", r.header.Get("x-probe-beside"))
		require.Equal(t, c.text("llama"), string(r.body))
	}
	if c.screen == "" {
		require.Equal(t, status == http.StatusOK, <-c.said == nil, "a refusal stops the replica")
	}
}

// pauses is how often Envoy has stopped reading from a replica.
func (g *heldGateway) pauses(t *testing.T) float64 {
	m, err := g.s.Metrics(t.Context())
	require.NoError(t, err)
	return m.Sum("envoy_cluster_upstream_flow_control_paused_reading_total", "envoy_cluster_name", "llama")
}
