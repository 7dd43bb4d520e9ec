package check

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// bootstrap is an Envoy bootstrap that is being checked.
type bootstrap struct {
	file   string
	text   []byte
	root   node
	static node
	found  []Finding
}

// gateway is an HTTP connection manager with Inlet among its filters.
type gateway struct {
	*bootstrap
	listener node
	manager  node
	filters  []node // HTTP filters, in order
	inlets   []*inlet
	routed   []*inlet // documents of routes
}

// IsBootstrap reports whether a file looks like an Envoy bootstrap, and not like a chain's configuration.
func IsBootstrap(text []byte) bool {
	var root yaml.Node
	if yaml.Unmarshal(text, &root) != nil || len(root.Content) == 0 {
		return false
	}
	n := newNode(root.Content[0])
	return slices.ContainsFunc([]string{"static_resources", "dynamic_resources", "admin", "node", "layered_runtime"}, func(name string) bool {
		return n.get(name).exists()
	})
}

// Bootstrap checks an Envoy bootstrap: every chain configuration in it, and what Inlet needs of Envoy.
func Bootstrap(file string, text []byte) []Finding {
	b := &bootstrap{file: file, text: text}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		b.malformed(err)
		return b.found
	}
	if len(root.Content) == 0 {
		b.found = append(b.found, Finding{File: file, Line: 1, Column: 1, Severity: Error, Check: "yaml", Message: "the file is empty"})
		return b.found
	}
	b.root = newNode(root.Content[0])
	b.static = b.root.get("static_resources")
	gateways := b.gateways()
	for _, g := range gateways {
		for _, r := range rules {
			r(g)
		}
	}
	if len(gateways) == 0 {
		b.errorf(b.static, "no-inlet", "put Inlet's filter before the router, as envoy/static/wasm.yaml and module.yaml do",
			"no HTTP connection manager of a static listener has Inlet in it (a wasm plugin or dynamic module that is called inlet, or whose configuration has a list `filters`)")
	}
	return sorted(b.found)
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

func (b *bootstrap) malformed(err error) {
	line, message := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits
		message = err.Error()[len(m[0]):]
	}
	b.found = append(b.found, Finding{File: b.file, Line: line, Column: 1, Severity: Error, Check: "yaml", Message: "malformed YAML: " + message})
}

func (b *bootstrap) add(at node, severity Severity, check, fix, format string, args ...any) {
	f := Finding{File: b.file, Line: 1, Column: 1, Severity: severity, Check: check, Message: fmt.Sprintf(format, args...), Fix: fix}
	if at.place != nil {
		f.Line, f.Column = at.place.Line, at.place.Column
	}
	b.found = append(b.found, f)
}

func (b *bootstrap) errorf(at node, check, fix, format string, args ...any) {
	b.add(at, Error, check, fix, format, args...)
}

func (b *bootstrap) warnf(at node, check, fix, format string, args ...any) {
	b.add(at, Warning, check, fix, format, args...)
}

// gateways finds the connection managers that have Inlet.
func (b *bootstrap) gateways() []*gateway {
	var all []*gateway
	for _, listener := range b.static.get("listeners").items() {
		chains := listener.get("filter_chains").items()
		if c := listener.get("default_filter_chain"); c.exists() {
			chains = append(chains, c)
		}
		for _, c := range chains {
			for _, f := range c.get("filters").items() {
				manager := f.get("typed_config")
				if !manager.is("http_connection_manager.v3.HttpConnectionManager") {
					continue
				}
				g := &gateway{bootstrap: b, listener: listener, manager: manager, filters: manager.get("http_filters").items()}
				for _, h := range g.filters {
					if i := b.inlet(h); i != nil {
						g.inlets = append(g.inlets, i)
					}
				}
				if len(g.inlets) > 0 {
					g.readRoutes()
					all = append(all, g)
				}
			}
		}
	}
	return all
}

// hosts are the virtual hosts that are in the file.
func (g *gateway) hosts() []node { return g.manager.get("route_config", "virtual_hosts").items() }

// cluster finds a static cluster.
func (b *bootstrap) cluster(name string) node {
	for _, c := range b.static.get("clusters").items() {
		if c.get("name").text() == name {
			return c
		}
	}
	return node{}
}

// mayHave reports whether a cluster exists or may come by CDS.
func (b *bootstrap) mayHave(cluster string) bool {
	return b.cluster(cluster).exists() || b.root.get("dynamic_resources", "cds_config").exists()
}

// seconds reads a duration of protobuf's JSON form: "600s".
func seconds(s string) (float64, bool) {
	digits, ok := strings.CutSuffix(s, "s")
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(digits, 64)
	return v, err == nil
}

// lines splits a text, without their ends.
func lines(text []byte) []string {
	return strings.Split(string(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))), "\n")
}

// indent is how many blanks a line begins with.
func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }
