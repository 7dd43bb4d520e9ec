package check

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The plugin of contrib's Go filter has its document in a struct, beside the addresses of the clusters that it calls.

// isGolang reports whether the configuration of a filter is contrib's.
func (n node) isGolang() bool { return n.is("filters.http.golang.v3alpha.Config") }

// readStruct finds the text of the document in plugin_config.
func (i *inlet) readStruct() func(file []string) placing {
	i.clusters = i.document.get("value", "clusters")
	value := i.document.get("value", "config")
	if text := value.text(); text != "" || !value.exists() {
		i.text = []byte(text)
		return func(file []string) placing { return inScalar(value, file) }
	}
	i.text, _ = yaml.Marshal(value.value) // of a tree that was parsed
	return func([]string) placing { return byPath(value) }
}

// has reports whether a cluster has an address: one of Envoy's, or one that the plugin is told.
func (i *inlet) has(g *gateway, cluster string) bool {
	if i.golang {
		return i.clusters.member(cluster).exists()
	}
	return g.mayHave(cluster)
}

func golangPlugin(g *gateway) {
	for _, i := range g.inlets {
		if !i.golang {
			continue
		}
		if at := i.config.get("plugin_name"); !slices.Contains(filterNames(), at.text()) {
			g.errorf(at, "golang-plugin-name", "plugin_name: "+allFilters, "the plugin has no plugin_name %q, and Envoy lets all requests pass; known: %s", at.text(), strings.Join(filterNames(), ", "))
		}
		if t := i.document; t.exists() && !t.is("xds.type.v3.TypedStruct") && !t.is("udpa.type.v1.TypedStruct") && !t.is("google.protobuf.Struct") {
			g.errorf(t.get("@type"), "golang-configuration", `"@type": type.googleapis.com/xds.type.v3.TypedStruct, and config and clusters in value`,
				"the plugin takes a struct only")
		}
	}
}

// golangRoute reads the document of a route.
func (g *gateway) golangRoute(own node, i *inlet) {
	r := &inlet{filter: own, config: own, golang: true, name: i.name, document: own.get("plugins_config").member(i.name).get("config")}
	if r.document.exists() {
		g.readDocument(r, r.readText())
		g.routed = append(g.routed, r)
	}
}

// addressOf says what to do about a cluster that has no address.
func (i *inlet) addressOf(cluster, otherwise string) string {
	if i.golang {
		return fmt.Sprintf(`clusters: {%s: "http://host:port"} in plugin_config, beside config`, cluster)
	}
	return otherwise
}
