package native_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// The documents of the filters alone, as the one-filter wasm builds take them. Those that stand behind bbr in one chain
// of Envoy's leave the headers alone that bbr has set. The key is "demo-key".
const (
	bbrAlone       = `filters: [{bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}}]`
	quotaAlone     = `{filters: [{quota: {keys: {from: [x-api-key], list: [{name: demo, app: demo, sha256: c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c}]}, apps: [{name: demo, products: [demo]}], products: [{name: demo, requests: 3/hour}]}}], controlHeaders: trust}`
	guardrailAlone = `{filters: [{guardrail: {providers: [{name: local, local: {patterns: ['(?i)launch code']}}], policies: [{on: request, use: [local], action: block}]}}], controlHeaders: trust}`
	pickerAlone    = `{filters: [{picker: {pool: llama, explainHeader: x-why}}], companion: {cluster: inlet-companion}, controlHeaders: trust}`
)

// TestConfigured: the ways in which the module can be configured, in one Envoy: each filter alone in a listener, all four
// in one chain of Envoy's, and documents of routes.
func TestConfigured(t *testing.T) {
	guard := newHolder(t, `{"results":[{"flagged":false,"categories":{},"category_scores":{}}]}`)
	c := &configured{guard: guard, rds: filepath.Join(t.TempDir(), "rds", "rds.json")}
	c.Stack = stack.ForTest(t, stack.Options{
		ABI: stack.Module, Updatable: true,
		Pools: []stack.Pool{{Name: "llama", Replicas: 2, Args: []string{"--speed", "0"}}},
		Chain: `{filters: [{bbr: {models: [{name: llama, targets: [{model: of-listener, pool: llama}]}]}}, {picker: {explainHeader: x-why}}], companion: {cluster: inlet-companion}}`,
		Edit: func(b *bootstrapv3.Bootstrap) {
			addCluster(b, "guard", guard.address())
			for name, document := range map[string]string{"bbr": bbrAlone, "quota": quotaAlone, "guardrail": guardrailAlone, "picker": pickerAlone} {
				addListener(b, name, func(m *hcmv3.HttpConnectionManager) {
					entries(m, [2]string{name, document})
					if name != "bbr" { // nobody names a pool
						host := m.GetRouteConfig().GetVirtualHosts()[0]
						host.GetRoutes()[0].GetMatch().Headers = nil
					}
				})
			}
			addListener(b, "four", func(m *hcmv3.HttpConnectionManager) {
				entries(m, [2]string{"bbr", bbrAlone}, [2]string{"quota", quotaAlone}, [2]string{"guardrail", guardrailAlone}, [2]string{"picker", pickerAlone})
			})
			addListener(b, "routes", c.discoverRoutes)
		},
	})
	require.NoError(t, c.WaitForSnapshot(t.Context()))
	t.Run("alone", c.alone)
	t.Run("routes", c.routes)
	t.Run("unknown names", c.unknown) // which takes the other listeners away
	require.Positive(t, logged(t, c.Stack, "inlet: loaded; filter names: inlet, bbr, quota, guardrail, picker"))
	require.Zero(t, logged(t, c.Stack, "panic"))
}

type configured struct {
	*stack.Stack
	guard    *holder
	rds      string // file of the routes of listener "routes"
	shipped  *routev3.RouteConfiguration
	manager  *hcmv3.HttpConnectionManager
	versions int
}

func (c *configured) url(t *testing.T, listener string) string {
	t.Helper()
	u, err := c.ListenerURL(t.Context(), listener)
	require.NoError(t, err)
	return u + chatPath
}

func (c *configured) alone(t *testing.T) {
	const key, other = "demo-key", "other-key"
	secret := strings.Replace(chat("llama"), "Hello", "the launch code", 1)
	expect := func(listener, body, key string, status int, reason string) answer {
		t.Helper()
		a := ask(t, c.url(t, listener), body, "x-api-key", key)
		require.Equal(t, status, a.status, a)
		require.Equal(t, reason, a.header.Get("x-inlet-reason"), a)
		return a
	}
	a := expect("bbr", secret, other, 200, "")
	require.Equal(t, "llama-3-8b", a.header.Get("x-modelsim-model"))
	expect("bbr", chat("nobody"), key, 404, "model_not_found")
	expect("quota", secret, key, 200, "")
	expect("quota", secret, other, 401, "invalid_api_key")
	expect("guardrail", chat("any"), other, 200, "")
	expect("guardrail", secret, other, 400, "content_policy_violation")
	a = expect("picker", secret, other, 200, "")
	require.Contains(t, a.header.Get("x-why"), "candidates=2")

	// All four: each does its part, and what the first decides the last one sees. Accounts are the process's: one request
	// of this key has been counted at the listener "quota".
	a = expect("four", chat("llama"), key, 200, "")
	require.Equal(t, "llama-3-8b", a.header.Get("x-modelsim-model"))
	require.Contains(t, a.header.Get("x-why"), "candidates=2")
	expect("four", chat("nobody"), key, 404, "model_not_found")
	expect("four", chat("llama"), other, 401, "invalid_api_key")
	expect("four", secret, key, 400, "content_policy_violation")
	expect("four", chat("llama"), key, 200, "") // what the guardrail has refused is not counted
	expect("four", chat("llama"), key, 429, "requests_limit")
	expect("quota", chat("llama"), key, 429, "requests_limit")
}

// unknown: Envoy refuses names that nobody has, and documents with filters that the name does not have.
func (c *configured) unknown(t *testing.T) {
	for name, says := range map[string]string{
		"pickr": "Failed to load configuration: failed to get plugin config factory",
		"":      "filter_name is missing; known: inlet, bbr, quota, guardrail, picker",
		"quota": `unknown filter "bbr"; known: quota`,
	} {
		var refused *stack.Refused
		require.ErrorAs(t, c.Update(t.Context(), func(o *stack.Options) {
			o.Edit = func(b *bootstrapv3.Bootstrap) {
				addCluster(b, "guard", c.guard.address())
				editListener(gateway(b), func(m *hcmv3.HttpConnectionManager) {
					i := inletFilter(m)
					m.HttpFilters[i] = entry(m.GetHttpFilters()[i], name, bbrAlone)
					m.HttpFilters[i].Name = "inlet"
				})
			}
		}), &refused, name)
		require.Contains(t, refused.Details, says, name)
		require.Equal(t, http.StatusOK, ask(t, c.URL()+chatPath, chat("llama")).status)
	}
}

// discoverRoutes makes the routes of a listener come from a file, to be changed by themselves.
func (c *configured) discoverRoutes(m *hcmv3.HttpConnectionManager) {
	c.shipped, c.manager = proto.CloneOf(m.GetRouteConfig()), proto.CloneOf(m)
	c.setRoutes(ofRoute("a", 0), "")
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
		RouteConfigName: c.shipped.GetName(),
		ConfigSource: &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{
			PathConfigSource: &corev3.PathConfigSource{Path: c.rds, WatchedDirectory: &corev3.WatchedDirectory{Path: filepath.Dir(c.rds)}},
		}},
	}}
}

// ofRoute is a route's document. Its guardrail asks; the listener's document has none.
func ofRoute(name string, version int) string {
	return fmt.Sprintf(`filters: [{bbr: {models: [{name: llama, targets: [{model: of-route-%s-%d, pool: llama}]}]}},
  {guardrail: {providers: [{name: guard, timeout: 60s, moderations: {cluster: guard}}], policies: [{on: request, use: [guard], action: block}]}}, {picker: {explainHeader: x-why}}]`, name, version)
}

// setRoutes writes the file: requests with x-tenant: a have a document of their own. The routes that match only when
// bbr has chosen the pool have another one, which is never in force.
func (c *configured) setRoutes(document, version string) {
	r := proto.CloneOf(c.shipped)
	host := r.GetVirtualHosts()[0]
	pool := host.GetRoutes()[0]
	pool.TypedPerFilterConfig = map[string]*anypb.Any{"inlet": perRoute(c.manager, "inlet", ofRoute("pool", 0))}
	tenant := proto.CloneOf(host.GetRoutes()[len(host.GetRoutes())-1])
	tenant.GetMatch().Headers = []*routev3.HeaderMatcher{header("x-tenant", "a")}
	tenant.TypedPerFilterConfig = map[string]*anypb.Any{"inlet": perRoute(c.manager, "inlet", document)}
	host.Routes = append([]*routev3.Route{pool, tenant}, host.GetRoutes()[1:]...)
	packed, err := anypb.New(r)
	if err != nil {
		panic(err)
	}
	text, err := protojson.Marshal(&discoveryv3.DiscoveryResponse{VersionInfo: version, Resources: []*anypb.Any{packed}})
	if err != nil {
		panic(err)
	}
	next := filepath.Dir(c.rds) + ".next"
	for _, err := range []error{os.MkdirAll(filepath.Dir(c.rds), 0o755), os.WriteFile(next, text, 0o600), os.Rename(next, c.rds)} {
		if err != nil {
			panic(err)
		}
	}
}

// stat is one of Envoy's counters about the routes.
func (c *configured) stat(t *testing.T, name string) float64 {
	t.Helper()
	m, err := c.Metrics(t.Context())
	require.NoError(t, err)
	return m.Sum("envoy_http_rds_" + name)
}

// changeRoutes installs other routes, and waits until Envoy has judged them.
func (c *configured) changeRoutes(t *testing.T, document, counter string) {
	t.Helper()
	before := c.stat(t, counter)
	c.versions++
	c.setRoutes(document, fmt.Sprint(c.versions))
	eventually(t, "Envoy has read the routes: "+counter, func() bool { return c.stat(t, counter) > before })
}

func (c *configured) routes(t *testing.T) {
	url := c.url(t, "routes")
	tenant := func(ctx context.Context) answer {
		return do(ctx, http.DefaultClient, url, chat("llama"), "x-tenant", "a")
	}
	begin := func() <-chan answer {
		got := make(chan answer, 1)
		go func() { got <- tenant(t.Context()) }()
		c.guard.waits(t, 1)
		return got
	}
	served := func(got <-chan answer, model string) {
		t.Helper()
		c.guard.release()
		a := <-got
		require.Equal(t, http.StatusOK, a.status, a)
		require.Equal(t, model, a.header.Get("x-modelsim-model"))
		require.Contains(t, a.header.Get("x-why"), "candidates=2", "the replicas come from the listener's companion")
	}
	plain := func() {
		t.Helper()
		a := ask(t, url, chat("llama"))
		require.Equal(t, "of-listener", a.header.Get("x-modelsim-model"), "the route of its headers has no document: %v", a)
	}
	plain()
	served(begin(), "of-route-a-0")
	metric(t, c.Stack, 1, "inlet_guardrail_check_total", "provider", "guard")

	// A bad document: the routes are refused, and the old ones go on.
	c.changeRoutes(t, strings.Replace(ofRoute("a", 1), "{picker:", "{pickr:", 1), "update_rejected")
	require.Positive(t, logged(t, c.Stack, `unknown filter "pickr" (did you mean "picker"?)`))
	served(begin(), "of-route-a-0")

	// New routes while a request of an old one is held: it ends by the old document.
	got := begin()
	c.changeRoutes(t, ofRoute("a", 2), "config_reload")
	served(got, "of-route-a-0")
	eventually(t, "the new document is in force", func() bool {
		got := begin()
		c.guard.release()
		a := <-got
		require.Equal(t, http.StatusOK, a.status, a)
		return a.header.Get("x-modelsim-model") == "of-route-a-2"
	})
	plain()
}
