package e2e_test

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/csrf/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const besidePage = "../docs/beside-other-filters.md"

// example is a block of the page about other filters: a part of an HTTP connection manager.
type example struct {
	name    string // of the other filter, without envoy.filters.http
	manager *hcmv3.HttpConnectionManager
}

// examples reads the page.
func examples(t *testing.T) []example {
	t.Helper()
	text, err := os.ReadFile(besidePage)
	require.NoError(t, err)
	var all []example
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n(http_filters:.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		e := example{manager: &hcmv3.HttpConnectionManager{}}
		require.NoError(t, stack.UnmarshalYAML([]byte(m[1]), e.manager), m[1])
		for _, f := range e.manager.GetHttpFilters() {
			if name, ok := strings.CutPrefix(f.GetName(), "envoy.filters.http."); ok && name != "router" {
				require.Empty(t, e.name, "an example shows one filter")
				e.name = name
			}
		}
		all = append(all, e)
	}
	require.NotEmpty(t, all)
	return all
}

// otherSide is the same example with the filter on the other side of Inlet.
func (e example) otherSide() example {
	e.manager = proto.CloneOf(e.manager)
	f := e.manager.GetHttpFilters()
	f[0], f[1] = f[1], f[0]
	e.name += " on the other side"
	return e
}

// apply puts the example into the shipped connection manager.
func (e example) apply(m *hcmv3.HttpConnectionManager) {
	shipped := m.GetHttpFilters()
	m.HttpFilters = slices.Clone(e.manager.GetHttpFilters())
	for i, f := range m.GetHttpFilters() {
		if j := slices.IndexFunc(shipped, func(s *hcmv3.HttpFilter) bool { return s.GetName() == f.GetName() }); j >= 0 {
			m.HttpFilters[i] = shipped[j]
		}
	}
	for i, h := range e.manager.GetRouteConfig().GetVirtualHosts() {
		proto.Merge(m.GetRouteConfig().GetVirtualHosts()[i], h)
	}
}

// addListener adds a copy of the shipped listener under a name, at its own port.
func addListener(b *bootstrapv3.Bootstrap, name string, change func(*listenerv3.Listener, *hcmv3.HttpConnectionManager)) {
	changed := proto.CloneOf(b)
	l := changed.GetStaticResources().GetListeners()[0]
	l.Name = name
	l.GetAddress().GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{}
	editManager(changed, func(m *hcmv3.HttpConnectionManager) { change(l, m) })
	b.StaticResources.Listeners = append(b.GetStaticResources().GetListeners(), l)
}

// addCluster adds a plain cluster.
func addCluster(b *bootstrapv3.Bootstrap, name, address string) {
	c := &clusterv3.Cluster{Name: name}
	setEndpoints(c, address)
	b.StaticResources.Clusters = append(b.GetStaticResources().GetClusters(), c)
}

// asker sends requests to one listener.
type asker struct {
	t   *testing.T
	url string
}

func (k asker) send(method, path, body string, headers ...string) answer {
	k.t.Helper()
	req, err := http.NewRequestWithContext(k.t.Context(), method, k.url+path, strings.NewReader(body))
	require.NoError(k.t, err)
	req.Header.Set("content-type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	a := do(req)
	require.NoError(k.t, a.err)
	return a
}

func (k asker) chat(headers ...string) answer { return k.send("POST", chatPath, smallChat, headers...) }

// served checks that a replica of the pool responded.
func served(t *testing.T, pool string, a answer) {
	t.Helper()
	require.True(t, a.ok(), "%d %v %s", a.status, a.header, a.body)
	require.True(t, strings.HasPrefix(a.header.Get("x-modelsim-replica"), pool+"-"), a.header)
}

// refusedAs checks a refusal of Envoy itself: the status, and an error in the form of the path's API.
func refusedAs(t *testing.T, a answer, status int, kind, code string) {
	t.Helper()
	require.Equal(t, status, a.status, "%s", a.body)
	require.Equal(t, "application/json", a.header.Get("content-type"))
	require.Empty(t, a.header.Get("x-modelsim-replica"))
	require.Empty(t, a.header.Get("x-inlet-reason"), "not Inlet's own")
	var e struct {
		Type  string
		Error struct {
			Message, Type string
			Code, Param   *string
		}
	}
	require.NoError(t, json.Unmarshal(a.body, &e), "%s", a.body)
	require.NotEmpty(t, e.Error.Message)
	require.Equal(t, kind, e.Error.Type)
	if e.Type != "" {
		require.Equal(t, "error", e.Type)
		require.Equal(t, "anthropic", code)
		return
	}
	if code == "" {
		require.Nil(t, e.Error.Code)
	} else {
		require.NotNil(t, e.Error.Code)
		require.Equal(t, code, *e.Error.Code)
	}
	require.Contains(t, string(a.body), `"param":null`)
	require.Equal(t, status == 429 || status == 503, a.header.Get("retry-after") != "")
}

// inlets checks that a refusal is Inlet's, unchanged.
func inlets(t *testing.T, a answer, status int, reason string) {
	t.Helper()
	require.Equal(t, status, a.status, "%s", a.body)
	require.Equal(t, reason, a.header.Get("x-inlet-reason"))
	require.Equal(t, "application/json", a.header.Get("content-type"))
	require.Contains(t, string(a.body), `"error":{`)
}

const (
	gemmaChat = `{"model":"gemma","messages":[{"role":"user","content":"hello"}],"max_tokens":4}`
	nobody    = `{"model":"nobody","messages":[{"role":"user","content":"hello"}]}`
)

// largeChat is a request of about 120 KB.
var largeChat = strings.Replace(smallChat, "hello", strings.Repeat("hello ", 20000), 1)

// besideChecks check what the page says about each example.
var besideChecks = map[string]func(*testing.T, asker){
	"local_ratelimit": func(t *testing.T, k asker) {
		for range 2 {
			served(t, "llama", k.chat("x-tenant", "trial"))
		}
		refusedAs(t, k.chat("x-tenant", "trial"), 429, "rate_limit_error", "rate_limit_exceeded")
		refusedAs(t, k.send("POST", "/v1/messages", smallChat, "x-tenant", "trial"), 429, "rate_limit_error", "anthropic")
		for range 4 {
			served(t, "llama", k.chat())
		}
	},
	"ext_authz": func(t *testing.T, k asker) {
		a := k.chat()
		require.Equal(t, 403, a.status)
		require.JSONEq(t, denial, string(a.body), "what the service says stays as it is")
		served(t, "llama", k.chat("authorization", "Bearer good"))
		require.Equal(t, 403, k.send("POST", chatPath, nobody).status, "asked before a byte of body")
		inlets(t, k.send("POST", chatPath, nobody, "authorization", "Bearer good"), 404, "model_not_found")
	},
	"jwt_authn": func(t *testing.T, k asker) {
		refusedAs(t, k.chat(), 401, "authentication_error", "")
		refusedAs(t, k.chat("authorization", "Bearer "+userToken+"x"), 401, "authentication_error", "")
		a := k.chat("authorization", "Bearer "+userToken)
		served(t, "llama", a)
		require.NotContains(t, a.header.Get("x-modelsim-headers"), "authorization", "the token stays here")
	},
	"csrf": func(t *testing.T, k asker) {
		refusedAs(t, k.chat(), 403, "permission_error", "") // without an Origin, like every SDK
		refusedAs(t, k.chat("origin", "https://other.example.com"), 403, "permission_error", "")
		served(t, "llama", k.chat("origin", k.url))
	},
	"buffer": func(t *testing.T, k asker) {
		served(t, "llama", k.chat())
		refusedAs(t, k.send("POST", chatPath, largeChat), 413, "invalid_request_error", "request_too_large")
		refusedAs(t, k.send("POST", "/v1/messages", largeChat), 413, "request_too_large", "anthropic")
	},
	"compressor": func(t *testing.T, k asker) {
		a := k.chat("accept-encoding", "gzip")
		served(t, "llama", a)
		require.Equal(t, "gzip", a.header.Get("content-encoding"))
		r, err := gzip.NewReader(bytes.NewReader(a.body))
		require.NoError(t, err)
		body, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Contains(t, string(body), `"model":"llama"`, "Inlet has read what the compressor had not yet touched")
		require.NotContains(t, a.header.Get("x-modelsim-headers"), "accept-encoding")
		stream := k.send("POST", chatPath, strings.Replace(smallChat, "{", `{"stream":true,`, 1), "accept-encoding", "gzip")
		served(t, "llama", stream)
		require.Empty(t, stream.header.Get("content-encoding"))
		require.Contains(t, string(stream.body), "data: [DONE]")
	},
	"rbac": func(t *testing.T, k asker) {
		served(t, "gemma", k.send("POST", chatPath, gemmaChat))
		served(t, "llama", k.chat("x-tenant", "trial"))
		for range 10 { // nothing stays in flight, nobody is ejected
			refusedAs(t, k.send("POST", chatPath, gemmaChat, "x-tenant", "trial"), 403, "permission_error", "")
		}
		served(t, "gemma", k.send("POST", chatPath, gemmaChat))
	},
	"fault": func(t *testing.T, k asker) {
		refusedAs(t, k.chat("x-envoy-fault-abort-request", "500"), 500, "server_error", "")
		refusedAs(t, k.chat("x-envoy-fault-abort-request", "418"), 418, "invalid_request_error", "")
		refusedAs(t, k.send("POST", "/v1/messages", smallChat, "x-envoy-fault-abort-request", "500"), 500, "api_error", "anthropic")
		served(t, "llama", k.chat())
	},
	"header_mutation": func(t *testing.T, k asker) {
		a := k.chat("x-team", "a", "x-tenant", "b")
		served(t, "llama", a) // not the pool that this filter sets
		require.Contains(t, a.header.Get("x-modelsim-headers"), "x-tenant")
		require.Equal(t, "gateway", a.header.Get("x-served-by"))
		a = k.send("POST", chatPath, nobody)
		inlets(t, a, 404, "model_not_found")
		require.Equal(t, "gateway", a.header.Get("x-served-by"))
	},
}

const denial = `{"error":{"message":"Ask your administrator.","type":"permission_error","code":"not_yours","param":null}}`

// userToken is signed with the key in the page's example.
var userToken = func() string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","kid":"1"}`)) + "." + encode([]byte(`{"iss":"https://login.example.com","sub":"u"}`))
	mac := hmac.New(sha256.New, []byte("inlet-example-secret-of-32-bytes"))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}()

// newAuthorizer is the service that ext_authz calls.
func newAuthorizer(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("authorization") != "Bearer good" {
			w.Header().Set("content-type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(denial))
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestBesideOtherFilters runs each example of the page in a real Envoy. Requests without a model get the same errors as
// without the other filter, on either side of it, and forged headers have no effect.
func TestBesideOtherFilters(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			authorizer := newAuthorizer(t)
			all := examples(t)
			var listeners []example
			for _, e := range all {
				listeners = append(listeners, e, e.otherSide())
			}
			rewrite := pathRewrite(t)
			s := stack.ForTest(t, stack.Options{ABI: abi, Pools: quickPools(), Edit: func(b *bootstrapv3.Bootstrap) {
				addCluster(b, "authz", authorizer)
				addListener(b, "prefix", func(_ *listenerv3.Listener, m *hcmv3.HttpConnectionManager) {
					setManagerDocument(m, prefixedChain)
					routes := m.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()
					for _, r := range routes[:len(routes)-1] {
						proto.Merge(r.GetRoute(), rewrite)
					}
				})
				for _, e := range listeners {
					addListener(b, e.name, func(_ *listenerv3.Listener, m *hcmv3.HttpConnectionManager) { e.apply(m) })
				}
			}})
			waitForPicks(t, s)
			for _, e := range all {
				t.Run(e.name, func(t *testing.T) {
					check, ok := besideChecks[e.name]
					require.True(t, ok, "no test for this example")
					url, err := s.ListenerURL(t.Context(), e.name)
					require.NoError(t, err)
					check(t, asker{t, url})
				})
			}
			t.Run("prefix and aliases", func(t *testing.T) {
				url, err := s.ListenerURL(t.Context(), "prefix")
				require.NoError(t, err)
				testPrefix(t, asker{t, url})
			})
			for _, e := range listeners {
				t.Run(e.name+", errors", func(t *testing.T) {
					url, err := s.ListenerURL(t.Context(), e.name)
					require.NoError(t, err)
					testErrorsBeside(t, s, asker{t, url})
				})
			}
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

// prefixedChain has a path prefix, and a model that is listed under three names.
const prefixedChain = `
filters:
  - bbr: {models: [{name: llama, aliases: [meta/llama, best, "gpt-4*"], targets: [{pool: llama}]}]}
  - picker: {}
companion: {cluster: inlet-companion}
pathPrefix: [/team-a]
`

// pathRewrite is the page's rewrite of paths with a prefix.
func pathRewrite(t *testing.T) *routev3.RouteAction {
	t.Helper()
	text, err := os.ReadFile(besidePage)
	require.NoError(t, err)
	m := regexp.MustCompile("(?ms)^```yaml\n(regex_rewrite:.*?)^```$").FindSubmatch(text)
	require.NotNil(t, m)
	action := &routev3.RouteAction{}
	require.NoError(t, stack.UnmarshalYAML(m[1], action))
	return action
}

func testPrefix(t *testing.T, k asker) {
	for _, path := range []string{chatPath, "/team-a" + chatPath, "/team-a/v1/messages"} {
		served(t, "llama", k.send("POST", path, smallChat))
	}
	inlets(t, k.send("POST", "/team-a/v1/messages", nobody), 404, "model_not_found")
	inlets(t, k.send("POST", "/team-b"+chatPath, smallChat), 404, "unknown_path")
	inlets(t, k.send("POST", "/team-b/v1/messages", smallChat), 404, "unknown_path")
	var list struct{ Data []struct{ ID string } }
	require.NoError(t, json.Unmarshal(k.send("GET", "/team-a/v1/models", "").body, &list))
	require.Len(t, list.Data, 3)
}

func testErrorsBeside(t *testing.T, s *stack.Stack, k asker) {
	allowed := []string{"authorization", "Bearer good", "origin", k.url}
	if strings.Contains(t.Name(), "jwt_authn") {
		allowed[1] = "Bearer " + userToken
	}
	forgeries := append(forged(s.PoolReplicas("gemma")[0].Address()), allowed...)
	inlets(t, k.send("POST", chatPath, nobody, forgeries...), 404, "model_not_found")
	for _, method := range []string{"GET", "POST", "DELETE"} {
		inlets(t, k.send(method, "/nothing", "", forgeries...), 404, "unknown_path")
	}
	inlets(t, k.send("GET", "/v1/messages", "", forgeries...), 404, "unknown_path")
}
