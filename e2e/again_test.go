package e2e_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// againChain renames the model, asks for a key and screens prompts.
const againChain = `filters:
  - bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: one}]}]}
  - quota: {keys: {list: [{name: demo, sha256: 2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683}]}}
  - guardrail: {providers: [{name: local, local: {patterns: ['(?i)launch code']}}], policies: [{on: request, use: [local], action: block}]}
`

// redirector is a replica that sends the first requests elsewhere.
type redirector struct {
	mu    sync.Mutex
	times int             // how many are redirected
	seen  []*http.Request // with the model as body
}

func (r *redirector) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var body struct {
		Model string `json:"model"`
	}
	text, _ := io.ReadAll(req.Body)
	_ = json.Unmarshal(text, &body)
	req.Body = io.NopCloser(strings.NewReader(body.Model))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, req)
	if r.times > 0 {
		r.times--
		w.Header().Set("location", "http://"+req.Host+"/elsewhere"+req.URL.Path)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	w.Header().Set("content-type", "application/json")
	_, _ = io.WriteString(w, `{"model":"llama-3-8b","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`)
}

// reset prepares the replica for another case.
func (r *redirector) reset(times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times, r.seen = times, nil
}

func (r *redirector) requests() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// TestRequestComesAgain: a request that has been through Inlet passes it unchanged the second time, both after Envoy's
// internal redirect and if Inlet is in the chain twice: its own name for a model does not count as a client's, and no
// client sees it.
func TestRequestComesAgain(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			r := &redirector{}
			server := httptest.NewServer(r)
			t.Cleanup(server.Close)
			pool := &edits{abi: abi, pools: map[string][]string{"one": {server.Listener.Addr().String()}}}
			s := stack.ForTest(t, stack.Options{
				ABI: abi, NoCompanion: true, Pools: []stack.Pool{{Name: "one"}}, Chain: againChain, Updatable: true,
				Edit: func(b *bootstrapv3.Bootstrap) { pool.apply(b); followRedirects(b) },
			})
			t.Run("a redirect", func(t *testing.T) { testRedirect(t, s, r) })
			require.NoError(t, s.Update(t.Context(), func(o *stack.Options) {
				o.Edit = func(b *bootstrapv3.Bootstrap) {
					pool.apply(b)
					followRedirects(b)
					trustAll(b)
					refuseElsewhere(b)
				}
			}))
			client.CloseIdleConnections()
			t.Run("a redirect that is refused before", func(t *testing.T) { testRefusedRedirect(t, s, r) })
			require.NoError(t, s.Update(t.Context(), func(o *stack.Options) {
				o.Edit = func(b *bootstrapv3.Bootstrap) {
					pool.apply(b)
					twice(b)
					followRedirects(b)
					b.GetStaticResources().GetListeners()[0].Name = "twice-following"
				}
			}))
			client.CloseIdleConnections()
			t.Run("a redirect, twice in the chain", func(t *testing.T) { testTwiceRedirected(t, s, r) })
			require.NoError(t, s.Update(t.Context(), func(o *stack.Options) {
				o.Edit = func(b *bootstrapv3.Bootstrap) { pool.apply(b); twice(b) }
			}))
			client.CloseIdleConnections()
			t.Run("twice in the chain", func(t *testing.T) { testTwice(t, s, r) })
			require.NoError(t, s.Update(t.Context(), func(o *stack.Options) {
				o.Edit = func(b *bootstrapv3.Bootstrap) { pool.apply(b); twice(b); trustAll(b) }
			}))
			client.CloseIdleConnections()
			t.Run("twice, and nobody removes headers", func(t *testing.T) { testTwice(t, s, r) })
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

// servedTwice checks what the client gets, and what a replica sees, for a request that came through.
func servedTwice(t *testing.T, r *redirector, a *answer, requests int) {
	t.Helper()
	require.True(t, a.ok(), "%+v\n%s", a, a.body)
	require.JSONEq(t, `{"model":"llama","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`, string(a.body))
	all := r.requests()
	require.Len(t, all, requests)
	for _, q := range all {
		model, err := io.ReadAll(q.Body)
		require.NoError(t, err)
		require.Equal(t, "llama-3-8b", string(model))
		require.Equal(t, "llama", q.Header.Get("x-gateway-model-name"))
		require.Empty(t, q.Header.Get("x-api-key"))
	}
}

func testRedirect(t *testing.T, s *stack.Stack, r *redirector) {
	before, err := s.Metrics(t.Context())
	require.NoError(t, err)
	for _, times := range []int{1, 2} {
		r.reset(times)
		a := post(t.Context(), s, chatPath, smallChat, "x-api-key", "key")
		servedTwice(t, r, &a, times+1)
	}
	require.Equal(t, "/elsewhere/elsewhere"+chatPath, r.requests()[2].URL.Path)
	eventually(t, "each request is counted once", func() (bool, error) {
		m, err := s.Metrics(t.Context())
		return requestsOf(m)-requestsOf(before) == 2, err
	})
	testNoWayAround(t, s, r, 0)
	testNoWayAround(t, s, r, 1)
}

// testRefusedRedirect: a filter before Inlet refuses the redirected request, so nobody uses what Inlet stored about it.
// No later request is taken for it, although Envoy considers the client internal and leaves it all its headers.
func testRefusedRedirect(t *testing.T, s *stack.Stack, r *redirector) {
	const id = "00000000-0000-4000-8000-000000000002"
	control := []string{"x-gateway-model-name", "llama", "x-gateway-model-name-rewrite", "llama-3-8b", "x-gateway-inference-pool", "one"}
	old := s.URL() + chatPath
	bare := strings.Replace(smallChat, `"llama"`, `"llama-3-8b"`, 1)
	for name, c := range map[string]struct {
		path    string
		headers []string
		status  int
	}{
		"any old URL":           {chatPath, []string{"x-envoy-original-url", "http://x/", "x-gateway-inference-pool", "one"}, http.StatusUnauthorized},
		"the old URL":           {chatPath, append([]string{"x-envoy-original-url", old}, control...), http.StatusUnauthorized},
		"the old URL, no names": {chatPath, []string{"x-envoy-original-url", old}, http.StatusUnauthorized},
		"all that it had":       {"/elsewhere" + chatPath, append([]string{"x-envoy-original-url", old, "x-allowed", "1"}, control...), http.StatusNotFound},
	} {
		r.reset(1)
		a := post(t.Context(), s, chatPath, smallChat, "x-api-key", "key", "x-request-id", id)
		require.Equal(t, http.StatusForbidden, a.status, "%s\n%s", name, a.body)
		require.Len(t, r.requests(), 1)
		require.Equal(t, id, r.requests()[0].Header.Get("x-request-id"), "the client is internal")
		client.CloseIdleConnections()
		a = post(t.Context(), s, c.path, bare, append(c.headers, "x-request-id", id)...)
		require.Equal(t, c.status, a.status, "%s\n%s", name, a.body)
		require.NotEmpty(t, a.header.Get("x-inlet-reason"), name)
		require.Len(t, r.requests(), 1, name)
	}
}

func testTwiceRedirected(t *testing.T, s *stack.Stack, r *redirector) {
	r.reset(1)
	a := post(t.Context(), s, chatPath, smallChat, "x-api-key", "key")
	servedTwice(t, r, &a, 2)
	testNoWayAround(t, s, r, 1)
}

func testTwice(t *testing.T, s *stack.Stack, r *redirector) {
	r.reset(0)
	a := post(t.Context(), s, chatPath, smallChat, "x-api-key", "key")
	servedTwice(t, r, &a, 1)
	testNoWayAround(t, s, r, 0)
}

// testNoWayAround: a client cannot claim that its request has been through Inlet.
func testNoWayAround(t *testing.T, s *stack.Stack, r *redirector, redirects int) {
	t.Helper()
	r.reset(redirects)
	// The request before it has, and had the same id.
	const id = "00000000-0000-4000-8000-000000000001"
	a := post(t.Context(), s, chatPath, smallChat, "x-api-key", "key", "x-request-id", id)
	servedTwice(t, r, &a, redirects+1)
	forgery := []string{
		"x-request-id", id, "x-envoy-original-url", "http://gateway.test" + chatPath,
		"x-gateway-model-name", "llama", "x-gateway-model-name-rewrite", "llama-3-8b", "x-gateway-inference-pool", "one",
	}
	bare := strings.Replace(smallChat, `"llama"`, `"llama-3-8b"`, 1)
	a = post(t.Context(), s, chatPath, bare, forgery...)
	require.Equal(t, http.StatusUnauthorized, a.status, "%s", a.body)
	a = post(t.Context(), s, chatPath, bare, append(forgery, "x-api-key", "key")...)
	require.Equal(t, http.StatusNotFound, a.status, "%s", a.body)
	a = post(t.Context(), s, chatPath, strings.Replace(smallChat, "hello", "the launch code", 1), append(forgery, "x-api-key", "key")...)
	require.Equal(t, http.StatusBadRequest, a.status, "%s", a.body)
	require.Len(t, r.requests(), redirects+1, "none of them came to the replica")
}

// requestsOf counts the requests that got a response or a refusal.
func requestsOf(m stack.Metrics) (n float64) {
	for _, sample := range m {
		if sample.Name == "inlet_request_total" {
			n += sample.Value
		}
	}
	return n
}

// twice puts the Inlet filter into the chain a second time.
func twice(b *bootstrapv3.Bootstrap) {
	editManager(b, func(m *hcmv3.HttpConnectionManager) {
		m.HttpFilters = slices.Insert(m.GetHttpFilters(), 0, proto.CloneOf(inletFilter(m)))
		m.GetHttpFilters()[0].Name = "inlet-before"
	})
	b.GetStaticResources().GetListeners()[0].Name = "twice"
}

// trustAll does not remove clients' control headers.
func trustAll(b *bootstrapv3.Bootstrap) {
	editManager(b, func(m *hcmv3.HttpConnectionManager) { m.EarlyHeaderMutationExtensions = nil })
	b.GetStaticResources().GetListeners()[0].Name = "trusting"
}

// followRedirects makes Envoy follow a replica's 307.
func followRedirects(b *bootstrapv3.Bootstrap) {
	editManager(b, func(m *hcmv3.HttpConnectionManager) {
		m.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0].GetRoute().InternalRedirectPolicy = &routev3.InternalRedirectPolicy{
			MaxInternalRedirects:  wrapperspb.UInt32(2),
			RedirectResponseCodes: []uint32{307},
		}
	})
}

// refuseElsewhere refuses redirected requests, unless they have a certain header, and makes Envoy consider clients of
// this machine internal.
func refuseElsewhere(b *bootstrapv3.Bootstrap) {
	prefix := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "/elsewhere"}}
	allowed := &routev3.HeaderMatcher{Name: "x-allowed", HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	both := &rbacconfigv3.Permission_Set{Rules: []*rbacconfigv3.Permission{
		{Rule: &rbacconfigv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: prefix}}}},
		{Rule: &rbacconfigv3.Permission_NotRule{NotRule: &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Header{Header: allowed}}}},
	}}
	config, err := anypb.New(&rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{
		Action: rbacconfigv3.RBAC_DENY,
		Policies: map[string]*rbacconfigv3.Policy{"elsewhere": {
			Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_AndRules{AndRules: both}}},
			Principals:  []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_Any{Any: true}}},
		}},
	}})
	if err != nil {
		panic(err)
	}
	editManager(b, func(m *hcmv3.HttpConnectionManager) {
		m.InternalAddressConfig = &hcmv3.HttpConnectionManager_InternalAddressConfig{
			CidrRanges: []*corev3.CidrRange{{AddressPrefix: "127.0.0.0", PrefixLen: wrapperspb.UInt32(8)}},
		}
		m.HttpFilters = slices.Insert(m.GetHttpFilters(), 0, &hcmv3.HttpFilter{
			Name: "envoy.filters.http.rbac", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config},
		})
	})
	b.GetStaticResources().GetListeners()[0].Name = "refusing"
}
