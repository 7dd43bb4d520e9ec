package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// gatewayRules are what a Gateway with Inlet must have. A new one is a function here, its name in ManifestChecks, and a broken manifest in manifests_test.go.
var gatewayRules = []func(*entrance){
	attachment, allowedModule, patchedWasm, clientPolicy, repliesPatch, backendPolicy, poolsHaveRoutes, patchedClusters, drainTime,
}

func attachment(g *entrance) {
	if others := g.on("EnvoyExtensionPolicy"); len(others) > 1 {
		for _, p := range others[1:] {
			p.in.errorf(p.get("metadata", "name"), "policy-attachment", "one EnvoyExtensionPolicy with all entries",
				"a second EnvoyExtensionPolicy on Gateway %s: only the older one counts", g.manifest.name())
		}
	}
	for _, p := range g.set.ofKind("EnvoyExtensionPolicy") {
		for _, t := range p.targets() {
			if strings.HasSuffix(t.get("kind").text(), "Route") && p.get("spec", "mergeType").text() == "" {
				p.in.errorf(t, "policy-attachment", "mergeType: StrategicMerge in its spec, or the same on the Gateway",
					"the policy replaces the one of the Gateway at %s %s: Inlet does not run there", t.get("kind").text(), t.get("name").text())
			}
		}
	}
	if at := g.entry.get("failOpen"); at.isTrue() {
		g.policy.in.errorf(at, "fail-open", "failOpen: false, the default", "failOpen is true: if the plugin cannot be loaded, requests pass without keys, limits and screening")
	}
}

// proxy is the EnvoyProxy of the Gateway, or else that of its class.
func (g *entrance) proxy() manifest {
	name := g.get("spec", "infrastructure", "parametersRef", "name").text()
	if name == "" {
		for _, c := range g.set.ofKind("GatewayClass") {
			if c.name() == g.get("spec", "gatewayClassName").text() {
				name = c.get("spec", "parametersRef", "name").text()
			}
		}
	}
	for _, p := range g.set.ofKind("EnvoyProxy") {
		if p.name() == name {
			return p
		}
	}
	return manifest{in: g.in}
}

func allowedModule(g *entrance) {
	if g.wasm || g.policy.kind() != "EnvoyExtensionPolicy" {
		return
	}
	if at := g.entry.get("filterName"); !slices.Contains(filterNames(), at.text()) {
		g.policy.in.errorf(at, "module-filter-name", "filterName: "+allFilters, "the module knows no filterName %q, and Envoy refuses it; known: %s", at.text(), strings.Join(filterNames(), ", "))
	}
	p := g.proxy()
	for _, m := range p.get("spec", "dynamicModules").items() {
		if m.get("name").text() != g.entry.get("name").text() {
			continue
		}
		if at := m.get("doNotClose"); !at.isTrue() {
			p.in.errorf(at, "module-do-not-close", "doNotClose: true", "doNotClose is not true: Go's runtime cannot be unloaded, so Envoy could crash when the last listener with this module goes")
		}
		if path := m.get("source", "local", "path"); !strings.HasPrefix(path.text(), "/") && !m.get("source", "remote").exists() {
			p.in.errorf(m, "module-allowed", "source: {local: {path: /usr/local/lib/inlet/libinlet.so}}", "the module %s has no path", m.get("name").text())
		}
		return
	}
	p.in.errorf(p.get("spec", "dynamicModules"), "module-allowed", "dynamicModules: [{name: inlet, source: {local: {path: …}}, doNotClose: true}] in the EnvoyProxy that the Gateway names",
		"no EnvoyProxy of Gateway %s lists the module %q: Envoy Gateway refuses the policy, and every route responds with 500", g.manifest.name(), g.entry.get("name").text())
}

// patches are those of the Gateway.
func (g *entrance) patches() []node {
	var all []node
	for _, p := range g.on("EnvoyPatchPolicy") {
		all = append(all, p.get("spec", "jsonPatches").items()...)
	}
	return all
}

// sets reports whether a patch sets something, the value being the last step of its path. One that looks for the name of the filter does not: a
// running Envoy Gateway leaves the kind out of it, egctl does not, and a path that matches nothing counts as applied.
func (g *entrance) sets(name string, ok func(value node) bool) bool {
	return slices.ContainsFunc(g.patches(), func(p node) bool {
		if strings.Contains(p.get("operation", "json_path").text(), "envoyextensionpolicy/") {
			return false
		}
		path := p.get("operation", "path").text()
		return path[strings.LastIndex(path, "/")+1:] == name && ok(p.get("operation", "value"))
	})
}

func patchedWasm(g *entrance) {
	if !g.wasm {
		return
	}
	config := g.entry.get("typed_config", "config") // of a filter that is all patch
	if !config.get("allow_on_headers_stop_iteration").isTrue() && !g.sets("allow_on_headers_stop_iteration", node.isTrue) {
		g.policy.in.errorf(g.entry, "wasm-stop-iteration", "the EnvoyPatchPolicy of envoy/gateway/wasm",
			"no patch sets allow_on_headers_stop_iteration: no request with a body gets past Inlet, which waits for a body that Envoy never shows it")
	}
	reload := func(n node) bool { return n.text() == "FAIL_RELOAD" }
	if !reload(config.get("failure_policy")) && !g.sets("failure_policy", reload) {
		g.policy.in.errorf(g.entry, "wasm-failure-policy", "the EnvoyPatchPolicy of envoy/gateway/wasm",
			"no patch sets failure_policy to FAIL_RELOAD: a worker whose VM has crashed answers 503 from then on")
	}
	if url := g.entry.get("code", "image", "url"); url.exists() && !strings.Contains(url.text(), "@sha256:") {
		g.policy.in.warnf(url, "wasm-digest", "url: …@sha256:…", "the image %s has no digest: a tag is looked up again only when the policy changes, and proxies may differ", url.text())
	}
}

func clientPolicy(g *entrance) {
	policies := g.on("ClientTrafficPolicy")
	if len(policies) == 0 {
		g.in.errorf(g.get("metadata", "name"), "control-headers", "the ClientTrafficPolicy of envoy/gateway/base",
			"Gateway %s has no ClientTrafficPolicy: clients' own control headers are not removed, and bodies over 32 KiB get 413", g.manifest.name())
		return
	}
	for _, p := range policies {
		for _, t := range p.targets() {
			if at := t.get("sectionName"); at.exists() {
				p.in.warnf(at, "client-policy", "leave out sectionName", "the policy is on one listener: others of the same port, and new ones, do not have it")
			}
		}
	}
	p := policies[0]
	removed := map[string]bool{}
	for _, h := range p.get("spec", "headers", "earlyRequestHeaders", "remove").items() {
		removed[strings.ToLower(h.text())] = true
	}
	if g.chain != nil && !g.chain.TrustsControl() {
		for _, name := range g.chain.Control() {
			if !removed[name] {
				p.in.errorf(p.get("spec", "headers", "earlyRequestHeaders", "remove"), "control-headers", "- "+name+", in headers.earlyRequestHeaders.remove",
					"a client's own header %s is not removed before a route is matched: it could choose a route by itself", name)
			}
		}
	}
	if g.chain != nil {
		at := p.get("spec", "connection", "bufferLimit")
		if n, ok := quantity(at.text()); !ok || n < g.chain.BodyLimit() {
			p.in.errorf(at, "buffer-limit", "connection: {bufferLimit: 17Mi}, or a lower limits.body",
				"Envoy's buffers hold %s, and Inlet accepts bodies of %d bytes (limits.body): a larger body gets 413", cmpOr(at.text(), "32 KiB"), g.chain.BodyLimit())
		}
	}
	switch at := p.get("spec", "path", "escapedSlashesAction"); at.text() {
	case "", "UnescapeAndForward", "UnescapeAndRedirect":
	case "RejectRequest":
		p.in.warnf(at, "path-normalization", "escapedSlashesAction: UnescapeAndForward", "names of models have slashes, and clients escape them: GET /v1/models/meta%%2Fllama is refused")
	default:
		p.in.errorf(at, "path-normalization", "escapedSlashesAction: UnescapeAndForward", "escaped slashes are left in paths: a path may mean one thing to Inlet and another to the replica")
	}
	if at := p.get("spec", "path", "disableMergeSlashes"); at.isTrue() {
		p.in.errorf(at, "path-normalization", "leave it out", "slashes are not merged: a path may mean one thing to Inlet and another to the replica")
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// quantity reads a whole number of Kubernetes' form: 17Mi, 20M, 1048576.
func quantity(s string) (int64, bool) {
	for suffix, unit := range map[string]int64{"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 1e3, "M": 1e6, "G": 1e9} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseInt(digits, 10, 32)
			return n * unit, err == nil
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func repliesPatch(g *entrance) {
	if !g.sets("local_reply_config", node.exists) {
		g.in.warnf(g.get("metadata", "name"), "local-replies", "the EnvoyPatchPolicy of envoy/gateway/base", "Envoy's own 404, 413, 429, 503 and 504 are plain text, which SDKs cannot read")
	}
}

func backendPolicy(g *entrance) {
	if !g.picks {
		return
	}
	policies := g.on("BackendTrafficPolicy")
	if len(policies) == 0 {
		g.in.errorf(g.get("metadata", "name"), "override-host", "the BackendTrafficPolicy of envoy/gateway/base", "Gateway %s has no BackendTrafficPolicy: what Inlet picks is ignored", g.manifest.name())
		return
	}
	p := policies[0]
	follows := false
	for _, from := range p.get("spec", "loadBalancer", "endpointOverride", "extractFrom").items() {
		if at := from.get("header"); at.text() == "" {
			p.in.errorf(from, "override-host", "{header: "+endpointHeader+"}", "an entry without a header: Envoy refuses the clusters")
		}
		follows = follows || strings.EqualFold(from.get("header").text(), endpointHeader)
	}
	if !follows {
		p.in.errorf(p.get("spec", "loadBalancer"), "override-host", "endpointOverride: {extractFrom: [{header: "+endpointHeader+"}]}", "the policy does not read %s: what Inlet picks is ignored", endpointHeader)
	}
	routing := p.get("spec", "routingType")
	if !routing.exists() {
		routing = g.proxy().get("spec", "routingType")
	}
	if routing.text() == "Service" {
		p.in.errorf(p.get("spec", "routingType"), "override-host", "routingType: Endpoint in this policy", "clusters consist of ClusterIPs, of which Inlet picks none: Envoy ignores what it picks")
	}
	switch at := p.get("spec", "timeout", "http", "requestTimeout"); {
	case !at.exists():
		p.in.errorf(p.get("spec", "timeout"), "route-timeout", "timeout: {http: {requestTimeout: 0s}}", "routes have no timeout of their own: Envoy's default cuts responses after 15 s")
	case at.text() != "0s" && at.text() != "0":
		p.in.warnf(at, "route-timeout", "requestTimeout: 0s, and a streamIdleTimeout", "routes cut responses after %s, also those that are streaming", at.text())
	}
	retries := false
	for _, trigger := range p.get("spec", "retry", "retryOn", "triggers").items() {
		retries = retries || trigger.text() == "connect-failure"
	}
	if !retries {
		p.in.warnf(p.get("spec", "retry"), "route-retry", "retry: {retryOn: {triggers: [connect-failure, refused-stream, reset-before-request]}}",
			"what could not connect is not tried again: of the endpoints that Inlet lists only the first is ever used")
	}
}

func poolsHaveRoutes(g *entrance) {
	catches := false
	matched := map[string]bool{}
	for _, r := range g.set.ofKind("HTTPRoute") {
		if !slices.ContainsFunc(r.get("spec", "parentRefs").items(), func(p node) bool { return p.get("name").text() == g.manifest.name() }) {
			continue
		}
		for _, rule := range r.get("spec", "rules").items() {
			matches := rule.get("matches").items()
			catches = catches || len(matches) == 0 && len(r.get("spec", "hostnames").items()) == 0
			for _, m := range matches {
				headers := m.get("headers").items()
				catches = catches || len(headers) == 0 && !m.get("method").exists() && !m.get("queryParams").exists() && m.get("path", "value").text() == "/" && len(r.get("spec", "hostnames").items()) == 0
				for _, h := range headers {
					if strings.EqualFold(h.get("name").text(), poolHeader) {
						matched[h.get("value").text()] = true
					}
				}
			}
		}
	}
	for _, p := range g.pools {
		if !matched[p.name] {
			g.policy.in.errorf(g.entry, "pool-route", "an HTTPRoute with matches: [{headers: [{name: "+poolHeader+", value: "+p.name+"}]}]", "no route matches the pool %q, which the configuration names: its requests get 404", p.name)
		}
	}
	if !catches {
		g.in.errorf(g.get("metadata", "name"), "last-route", "the HTTPRoute no-pool of envoy/gateway/base", "no route of Gateway %s catches all: Inlet runs only at routes, and never sees a request that matches none before its pool is known", g.manifest.name())
	}
}

// adds reports whether a patch adds a cluster.
func (g *entrance) adds(cluster string) bool {
	return slices.ContainsFunc(g.patches(), func(p node) bool {
		return strings.HasSuffix(p.get("type").text(), ".Cluster") && p.get("operation", "op").text() == "add" && p.get("operation", "value", "name").text() == cluster
	})
}

func patchedClusters(g *entrance) {
	if g.chain != nil {
		from := g.chain.Companion()
		switch name := from.Cluster; {
		case name == "" && g.picks && !from.Embedded:
			g.policy.in.warnf(g.entry, "companion-cluster", "companion: {cluster: inlet-companion} in the configuration", "the chain has a picker and no companion: it knows no replica, and Envoy's own load balancer chooses")
		case name != "" && !g.adds(name) && !strings.HasPrefix(name, "httproute/"):
			g.policy.in.errorf(g.entry, "companion-cluster", "the EnvoyPatchPolicy of envoy/gateway/base", "no patch adds the cluster %q, which companion.cluster names: Inlet gets no snapshot", name)
		}
	}
	for _, a := range g.asks {
		if !g.adds(a.cluster) && !strings.HasPrefix(a.cluster, "httproute/") {
			line, column, note := g.place(a.at)
			g.policy.in.found = append(g.policy.in.found, Finding{
				File: g.policy.in.file, Line: line, Column: column, Severity: Error, Check: "guardrail-cluster", Path: a.at.Path,
				Message: fmt.Sprintf("%sno patch adds the cluster %q", note, a.cluster), Fix: "add it by a patch, as inlet-companion; see envoy/static/guardrail-providers.yaml",
			})
		}
	}
}

// shortestDrain is what a proxy should at least wait for its streams.
const shortestDrain = 5 * time.Minute

func drainTime(g *entrance) {
	p := g.proxy()
	at := p.get("spec", "shutdown", "drainTimeout")
	if d, err := time.ParseDuration(at.text()); err != nil || d < shortestDrain {
		p.in.warnf(at, "drain", "shutdown: {drainTimeout: 600s} in the EnvoyProxy", "proxies that end wait %s for their streams: longer responses are cut at every rollout", cmpOr(at.text(), "60s, the default,"))
	}
}

// workloads checks objects that are not Envoy Gateway's.
func workloads(m manifest) {
	switch m.kind() {
	case "Deployment", "StatefulSet", "DaemonSet":
		if at := m.get("spec", "template", "spec", "enableServiceLinks"); at.text() != "false" {
			m.in.warnf(at, "service-links", "enableServiceLinks: false", "the pods of %s get variables of every Service, such as VLLM_PORT, which programs take for their own", m.name())
		}
	case "Service":
		if m.name() == "vllm" {
			m.in.errorf(m.get("metadata", "name"), "service-links", "another name", "a Service called vllm makes VLLM_PORT in pods, at which vLLM ends")
		}
	case "PodDisruptionBudget":
		if at := m.get("spec", "minAvailable"); at.exists() {
			m.in.warnf(at, "eviction", "maxUnavailable: 1, and unhealthyPodEvictionPolicy: AlwaysAllow", "with as many pods as minAvailable no node of theirs can be drained")
		}
	}
}
