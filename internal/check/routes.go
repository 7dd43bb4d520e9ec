package check

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/shared/adapters/module/balancer"
)

// poolRoutes checks for each pool that a route leads from it to a cluster that follows the picker.
func poolRoutes(g *gateway) {
	if len(g.hosts()) == 0 {
		return // routes come by RDS
	}
	checked := map[string]bool{}
	for _, i := range g.documents() {
		for _, p := range i.pools {
			if checked[p.name] {
				continue
			}
			checked[p.name] = true
			found := false
			for _, host := range g.hosts() {
				if r := g.routeOf(host, p.name); r.exists() {
					found = true
					g.checkRoute(host, r, p, i.picks)
				}
			}
			if !found {
				g.errorf(g.manager.get("route_config", "virtual_hosts"), "pool-route",
					"- match: {prefix: /, headers: [{name: "+poolHeader+", string_match: {exact: "+p.name+"}}]}, and its cluster",
					"no route matches the pool %q, which the configuration names: its requests get 404", p.name)
			}
		}
	}
}

// routeOf finds the route of a virtual host that a request of a pool takes, as far as the pool decides it.
func (g *gateway) routeOf(host node, pool string) node {
	for _, r := range host.get("routes").items() {
		named, matches := matchesPool(r, pool)
		if !matches || r.get("direct_response").exists() || r.get("redirect").exists() {
			continue
		}
		// A route that does not ask for the pool serves all, if it leads anywhere.
		if named || slices.ContainsFunc(clusters(r, pool), func(c node) bool { return g.mayHave(c.text()) }) {
			return r
		}
	}
	return node{}
}

// matchesPool reports whether a route asks for the pool's header, and whether it matches a pool.
func matchesPool(r node, pool string) (named, matches bool) {
	matches = true
	for _, h := range r.get("match", "headers").items() {
		if !strings.EqualFold(h.get("name").text(), poolHeader) {
			continue
		}
		named = true
		inverted := h.get("invert_match").isTrue()
		matches = matches && matchesText(h, pool) != inverted
	}
	return named, matches
}

// matchesText reports whether a header matcher takes a value. One that is not known here is taken to.
func matchesText(h node, value string) bool {
	m := h.get("string_match")
	for _, form := range []struct {
		at      node
		matches func(want string) bool
	}{
		{m.get("exact"), func(want string) bool { return value == want }},
		{h.get("exact_match"), func(want string) bool { return value == want }},
		{m.get("prefix"), func(want string) bool { return strings.HasPrefix(value, want) }},
		{h.get("prefix_match"), func(want string) bool { return strings.HasPrefix(value, want) }},
		{m.get("suffix"), func(want string) bool { return strings.HasSuffix(value, want) }},
		{h.get("suffix_match"), func(want string) bool { return strings.HasSuffix(value, want) }},
		{m.get("contains"), func(want string) bool { return strings.Contains(value, want) }},
		{m.get("safe_regex", "regex"), func(want string) bool { return matchesAll(want, value) }},
		{h.get("safe_regex_match", "regex"), func(want string) bool { return matchesAll(want, value) }},
		{h.get("present_match"), func(want string) bool { return want == "true" }},
	} {
		if form.at.exists() {
			return form.matches(form.at.text())
		}
	}
	return true
}

func matchesAll(expr, value string) bool {
	re, err := regexp.Compile("^(?:" + expr + ")$")
	return err != nil || re.MatchString(value) // Envoy judges the expression
}

// clusters are those to which a route leads; for cluster_header the one that the pool's name names.
func clusters(r node, pool string) []node {
	action := r.get("route")
	if c := action.get("cluster"); c.exists() {
		return []node{c}
	}
	if h := action.get("cluster_header"); strings.EqualFold(h.text(), poolHeader) {
		named := *h.value
		named.Value = pool
		return []node{{&named, h.place}}
	}
	var all []node
	for _, c := range action.get("weighted_clusters", "clusters").items() {
		all = append(all, c.get("name"))
	}
	return all
}

// checkRoute checks a pool's route and what it leads to.
func (g *gateway) checkRoute(host, r node, p pool, picks bool) {
	action := r.get("route")
	at := action.get("timeout")
	switch limit, ok := seconds(at.text()); {
	case !at.exists():
		g.errorf(action, "route-timeout", "timeout: 0s", "the route of pool %q has no timeout of its own: Envoy's default cuts responses after 15 s", p.name)
	case ok && limit > 0:
		g.warnf(at, "route-timeout", "timeout: 0s, and an idle_timeout", "the route of pool %q cuts responses after %s, also those that are streaming", p.name, at.text())
	}
	for _, c := range clusters(r, p.name) {
		if !g.mayHave(c.text()) {
			g.errorf(c, "route-cluster", "add the cluster, or correct the name", "there is no cluster %q, to which the route of pool %q leads", c.text(), p.name)
			continue
		}
		if cluster := g.cluster(c.text()); cluster.exists() && picks && !p.external {
			if g.checkPicked(cluster, p.name) {
				g.checkPredicate(retryPolicy(host, action), p.name)
			}
		}
	}
	if picks && !p.external {
		g.checkRetry(host, action, p.name)
	}
}

// retryPolicy is that of a route, or of its virtual host.
func retryPolicy(host, action node) node {
	if policy := action.get("retry_policy"); policy.exists() {
		return policy
	}
	return host.get("retry_policy")
}

func (g *gateway) checkRetry(host, action node, pool string) {
	policy := retryPolicy(host, action)
	at, on := action, ""
	if policy.exists() {
		at, on = policy, policy.get("retry_on").text()
	}
	if !strings.Contains(on, "connect-failure") {
		g.warnf(at, "route-retry", "retry_policy: {retry_on: 'connect-failure,refused-stream,reset-before-request', num_retries: 2}",
			"the route of pool %q does not retry what could not connect: of the endpoints that Inlet lists only the first is ever used", pool)
	}
}

// checkPicked checks that a cluster sends a request where the picker says. It reports whether the module's own policy does that.
func (g *gateway) checkPicked(cluster node, pool string) (native bool) {
	name := cluster.get("name").text()
	policies := cluster.get("load_balancing_policy", "policies").items()
	for _, p := range policies {
		config := p.get("typed_extension_config", "typed_config")
		if config.is("dynamic_modules.v3.DynamicModulesLoadBalancerConfig") {
			g.checkNative(config, name, pool)
			return true
		}
		if !config.is("override_host.v3.OverrideHost") {
			continue
		}
		if !slices.ContainsFunc(config.get("override_host_sources").items(), func(s node) bool {
			return strings.EqualFold(s.get("header").text(), endpointHeader)
		}) {
			g.errorf(config.get("override_host_sources"), "override-host", "override_host_sources: [{header: "+endpointHeader+"}]",
				"the cluster %q of pool %q does not read %s: what Inlet picks is ignored", name, pool, endpointHeader)
		}
		if !servesKey(config) {
			g.warnf(config.get("selected_host_key"), "served-endpoint", "selected_host_key: {key: envoy.lb, path: [{key: "+servedKey+"}]} (Envoy 1.37 and newer)",
				"the cluster %q of pool %q does not tell Inlet which endpoint served: after a retry the wrong one is charged", name, pool)
		}
		return false
	}
	g.errorf(cluster.get("load_balancing_policy"), "override-host", "load_balancing_policy with envoy.load_balancing_policies.override_host, as in envoy/static/wasm.yaml",
		"the cluster %q of pool %q has no override_host policy: what Inlet picks is ignored", name, pool)
	return false
}

// checkNative checks the module's own policy.
func (g *gateway) checkNative(config node, cluster, pool string) {
	if at := config.get("lb_policy_name"); at.text() != balancer.Name {
		g.errorf(at, "native-lb", "lb_policy_name: "+balancer.Name, "the module has one policy, called %s: Envoy refuses lb_policy_name %q of the cluster %q", balancer.Name, at.text(), cluster)
	}
	if at := config.get("dynamic_module_config", "do_not_close"); !at.isTrue() {
		g.errorf(at, "native-lb", "do_not_close: true", "do_not_close is not true: Go's runtime cannot be unloaded, so Envoy could crash when the cluster %q goes", cluster)
	}
	document := config.get("lb_policy_config", "value")
	if document.exists() && document.value.Kind != yaml.ScalarNode {
		return // a Struct, which Envoy hands over as JSON
	}
	settings, err := balancer.Read([]byte(document.text()))
	switch {
	case err != nil:
		g.errorf(document, "native-lb", "see docs/load-balancing.md", "the policy of the cluster %q: %v", cluster, err)
	case settings.Header != endpointHeader:
		g.errorf(document, "native-lb", "header: "+endpointHeader, "the cluster %q of pool %q does not read %s: what Inlet picks is ignored", cluster, pool, endpointHeader)
	}
}

// checkPredicate checks what tells the module's own policy where a request has been.
func (g *gateway) checkPredicate(policy node, pool string) {
	if policy.exists() && !slices.ContainsFunc(policy.get("retry_host_predicate").items(), func(p node) bool {
		return p.get("typed_config").is("previous_hosts.v3.PreviousHostsPredicate")
	}) {
		g.errorf(policy, "native-lb", "retry_host_predicate: envoy.retry_host_predicates.previous_hosts, as in envoy/static/module.yaml",
			"the route of pool %q has no predicate previous_hosts: a retry goes to the endpoint that has just failed", pool)
	}
}

func servesKey(config node) bool {
	key := config.get("selected_host_key")
	steps := key.get("path").items()
	return key.get("key").text() == "envoy.lb" && len(steps) == 1 && steps[0].get("key").text() == servedKey
}

// lastRoute checks where requests go before Inlet has chosen a pool.
func lastRoute(g *gateway) {
	for _, host := range g.hosts() {
		routes := host.get("routes").items()
		var last node
		for _, r := range routes {
			if named, _ := matchesPool(r, ""); !named && catchesAll(r) {
				last = r
				break
			}
		}
		const fix = "- {match: {prefix: /}, route: {cluster: no-pool, cluster_not_found_response_code: NOT_FOUND, timeout: 0s}}, and validate_clusters: false"
		if !last.exists() {
			g.errorf(host.get("routes"), "last-route", fix,
				"no route matches before Inlet has chosen a pool: cors and rate limits in front of Inlet do nothing")
			continue
		}
		if direct := last.get("direct_response"); direct.exists() {
			g.errorf(direct, "last-route", fix,
				"the route that catches all is a direct_response: before Inlet has chosen a pool, cors and rate limits in front of it do nothing at such a route")
			continue
		}
		validates := g.manager.get("route_config", "validate_clusters")
		if c := last.get("route", "cluster"); c.exists() && !g.mayHave(c.text()) && validates.text() != "false" {
			g.errorf(c, "last-route", "validate_clusters: false in route_config",
				"the route that catches all leads to a cluster that does not exist, %q: Envoy refuses that unless validate_clusters is false", c.text())
		}
	}
}

// catchesAll reports whether a route takes any request.
func catchesAll(r node) bool {
	m := r.get("match")
	return m.get("prefix").text() == "/" && len(m.get("headers").items()) == 0 && len(m.get("query_parameters").items()) == 0
}
