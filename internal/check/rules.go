package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/filters/bbr"
	"github.com/inlet-proxy/inlet/filters/picker"
)

const (
	poolHeader     = bbr.PoolHeader
	endpointHeader = picker.EndpointHeader
	servedKey      = "x-gateway-destination-endpoint-served" // of the endpoint picker protocol
)

// rules are what a gateway must have for Inlet to work. A new one is a function here, its name in Checks, and a broken
// bootstrap in rules_test.go.
var rules = []func(*gateway){
	wasmPlugin, dynamicModule, golangPlugin, secondInlet, neighbours, routeCompanion,
	controlHeaders, paths, bufferLimits, localReplies,
	poolRoutes, lastRoute, companion, providers,
}

// Checks are the names of all checks, each with what it is about.
var Checks = []struct{ Name, About string }{
	{"yaml", "the file is YAML or JSON"},
	{"configuration", "the chain's configuration is right"},
	{"no-inlet", "a bootstrap has Inlet in it"},
	{"wasm-configuration", "wasm: the configuration is a string, not a Struct"},
	{"wasm-stop-iteration", "wasm: allow_on_headers_stop_iteration is true"},
	{"wasm-failure-policy", "wasm: failure_policy is FAIL_RELOAD"},
	{"wasm-runtime", "wasm: the runtime is V8"},
	{"module-filter-name", "module: filter_name is inlet, or the name of one filter"},
	{"module-do-not-close", "module: do_not_close is true"},
	{"golang-plugin-name", "golang: plugin_name is inlet, or the name of one filter"},
	{"golang-configuration", "golang: plugin_config is a struct"},
	{"second-inlet", "each Inlet filter behind another one trusts its control headers"},
	{"filter-order", "other filters are on the right side of Inlet"},
	{"per-route", "a configuration of a route is one that the module takes"},
	{"per-route-companion", "configurations of routes name the companion of their filter"},
	{"control-headers", "clients' own control headers are removed before a route is matched"},
	{"path-normalization", "a path has one spelling for Inlet and for the replica"},
	{"buffer-limit", "buffers hold the largest body that Inlet accepts"},
	{"local-replies", "Envoy's own errors have a form that SDKs understand"},
	{"pool-route", "each pool has a route"},
	{"route-timeout", "the routes of pools have no timeout"},
	{"route-retry", "the routes of pools try the next endpoint of the list"},
	{"route-cluster", "the clusters of the pools' routes exist"},
	{"override-host", "the clusters of pools use the endpoints that Inlet picked"},
	{"native-lb", "the module's own load-balancing policy has what it needs"},
	{"served-endpoint", "the clusters of pools tell which endpoint served"},
	{"last-route", "the last route catches all, and is no direct_response"},
	{"companion-cluster", "the companion's cluster exists"},
	{"guardrail-cluster", "the clusters of guardrail's providers exist"},
}

func wasmPlugin(g *gateway) {
	for _, i := range g.inlets {
		if !i.wasm {
			continue
		}
		config := i.config.get("config")
		if t := i.document; t.exists() && !t.is("google.protobuf.StringValue") && !t.is("google.protobuf.BytesValue") {
			g.errorf(t.get("@type"), "wasm-configuration", `"@type": type.googleapis.com/google.protobuf.StringValue, and the configuration as text in value`,
				"Envoy hands a wasm plugin any other message than a string in binary form")
		}
		if !config.get("allow_on_headers_stop_iteration").isTrue() {
			at := config.get("allow_on_headers_stop_iteration")
			g.errorf(at, "wasm-stop-iteration", "allow_on_headers_stop_iteration: true",
				"allow_on_headers_stop_iteration is not true: no request with a body gets past Inlet, which waits for a body that Envoy never shows it")
		}
		if at := config.get("failure_policy"); at.text() != "FAIL_RELOAD" {
			g.errorf(at, "wasm-failure-policy", "failure_policy: FAIL_RELOAD",
				"failure_policy is not FAIL_RELOAD: a worker whose VM has crashed answers 503 from then on")
		}
		if at := config.get("vm_config", "runtime"); at.text() != "envoy.wasm.runtime.v8" {
			g.warnf(at, "wasm-runtime", "runtime: envoy.wasm.runtime.v8", "Inlet is tested with the runtime envoy.wasm.runtime.v8 only")
		}
	}
}

func dynamicModule(g *gateway) {
	for _, i := range g.inlets {
		if i.wasm || i.golang {
			continue
		}
		if at := i.config.get("filter_name"); !slices.Contains(filterNames(), at.text()) {
			g.errorf(at, "module-filter-name", "filter_name: "+allFilters, "the module knows no filter_name %q, and Envoy refuses it; known: %s", at.text(), strings.Join(filterNames(), ", "))
		}
		if at := i.config.get("dynamic_module_config", "do_not_close"); !at.isTrue() {
			g.errorf(at, "module-do-not-close", "do_not_close: true", "do_not_close is not true: Go's runtime cannot be unloaded, so Envoy could crash when the last listener with this module goes")
		}
	}
}

func secondInlet(g *gateway) {
	for n, i := range g.inlets {
		if n > 0 && i.chain != nil && !i.chain.TrustsControl() {
			g.errorf(i.document, "second-inlet", "controlHeaders: trust in this filter's configuration, or one filter with all in one chain",
				"this is the second Inlet filter of the chain: it removes the headers with which the first one has chosen the model and the pool")
		}
	}
}

// sides of Inlet, for filters that have only one good one. docs/beside-other-filters.md says more.
var sides = []struct {
	filter, name  string
	before, after bool
	severity      Severity
	why           string
}{
	{"cors.v3.Cors", "cors", true, false, Error, "browsers' preflights have no key and no body, and Inlet's own refusals need CORS headers too"},
	{"csrf.v3.CsrfPolicy", "csrf", true, false, Warning, "it refuses by headers, before Inlet holds the body"},
	{"compressor.v3.Compressor", "compressor", true, false, Warning, "after Inlet it does nothing where Inlet reads responses"},
	{"buffer.v3.Buffer", "buffer", true, false, Warning, "after Inlet the body is held a second time while the picked endpoints age"},
	{"decompressor.v3.Decompressor", "decompressor", false, false, Warning, "Inlet decodes request bodies itself, and asks replicas for responses that are not encoded"},
	{"fault.v3.HTTPFault", "fault", false, true, Warning, "before Inlet it shows nothing of what clients see when a replica fails"},
}

func neighbours(g *gateway) {
	seen := false // Inlet
	for _, f := range g.filters {
		for _, i := range g.inlets {
			seen = seen || i.filter.value == f.value
		}
		config := f.get("typed_config")
		for _, s := range sides {
			if !config.is(s.filter) || seen && s.after || !seen && s.before {
				continue
			}
			fix := "put it before Inlet"
			switch {
			case s.after:
				fix = "put it between Inlet and the router"
			case !s.before:
				fix = "leave it out"
			}
			g.add(f, s.severity, "filter-order", fix, "the filter %s is on the wrong side of Inlet: %s", s.name, s.why)
		}
	}
}

func controlHeaders(g *gateway) {
	removed := map[string]bool{}
	for _, m := range g.manager.get("early_header_mutation_extensions").items() {
		config := m.get("typed_config")
		if !config.is("header_mutation.v3.HeaderMutation") {
			continue
		}
		for _, mutation := range config.get("mutations").items() {
			removed[strings.ToLower(mutation.get("remove").text())] = true
		}
	}
	for _, i := range g.documents() {
		if i.chain == nil || i.chain.TrustsControl() {
			continue
		}
		for _, name := range i.chain.Control() {
			if removed[name] {
				continue
			}
			removed[name] = true // said once
			g.errorf(g.manager.get("early_header_mutation_extensions"), "control-headers", "- remove: "+name+", in the mutations of envoy.http.early_header_mutation.header_mutation",
				"a client's own header %s is not removed before a route is matched: it could choose a route by itself", name)
		}
	}
}

func paths(g *gateway) {
	for _, name := range []string{"normalize_path", "merge_slashes"} {
		if at := g.manager.get(name); !at.isTrue() {
			g.errorf(at, "path-normalization", name+": true", "%s is not true: a path may mean one thing to Inlet and another to the replica", name)
		}
	}
	switch at := g.manager.get("path_with_escaped_slashes_action"); at.text() {
	case "UNESCAPE_AND_FORWARD", "UNESCAPE_AND_REDIRECT":
	case "REJECT_REQUEST":
		g.warnf(at, "path-normalization", "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
			"names of models have slashes, and clients escape them: GET /v1/models/meta%%2Fllama is refused")
	default:
		g.errorf(at, "path-normalization", "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
			"escaped slashes are left in paths: a path may mean one thing to Inlet and another to the replica")
	}
}

// defaultBuffer is Envoy's default for buffers of connections.
const defaultBuffer = 1 << 20

func bufferLimits(g *gateway) {
	most := int64(0)
	for _, i := range g.documents() {
		if i.chain != nil {
			most = max(most, i.chain.BodyLimit())
		}
	}
	at := g.listener.get("per_connection_buffer_limit_bytes")
	if n := at.number(defaultBuffer); n < most {
		g.errorf(at, "buffer-limit", "per_connection_buffer_limit_bytes: a little more than limits.body, or a lower limits.body",
			"the listener's buffers hold %d bytes, and Inlet accepts bodies of %d (limits.body): a larger body gets a plain 413 that no SDK understands", n, most)
	}
	for _, host := range g.hosts() {
		for _, scope := range append(host.get("routes").items(), host) {
			for _, name := range []string{"request_body_buffer_limit", "per_request_buffer_limit_bytes"} {
				if at := scope.get(name); at.exists() && at.number(most) < most {
					g.errorf(at, "buffer-limit", "leave it out, or raise it", "%s is below the %d bytes that Inlet accepts (limits.body): no larger body can be retried", name, most)
				}
			}
		}
	}
}

func localReplies(g *gateway) {
	if at := g.manager.get("local_reply_config"); len(at.get("mappers").items()) == 0 {
		g.warnf(at, "local-replies", "local_reply_config as in envoy/static/wasm.yaml",
			"Envoy's own 404, 413, 429, 503 and 504 are plain text, which SDKs cannot read")
	}
}

func companion(g *gateway) {
	for _, i := range g.inlets {
		if i.chain == nil {
			continue
		}
		from := i.chain.Companion()
		switch name := from.Cluster; {
		case name == "" && i.picks && !from.Embedded:
			g.warnf(i.document, "companion-cluster", "companion: {cluster: …} in the configuration, and that cluster",
				"the chain has a picker and no companion: it knows no replica, and Envoy's own load balancer chooses")
		case name != "" && !i.has(g, name):
			g.errorf(i.document, "companion-cluster", i.addressOf(name, "add the cluster, which leads to the companion's port"),
				"there is no cluster %q, which companion.cluster names: Inlet gets no snapshot", name)
		}
	}
}

func providers(g *gateway) {
	for _, i := range g.documents() {
		for _, a := range i.asks {
			if i.has(g, a.cluster) {
				continue
			}
			line, column, note := i.place(a.at)
			g.found = append(g.found, Finding{
				File: g.file, Line: line, Column: column, Severity: Error, Check: "guardrail-cluster", Path: a.at.Path,
				Message: fmt.Sprintf("%sEnvoy has no cluster %q", note, a.cluster),
				Fix:     i.addressOf(a.cluster, "add it under static_resources.clusters, see docs/guardrail-providers.md"),
			})
		}
	}
}
