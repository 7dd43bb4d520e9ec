package check

import (
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// allFilters is the filter_name of the module for all filters; each has its own besides.
const allFilters = "inlet"

// filterNames are those of the module.
func filterNames() []string {
	names := []string{allFilters}
	for _, f := range filters.All {
		names = append(names, f.Name)
	}
	return names
}

// knownTo are the filters that a configuration for a filter_name of the module may name; all if there is no such name.
func knownTo(name string) []filter.Factory {
	if i := slices.IndexFunc(filters.All, func(f filter.Factory) bool { return f.Name == name }); i >= 0 {
		return filters.All[i : i+1]
	}
	return filters.All
}

// scopes are the parts of the routes in which filters may have configurations.
func (g *gateway) scopes() []node {
	all := []node{g.manager.get("route_config")}
	for _, host := range g.hosts() {
		all = append(all, host)
		for _, r := range host.get("routes").items() {
			all = append(append(all, r), r.get("route", "weighted_clusters", "clusters").items()...)
		}
	}
	return all
}

// readRoutes reads the documents of routes, which replace those of the filters.
func (g *gateway) readRoutes() {
	for _, scope := range g.scopes() {
		for _, i := range g.inlets {
			own := scope.get("typed_per_filter_config").member(i.filter.get("name").text())
			if own.is("route.v3.FilterConfig") {
				if own = own.get("config"); own.get("@type").text() == "" {
					continue // the filter is only turned on or off
				}
			}
			if !own.exists() {
				continue
			}
			if i.golang && own.is("golang.v3alpha.ConfigsPerRoute") {
				g.golangRoute(own, i)
				continue
			}
			if i.wasm || i.golang || !own.is("dynamic_modules.v3.DynamicModuleFilterPerRoute") {
				g.errorf(own, "per-route", "a DynamicModuleFilterPerRoute for the module, ConfigsPerRoute for contrib's Go filter; for a wasm plugin a listener or filter chain of its own",
					"only the module takes a configuration per route, as DynamicModuleFilterPerRoute: a wasm plugin never sees it")
				continue
			}
			g.readRoute(own)
		}
	}
}

func (g *gateway) readRoute(own node) {
	name := own.get("filter_name")
	if older := own.get("per_route_config_name"); name.text() == "" && older.exists() {
		name = older
	}
	r := &inlet{filter: own, config: own, document: own.get("filter_config"), name: name.text()}
	if !slices.Contains(filterNames(), r.name) {
		g.errorf(name, "per-route", "filter_name: "+allFilters, "the module knows no filter_name %q; known: %s", r.name, strings.Join(filterNames(), ", "))
		r.name = allFilters
	}
	where := r.readText()
	g.readDocument(r, where)
	g.routed = append(g.routed, r)
}

// documents are all configurations, those of routes last.
func (g *gateway) documents() []*inlet { return slices.Concat(g.inlets, g.routed) }

// routeCompanion checks that routes name the companion of some listener: routes ask nobody.
func routeCompanion(g *gateway) {
	for _, r := range g.routed {
		if r.chain == nil {
			continue
		}
		name := r.chain.Companion().Cluster
		asked := slices.ContainsFunc(g.inlets, func(i *inlet) bool {
			return i.chain == nil || name != "" && i.chain.Companion().Cluster == name
		})
		if name != "" && !asked {
			g.errorf(r.document, "per-route-companion", "companion: {cluster: "+name+"} in the configuration of the filter, too",
				"the configuration of a route names companion cluster %q, which that of no filter here names: nobody asks it", name)
		}
	}
}
