package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// incidentsDocument has two filters that read the body, and reads responses.
const incidentsDocument = `filters:
  - bbr: {models: [{name: m, targets: [{model: renamed, pool: one}]}]}
  - guardrail: {providers: [{name: local, local: {patterns: [never-said]}}], policies: [{on: request, use: [local], action: block}]}
limits: {prompt: 16MiB}
`

// TestIncidents: failures of other gateways with large bodies and streams.
func TestIncidents(t *testing.T) {
	r := newEchoer(t)
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			pool := &edits{abi: abi, pools: map[string][]string{"one": {r.address}}}
			s := stack.ForTest(t, stack.Options{
				ABI: abi, NoCompanion: true, Pools: []stack.Pool{{Name: "one"}}, Chain: incidentsDocument, Edit: pool.apply,
			})
			for incident, sizes := range map[string][]int{
				"500 for bodies over 30,000 characters":                   {29_999, 30_001, 31_000, 100_000},
				"bodies over 6.2 KB cut between two filters":              {6_199, 6_201, 16_385, 65_537},
				"responses of 130 KB cut with status 200":                 {130_000, 131_072, 133_120, 262_145},
				"the last chunk of bodies over 1 MB comes twice":          {1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20},
				"413 for an agent's body over 64 KiB, 400 for over 2 MiB": {64<<10 + 1, 2<<20 + 1, 8 << 20},
			} {
				t.Run(incident, func(t *testing.T) { testSizes(t, s, sizes) })
			}
			t.Run("a plain 413 that no client understands", func(t *testing.T) { testTooLarge(t, s) })
			t.Run("a stream is held until its end", func(t *testing.T) { testNotHeld(t, s, r) })
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

// echoer is a replica that responds with the body that it got, which contains the
// model. If that ends in the first event of a stream, a second event follows on
// demand.
type echoer struct {
	address string
	goOn    chan struct{}
}

func newEchoer(t *testing.T) *echoer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &echoer{l.Addr().String(), make(chan struct{})}
	server := &http.Server{Handler: r}
	go func() { _ = server.Serve(l) }() // until Close, which is the only error
	t.Cleanup(func() { _ = server.Close() })
	return r
}

func (r *echoer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if bytes.Contains(body, []byte(`"stream":true`)) {
		w.Header().Set("content-type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"model\":\"renamed\",\"n\":1}\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.goOn:
		case <-req.Context().Done():
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
		return
	}
	w.Header().Set("content-type", "application/json")
	_, _ = w.Write(body)
}

// testSizes expects every body back unchanged, with the client's name for the model
// where the replica has read another one.
func testSizes(t *testing.T, s *stack.Stack, sizes []int) {
	for _, size := range sizes {
		for _, chunked := range []bool{false, true} {
			for _, form := range []string{`{"model":"m","n":9007199254740993,"p":"%s"}`, `{"p":"%s","n":1.10,"model":"m"}`} {
				body := fmt.Sprintf(form, strings.Repeat("word-", size/5+1)[:size-len(form)+2])
				require.Len(t, body, size)
				var from io.Reader = strings.NewReader(body)
				if chunked {
					from = io.MultiReader(from) // of unknown length
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+chatPath, from)
				require.NoError(t, err)
				req.Header.Set("content-type", "application/json")
				a := do(req)
				require.NoError(t, a.err)
				require.Equal(t, http.StatusOK, a.status, "%.300s", a.body)
				require.Equal(t, size, len(a.body))
				require.True(t, body == string(a.body), "%d bytes, chunked %t", size, chunked)
			}
		}
	}
}

// testTooLarge: a body over the limit is refused in the API's form.
func testTooLarge(t *testing.T, s *stack.Stack) {
	a := post(t.Context(), s, chatPath, `{"model":"m","p":"`+strings.Repeat("word-", 17<<20/5)+`"}`)
	require.NoError(t, a.err)
	require.Equal(t, http.StatusRequestEntityTooLarge, a.status)
	require.Contains(t, string(a.body), `"code":"request_too_large"`)
}

// testNotHeld: the client has an event before the replica continues.
func testNotHeld(t *testing.T, s *stack.Stack, r *echoer) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+chatPath, strings.NewReader(`{"model":"m","stream":true}`))
	require.NoError(t, err)
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	first := make([]byte, len("data: {\"model\":\"m\",\"n\":1}\n\n"))
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	require.Equal(t, "data: {\"model\":\"m\",\"n\":1}\n\n", string(first))
	r.goOn <- struct{}{}
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "data: [DONE]\n\n", string(rest))
}
