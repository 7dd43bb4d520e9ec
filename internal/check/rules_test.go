package check_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/check"
)

func shipped(t *testing.T, abi string) string {
	t.Helper()
	text, err := os.ReadFile("../../envoy/static/" + abi + ".yaml")
	require.NoError(t, err)
	return string(text)
}

func TestShippedBootstrapsPass(t *testing.T) {
	for _, abi := range []string{"wasm", "module", "golang"} {
		require.True(t, check.IsBootstrap([]byte(shipped(t, abi))))
		require.Empty(t, check.Bootstrap(abi+".yaml", []byte(shipped(t, abi))))
		withCORS := strings.ReplaceAll(shipped(t, abi), "#cors ", "")
		require.Empty(t, check.Bootstrap(abi+".yaml", []byte(withCORS)))
	}
	require.Empty(t, check.Bootstrap("module.yaml", []byte(strings.ReplaceAll(shipped(t, "module"), "#native-lb ", ""))))
}

const (
	poolLlama = "match: {prefix: /, headers: [{name: x-gateway-inference-pool, string_match: {exact: llama}}]}"
	inletWasm = "\n                  - name: inlet\n                    typed_config:\n                      \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n"
	router    = "                  - name: envoy.filters.http.router\n"
)

// httpFilter is a filter of a connection manager, as it stands in the shipped bootstraps.
func httpFilter(name, of string) string {
	return "                  - name: " + name + "\n                    typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http." + of + "}\n"
}

// nativeLB are edits of the shipped bootstrap with the module's own load-balancing policy.
func nativeLB(edits ...string) []string { return append([]string{"#native-lb ", ""}, edits...) }

// broken are shipped bootstraps with one thing changed.
var broken = []struct {
	name, abi string
	edits     []string // old, new, ...
	check     string
	severity  check.Severity
	at        string // what the line of the finding has
	says      string
}{
	{"not YAML", "wasm", []string{"static_resources:\n", "static_resources: [\n"}, "yaml", check.Error, "", "malformed YAML"},
	{"a slip in the configuration", "wasm", []string{"endpoints: 3", "endpoint: 3"}, "configuration", check.Error, "- picker: {profile: sticky, endpoint: 3}", `did you mean "endpoints"?`},
	{"the same in the module", "module", []string{"endpoints: 3", "endpoint: 3"}, "configuration", check.Error, "- picker: {profile: sticky, endpoint: 3}", `did you mean "endpoints"?`},
	{"an older name", "module", []string{"endpoints: 3", "room: {queue: 3}"}, "configuration", check.Warning, "- picker: {profile: sticky, room: {queue: 3}}", `"room" is now called "saturation"`},
	{"no configuration", "module", []string{"filter_config:", "unused:"}, "configuration", check.Error, "type.googleapis.com", "no configuration"},
	{"no Inlet", "wasm", []string{"- name: inlet\n", "- name: another\n", "name: inlet\n                        allow", "name: another\n                        allow", "inlet.wasm", "another.wasm", "filters:\n                              - bbr", "others:\n                              - bbr"}, "no-inlet", check.Error, "listeners:", "has Inlet in it"},
	{"a Struct in wasm", "wasm", []string{"google.protobuf.StringValue\n                          value: |\n", "google.protobuf.Struct\n                          value:\n"}, "wasm-configuration", check.Error, "google.protobuf.Struct", "in binary"},
	{"no body is seen", "wasm", []string{"allow_on_headers_stop_iteration: true", "allow_on_headers_stop_iteration: false"}, "wasm-stop-iteration", check.Error, "allow_on_headers_stop_iteration: false", "waits for a body"},
	{"a crashed VM stays", "wasm", []string{"failure_policy: FAIL_RELOAD", "failure_policy: FAIL_CLOSED"}, "wasm-failure-policy", check.Error, "failure_policy: FAIL_CLOSED", "503"},
	{"another runtime", "wasm", []string{"runtime: envoy.wasm.runtime.v8", "runtime: envoy.wasm.runtime.wamr"}, "wasm-runtime", check.Warning, "runtime: envoy.wasm.runtime.wamr", "tested"},
	{"another filter of the module", "module", []string{"filter_name: inlet", "filter_name: gateway"}, "module-filter-name", check.Error, "filter_name: gateway", "known: inlet, bbr, quota, guardrail, picker"},
	{"the library is closed", "module", []string{"do_not_close: true", "do_not_close: false"}, "module-do-not-close", check.Error, "do_not_close: false", "cannot be unloaded"},
	{"two that both remove headers", "wasm", []string{router, httpFilter("second", "wasm.v3.Wasm, config: {name: inlet, allow_on_headers_stop_iteration: true, failure_policy: FAIL_RELOAD, vm_config: {runtime: envoy.wasm.runtime.v8, code: {local: {filename: dist/guardrail.wasm}}}, configuration: {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: 'filters: [{guardrail: {providers: [{name: a, local: {patterns: [b]}}], policies: [{on: request, use: [a], action: block}]}}]'}}") + router}, "second-inlet", check.Error, "dist/guardrail.wasm", "second Inlet filter"},
	{"CORS behind Inlet", "wasm", []string{router, httpFilter("cors", "cors.v3.Cors") + router}, "filter-order", check.Error, "- name: cors", "preflights"},
	{"a buffer behind Inlet", "module", []string{router, httpFilter("buffer", "buffer.v3.Buffer, max_request_bytes: 1000") + router}, "filter-order", check.Warning, "- name: buffer", "a second time"},
	{"faults before Inlet", "wasm", []string{inletWasm, "\n" + httpFilter("fault", "fault.v3.HTTPFault") + inletWasm[1:]}, "filter-order", check.Warning, "- name: fault", "when a replica fails"},
	{"a configuration for a route", "module", []string{poolLlama + "\n", poolLlama + "\n                          typed_per_filter_config: {inlet: {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: a}}\n"}, "per-route", check.Error, "typed_per_filter_config", "as DynamicModuleFilterPerRoute"},
	{"a companion of a route alone", "module", []string{poolLlama + "\n", poolLlama + "\n                          typed_per_filter_config: {inlet: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute, filter_name: picker, filter_config: {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: \"{filters: [{picker: {pool: llama}}], companion: {cluster: gemma}}\"}}}\n"}, "per-route-companion", check.Error, "typed_per_filter_config", "nobody asks it"},
	{"a control header that stays", "wasm", []string{"                        - remove: x-gateway-inference-pool\n", ""}, "control-headers", check.Error, "early_header_mutation", "x-gateway-inference-pool"},
	{"a header of the configuration that stays", "wasm", []string{"- bbr:\n", "- bbr:\n                                  header: x-model\n"}, "control-headers", check.Error, "early_header_mutation", "x-model"},
	{"paths unchanged", "wasm", []string{"normalize_path: true", "normalize_path: false"}, "path-normalization", check.Error, "normalize_path: false", "another to the replica"},
	{"slashes unchanged", "wasm", []string{"merge_slashes: true", ""}, "path-normalization", check.Error, "type.googleapis.com", "merge_slashes"},
	{"escaped slashes unchanged", "module", []string{"UNESCAPE_AND_FORWARD", "KEEP_UNCHANGED"}, "path-normalization", check.Error, "KEEP_UNCHANGED", "escaped slashes"},
	{"escaped slashes refused", "module", []string{"UNESCAPE_AND_FORWARD", "REJECT_REQUEST"}, "path-normalization", check.Warning, "REJECT_REQUEST", "GET /v1/models/meta%2Fllama"},
	{"buffers of Envoy's default", "wasm", []string{"      per_connection_buffer_limit_bytes: 17825792\n      filter_chains", "      filter_chains"}, "buffer-limit", check.Error, "name: gateway", "hold 1048576 bytes"},
	{"a larger body than the buffers", "module", []string{"companion: {cluster: inlet-companion}\n", "companion: {cluster: inlet-companion}\n                          limits: {body: 32MiB}\n"}, "buffer-limit", check.Error, "per_connection_buffer_limit_bytes", "33554432"},
	{"no retry of a large body", "wasm", []string{poolLlama + "\n", poolLlama + "\n                          per_request_buffer_limit_bytes: 1024\n"}, "buffer-limit", check.Error, "per_request_buffer_limit_bytes", "retried"},
	{"plain errors", "wasm", []string{"local_reply_config:\n", "ignored:\n"}, "local-replies", check.Warning, "type.googleapis.com", "plain text"},
	{"a pool without a route", "wasm", []string{"string_match: {exact: gemma}", "string_match: {exact: gema}"}, "pool-route", check.Error, "name: gateway", `pool "gemma"`},
	{"Envoy's default timeout", "wasm", []string{"cluster: llama, timeout: 0s,", "cluster: llama,"}, "route-timeout", check.Error, "cluster: llama", "15 s"},
	{"a short timeout", "module", []string{"cluster: gemma, timeout: 0s,", "cluster: gemma, timeout: 60s,"}, "route-timeout", check.Warning, "cluster: gemma", "60s"},
	{"a cluster that does not exist", "module", []string{"{cluster: gemma, timeout", "{cluster: gema, timeout"}, "route-cluster", check.Error, "cluster: gema", `no cluster "gema"`},
	{"another policy", "wasm", []string{"      load_balancing_policy: *picked", "      lb_policy: LEAST_REQUEST"}, "override-host", check.Error, "name: gemma", `cluster "gemma"`},
	{"another policy of the module", "module", nativeLB("lb_policy_name: inlet", "lb_policy_name: picker"), "native-lb", check.Error, "lb_policy_name", `"picker"`},
	{"the module's policy, to be closed", "module", nativeLB("do_not_close: true\n                lb", "do_not_close: false\n                lb"), "native-lb", check.Error, "do_not_close: false", "could crash"},
	{"the module's policy, misconfigured", "module", nativeLB("lb_policy_name: inlet", "lb_policy_name: inlet\n                lb_policy_config: {'@type': type.googleapis.com/google.protobuf.StringValue, value: 'fallbak: none'}"), "native-lb", check.Error, "fallbak", `did you mean "fallback"?`},
	{"the module's policy, of another header", "module", nativeLB("lb_policy_name: inlet", "lb_policy_name: inlet\n                lb_policy_config: {'@type': type.googleapis.com/google.protobuf.StringValue, value: 'header: x-endpoint'}"), "native-lb", check.Error, "x-endpoint", "is ignored"},
	{"the module's policy, which is not told what failed", "module", nativeLB("retry_host_predicate:", "ignored:"), "native-lb", check.Error, "retry_on", "has just failed"},
	{"another header", "wasm", []string{"[{header: x-gateway-destination-endpoint}]", "[{header: x-endpoint}]"}, "override-host", check.Error, "override_host_sources", "is ignored"},
	{"nobody says who served", "module", []string{"selected_host_key:", "unused:"}, "served-endpoint", check.Warning, "type.googleapis.com", "which endpoint served"},
	{"a direct response", "wasm", []string{"route: {cluster: no-pool, cluster_not_found_response_code: NOT_FOUND, timeout: 0s}", "direct_response: {status: 404}"}, "last-route", check.Error, "direct_response: {status: 404}", "cors"},
	{"no last route", "wasm", []string{"                        - match: {prefix: /}\n                          route: {cluster: no-pool", "                        - match: {prefix: /other}\n                          route: {cluster: no-pool"}, "last-route", check.Error, poolLlama, "before Inlet has chosen a pool"},
	{"Envoy validates clusters", "module", []string{"validate_clusters: false", "validate_clusters: true"}, "last-route", check.Error, "cluster: no-pool", "Envoy refuses"},
	{"no retries", "wasm", []string{"retry_on: connect-failure,refused-stream,reset-before-request", "retry_on: 5xx"}, "route-retry", check.Warning, "retry_on", "only the first"},
	{"no cluster of the companion", "wasm", []string{"- name: inlet-companion", "- name: companion"}, "companion-cluster", check.Error, "google.protobuf.StringValue", "inlet-companion"},
	{"no cluster of a provider", "wasm", []string{"                              - picker: {profile", "                              - guardrail:\n                                  providers: [{name: own, webhook: {cluster: no-such-cluster}}]\n                                  policies: [{on: request, use: [own], action: block}]\n                              - picker: {profile"}, "guardrail-cluster", check.Error, "cluster: no-such-cluster", `no cluster "no-such-cluster"`},
	{"no address of the companion", "golang", []string{"clusters: {inlet-companion", "clusters: {companion"}, "companion-cluster", check.Error, "xds.type.v3.TypedStruct", "inlet-companion"},
	{"a slip in the plugin's configuration", "golang", []string{"endpoints: 3", "endpoint: 3"}, "configuration", check.Error, "- picker: {profile: sticky, endpoint: 3}", `did you mean "endpoints"?`},
	{"another plugin_name", "golang", []string{"plugin_name: inlet", "plugin_name: another"}, "golang-plugin-name", check.Error, "plugin_name: another", "lets all requests pass"},
	{"no struct for the plugin", "golang", []string{"xds.type.v3.TypedStruct", "xds.type.v3.Another"}, "golang-configuration", check.Error, "xds.type.v3.Another", "a struct only"},
	{"a slip for a route of the plugin", "golang", []string{poolLlama + "\n", poolLlama + "\n                          typed_per_filter_config: {inlet: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute, plugins_config: {inlet: {config: {\"@type\": type.googleapis.com/google.protobuf.Struct, value: {config: {filters: [{pickr: {}}]}}}}}}}\n"}, "configuration", check.Error, "typed_per_filter_config", "pickr"},
	{"a companion in a wasm plugin", "wasm", []string{"companion: {cluster: inlet-companion}\n", "companion: {embedded: {pools: [{name: llama, static: [\"10.0.0.1:80\"]}]}}\n"}, "configuration", check.Error, "companion: {embedded:", "native builds only"},
	{"no companion", "module", []string{"                          companion: {cluster: inlet-companion}\n", ""}, "companion-cluster", check.Warning, "google.protobuf.StringValue", "knows no replica"},
}

func TestBrokenBootstraps(t *testing.T) {
	tried := map[string]bool{}
	for _, b := range broken {
		tried[b.check] = true
		t.Run(b.name, func(t *testing.T) {
			text := shipped(t, b.abi)
			for i := 0; i < len(b.edits); i += 2 {
				require.Contains(t, text, b.edits[i])
				n := 1
				if strings.HasPrefix(b.edits[i], "#") {
					n = -1 // a recipe
				}
				text = strings.Replace(text, b.edits[i], b.edits[i+1], n)
			}
			found := check.Bootstrap("file.yaml", []byte(text))
			i := slices.IndexFunc(found, func(f check.Finding) bool { return f.Check == b.check && strings.Contains(f.Message, b.says) })
			require.GreaterOrEqual(t, i, 0, "%v", found)
			f := found[i]
			require.Equal(t, b.severity, f.Severity)
			line := strings.Split(text, "\n")[f.Line-1]
			require.Contains(t, line, b.at, f.String())
			for _, other := range found {
				require.Contains(t, []string{b.check, "configuration"}, other.Check, "what was not broken: %s", other.String())
			}
			if b.check != "yaml" && b.check != "configuration" {
				require.NotEmpty(t, f.Fix)
			}
		})
	}
	for _, c := range check.Checks {
		require.True(t, tried[c.Name], "no bootstrap is broken for the check %q", c.Name)
	}
	for name := range tried {
		require.True(t, slices.ContainsFunc(check.Checks, func(c struct{ Name, About string }) bool { return c.Name == name }), "%q is not in Checks", name)
	}
}

// TestPlacesOfConfigurationErrors: an error of the chain's configuration is shown where it stands in the bootstrap, in each of
// the forms that Envoy takes.
func TestPlacesOfConfigurationErrors(t *testing.T) {
	text := shipped(t, "module")
	block := regexp.MustCompile(`(?s)"@type": type.googleapis.com/google.protobuf.StringValue\n +value: \|\n.*?\n( +- name: envoy.filters.http.router)`)
	for name, c := range map[string]struct{ config, at, says string }{
		"block":  {"\"@type\": type.googleapis.com/google.protobuf.StringValue\n                        value: |\n                          # a comment\n\n                          filters:\n                            - piker: {}\n", "- piker: {}", `did you mean "picker"?`},
		"quoted": {"\"@type\": type.googleapis.com/google.protobuf.StringValue\n                        value: \"filters:\\n- piker: {}\\n\"\n", "value:", `at 2:3 of the configuration: unknown filter "piker"`},
		"struct": {"\"@type\": type.googleapis.com/google.protobuf.Struct\n                        value:\n                          filters:\n                            - picker:\n                                prefix: {hit: 5}\n", "prefix: {hit: 5}", "out of range"},
		"bytes":  {"\"@type\": type.googleapis.com/google.protobuf.BytesValue\n                        value: ZmlsdGVyczogW3twaWtlcjoge319XQ==\n", "value:", `did you mean "picker"?`},
	} {
		t.Run(name, func(t *testing.T) {
			changed := block.ReplaceAllString(text, c.config+"$1")
			require.NotEqual(t, text, changed)
			found := check.Bootstrap("file.yaml", []byte(changed))
			require.Len(t, found, 1)
			lines := strings.Split(changed, "\n")
			require.Contains(t, lines[found[0].Line-1], c.at)
			require.Contains(t, found[0].Message, c.says)
			rest := lines[found[0].Line-1][found[0].Column-1:]
			require.NotEmpty(t, strings.TrimLeft(rest, " "), "the column is within the line")
			require.NotEqual(t, byte(' '), rest[0])
		})
	}
}

// TestProviderClusters: the clusters of guardrail's providers are looked for in the bootstrap, and found where they stand in the
// configuration.
func TestProviderClusters(t *testing.T) {
	text := shipped(t, "module")
	block := regexp.MustCompile(`(?s)"@type": type.googleapis.com/google.protobuf.StringValue\n +value: \|\n.*?\n( +- name: envoy.filters.http.router)`)
	const providers = `[{name: personal, local: {detect: all}}, {name: nemo, nemo: {config: a, cluster: no-such-cluster}}, {name: own, webhook: {cluster: llama}}]`
	changed := block.ReplaceAllString(text, `"@type": type.googleapis.com/google.protobuf.Struct
                        value:
                          filters:
                            - bbr: {models: [{name: llama, targets: [{pool: llama}]}]}
                            - guardrail:
                                providers: `+providers+`
                                policies: [{on: request, use: [personal, nemo, own], action: block}]
                          companion: {cluster: inlet-companion}
$1`)
	require.NotEqual(t, text, changed)
	find := func(text string) (found []check.Finding) {
		for _, f := range check.Bootstrap("file.yaml", []byte(text)) {
			if f.Check == "guardrail-cluster" {
				found = append(found, f)
			} else {
				require.Equal(t, "configuration", f.Check, f.String())
			}
		}
		return found
	}
	found := find(changed)
	require.Len(t, found, 1)
	f := found[0]
	require.Equal(t, "filters[1].guardrail.providers[1].nemo.cluster", f.Path)
	require.Equal(t, `Envoy has no cluster "no-such-cluster"`, f.Message)
	require.Contains(t, strings.Split(changed, "\n")[f.Line-1], "providers: "+providers)

	require.Len(t, find(strings.Replace(changed, "config: a", "confg: a", 1)), 1, "also with a fault in the configuration")
	require.Empty(t, find(strings.Replace(changed, "no-such-cluster", "gemma", 1)))
	require.Empty(t, find(strings.Replace(changed, "static_resources:\n", "dynamic_resources: {cds_config: {ads: {}}}\nstatic_resources:\n", 1)), "it may come by CDS")
}

// TestAllFaultsAtOnce: what is wrong with the configuration does not hide what is wrong with the bootstrap.
func TestAllFaultsAtOnce(t *testing.T) {
	text := shipped(t, "wasm")
	for _, edit := range [][2]string{{"endpoints: 3", "endpoint: 3"}, {"{cluster: gemma, timeout: 0s", "{cluster: gema, timeout: 9s"}, {"failure_policy: FAIL_RELOAD", ""}} {
		require.Contains(t, text, edit[0])
		text = strings.Replace(text, edit[0], edit[1], 1)
	}
	var checks []string
	for _, f := range check.Bootstrap("file.yaml", []byte(text)) {
		checks = append(checks, f.Check)
	}
	require.ElementsMatch(t, []string{"configuration", "route-cluster", "route-timeout", "wasm-failure-policy"}, checks)
}

// TestOneFilterBuilds: a .wasm file with one filter takes a configuration with that filter alone.
func TestOneFilterBuilds(t *testing.T) {
	text := strings.Replace(shipped(t, "wasm"), "dist/inlet.wasm", "dist/bbr.wasm", 1)
	found := check.Bootstrap("file.yaml", []byte(text))
	require.Len(t, found, 1)
	require.Contains(t, found[0].Message, `unknown filter "picker"`)
}

// TestFilterNames: under its own name, the module has one filter alone.
func TestFilterNames(t *testing.T) {
	text := strings.Replace(shipped(t, "module"), "filter_name: inlet", "filter_name: bbr", 1)
	found := check.Bootstrap("file.yaml", []byte(text))
	require.Len(t, found, 1)
	require.Contains(t, found[0].Message, `unknown filter "picker"; known: bbr`)
}

// TestDocumentsOfRoutes: they are checked as the filter's own is, wherever routes may have one.
func TestDocumentsOfRoutes(t *testing.T) {
	const route = "                          route: {cluster: llama, timeout: 0s, idle_timeout: 600s}"
	of := func(name, document string) string {
		return `{"@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute, filter_name: ` + name +
			`, filter_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: "` + document + `"}}`
	}
	const good = "filters: [{bbr: {models: [{name: a, targets: [{pool: llama}]}]}}, {picker: {}}]\\ncompanion: {cluster: inlet-companion}"
	for name, c := range map[string]struct{ own, check, says string }{
		"a good one":            {of("inlet", good), "", ""},
		"without a companion":   {of("picker", "filters: [{picker: {pool: llama}}]"), "", ""},
		"in a wrapper":          {`{"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: ` + of("inlet", good) + "}", "", ""},
		"by the older field":    {strings.Replace(of("inlet", good), "filter_name", "per_route_config_name", 1), "", ""},
		"only turned off":       {`{"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}`, "", ""},
		"a mistake":             {of("inlet", "filters: [{piker: {}}]"), "configuration", `unknown filter "piker" (did you mean "picker"?)`},
		"another filter's":      {of("bbr", "filters: [{picker: {}}]"), "configuration", "known: bbr"},
		"an unknown name":       {of("pick", good), "per-route", `knows no filter_name "pick"; known: inlet, bbr, quota, guardrail, picker`},
		"no name":               {of(`""`, good), "per-route", "known: inlet"},
		"another pool":          {of("inlet", strings.Replace(good, "pool: llama", "pool: moon", 1)), "pool-route", `"moon"`},
		"another companion":     {of("inlet", strings.Replace(good, "inlet-companion", "gemma", 1)), "per-route-companion", "nobody asks it"},
		"another header":        {of("bbr", "filters: [{bbr: {header: x-mine, models: [{name: a, targets: [{pool: llama}]}]}}]"), "control-headers", "x-mine"},
		"a provider's cluster":  {of("guardrail", "filters: [{guardrail: {providers: [{name: m, moderations: {cluster: moon}}], policies: [{on: request, use: [m], action: block}]}}]"), "guardrail-cluster", `no cluster "moon"`},
		"too large for buffers": {of("inlet", good+"\\nlimits: {body: 100MiB}"), "buffer-limit", "limits.body"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, scope := range [][2]string{
				{route, route + "\n                          typed_per_filter_config: {inlet: " + c.own + "}"},
				{"                      domains: [\"*\"]", "                      domains: [\"*\"]\n                      typed_per_filter_config: {inlet: " + c.own + "}"},
				{"                  name: pools", "                  name: pools\n                  typed_per_filter_config: {inlet: " + c.own + "}"},
				{route, "                          route: {timeout: 0s, weighted_clusters: {clusters: [{name: llama, weight: 1, typed_per_filter_config: {inlet: " + c.own + "}}]}}"},
			} {
				text := shipped(t, "module")
				require.Contains(t, text, scope[0])
				found := check.Bootstrap("file.yaml", []byte(strings.Replace(text, scope[0], scope[1], 1)))
				if c.check == "" {
					require.Empty(t, found)
					continue
				}
				require.NotEmpty(t, found)
				require.Equal(t, c.check, found[0].Check, found)
				require.Contains(t, found[0].Message, c.says)
			}
		})
	}
}

// TestPoolsWithOtherRoutes: ways to lead to a pool's cluster that the shipped bootstraps do not use.
func TestPoolsWithOtherRoutes(t *testing.T) {
	gemma := "- match: {prefix: /, headers: [{name: x-gateway-inference-pool, string_match: {exact: gemma}}]}\n                          route: {cluster: gemma, timeout: 0s, idle_timeout: 600s}"
	for name, route := range map[string]string{
		"by prefix":         "- match: {prefix: /, headers: [{name: X-Gateway-Inference-Pool, string_match: {prefix: gem}}]}\n                          route: {cluster: gemma, timeout: 0s}",
		"by expression":     "- match: {prefix: /, headers: [{name: x-gateway-inference-pool, string_match: {safe_regex: {regex: 'gem+a'}}}]}\n                          route: {cluster: gemma, timeout: 0s}",
		"an older matcher":  "- match: {prefix: /, headers: [{name: x-gateway-inference-pool, exact_match: gemma}]}\n                          route: {cluster: gemma, timeout: 0s}",
		"named by the pool": "- match: {prefix: /, headers: [{name: x-gateway-inference-pool, present_match: true}]}\n                          route: {cluster_header: x-gateway-inference-pool, timeout: 0s}",
		"weighted":          "- match: {prefix: /, headers: [{name: x-gateway-inference-pool, string_match: {exact: gemma}}]}\n                          route: {weighted_clusters: {clusters: [{name: gemma, weight: 1}]}, timeout: 0s}",
	} {
		t.Run(name, func(t *testing.T) {
			text := shipped(t, "wasm")
			require.Contains(t, text, gemma)
			require.Empty(t, check.Bootstrap("file.yaml", []byte(strings.Replace(text, gemma, route, 1))))
		})
	}
}

func TestDocument(t *testing.T) {
	found := check.Document("inlet.yaml", []byte("filters:\n  - bbr: {modles: []}\n  - picker: {endpoints: 99, profile: stiky}\n"))
	require.Len(t, found, 3)
	require.Equal(t, `inlet.yaml:2:11: error: filters[0].bbr: unknown key "modles" (did you mean "models"?) [configuration]`, found[0].String())
	require.Equal(t, 3, found[1].Line)
	require.Equal(t, 3, found[2].Line)

	var out bytes.Buffer
	check.WriteText(&out, found)
	require.Equal(t, 3, strings.Count(out.String(), "\n"))
	out.Reset()
	require.NoError(t, check.WriteJSON(&out, found))
	var read struct {
		Findings []check.Finding
		Errors   int
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &read))
	require.Equal(t, found, read.Findings)
	require.Equal(t, 3, read.Errors)
}

// FuzzBootstrap: whatever the file holds, checking it ends.
func FuzzBootstrap(f *testing.F) {
	for _, abi := range []string{"wasm", "module"} {
		text, err := os.ReadFile("../../envoy/static/" + abi + ".yaml")
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add([]byte("static_resources: &a {listeners: *a}"))
	f.Add([]byte("- a"))
	f.Fuzz(func(t *testing.T, text []byte) {
		check.IsBootstrap(text)
		for _, found := range check.Bootstrap("f", text) {
			require.GreaterOrEqual(t, found.Line, 1)
			require.NotEmpty(t, found.Check)
		}
	})
}
