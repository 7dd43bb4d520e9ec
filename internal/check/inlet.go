package check

import (
	"encoding/base64"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/filters/guardrail"
	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// inlet is one Inlet filter of a connection manager.
type inlet struct {
	filter   node   // the HTTP filter
	config   node   // its typed_config
	wasm     bool   // else a dynamic module, unless golang is set
	golang   bool   // a plugin of contrib's Go filter
	document node   // the Any that holds the chain's configuration
	file     string // name of the .wasm or .so file, without folders; "" if it is not a file
	name     string // module: filter_name; golang: plugin_name
	clusters node   // golang: addresses of the clusters that the plugin calls

	text  []byte       // the chain's configuration
	chain *chain.Chain // nil if it has faults
	pools []pool       // that it can send a request to
	picks bool         // it has a picker
	asks  []asked      // of its guardrail's providers
	place placing      // says where in the file something of the configuration is
}

// asked is the cluster of a guardrail's provider, and where in the configuration it stands.
type asked struct {
	cluster string
	at      conf.Error
}

// pool is a name that a chain gives to routes.
type pool struct {
	name     string
	external bool // somebody else's service: nothing is picked there
}

// inlet returns the HTTP filter as one of Inlet, nil if it is another one.
func (b *bootstrap) inlet(f node) *inlet {
	i := &inlet{filter: f, config: f.get("typed_config")}
	var file, name node
	switch {
	case i.config.is("filters.http.wasm.v3.Wasm"):
		i.wasm = true
		i.document = i.config.get("config", "configuration")
		file = i.config.get("config", "vm_config", "code", "local", "filename")
		name = i.config.get("config", "name")
	case i.config.is("filters.http.dynamic_modules.v3.DynamicModuleFilter"):
		i.document = i.config.get("filter_config")
		file = i.config.get("dynamic_module_config", "module", "local", "filename")
		name = i.config.get("filter_name")
		if n := i.config.get("dynamic_module_config", "name").text(); n == "inlet" { // found as libinlet.so
			i.file = "libinlet.so"
		}
	case i.config.isGolang():
		i.golang = true
		i.document = i.config.get("plugin_config")
		file = i.config.get("library_path")
		name = i.config.get("plugin_name")
	default:
		return nil
	}
	if !i.wasm {
		i.name = name.text()
	}
	if file.exists() {
		i.file = path.Base(file.text())
	}
	where := i.readText()
	if name.text() != "inlet" && f.get("name").text() != "inlet" && !isBuild(i.file) && !looksLikeChain(i.text) {
		return nil
	}
	b.readDocument(i, where)
	return i
}

// isBuild reports whether a file has the name of one of Inlet's builds.
func isBuild(file string) bool {
	return file == "libinlet.so" || file == "inlet.wasm" || file == "inlet-golang.so" || len(alone(file)) == 1
}

// alone is the one filter of a build that has only that.
func alone(file string) []filter.Factory {
	name, ok := strings.CutSuffix(file, ".wasm")
	i := slices.IndexFunc(filters.All, func(f filter.Factory) bool { return f.Name == name })
	if !ok || i < 0 {
		return nil
	}
	return filters.All[i : i+1]
}

func looksLikeChain(text []byte) bool {
	var document struct {
		Filters []map[string]any `yaml:"filters"`
	}
	return yaml.Unmarshal(text, &document) == nil && len(document.Filters) > 0
}

// placing says where in the file an error of the chain's configuration is.
type placing func(e conf.Error) (line, column int, note string)

// readText finds the text of the chain's configuration in its Any.
func (i *inlet) readText() func(file []string) placing {
	if i.golang {
		return i.readStruct()
	}
	value := i.document.get("value")
	switch t := i.document; {
	case t.is("google.protobuf.StringValue"):
		i.text = []byte(value.text())
		return func(file []string) placing { return inScalar(value, file) }
	case t.is("google.protobuf.BytesValue"):
		i.text, _ = base64.StdEncoding.DecodeString(value.text()) // a fault leaves it empty, which is then reported
		return func([]string) placing { return atNode(value) }
	case t.is("google.protobuf.Struct"):
		if value.exists() {
			i.text, _ = yaml.Marshal(value.value) // of a tree that was parsed
		}
		return func([]string) placing { return byPath(value) }
	}
	return func([]string) placing { return atNode(i.document) }
}

// readDocument makes the chain and reports the faults of its configuration.
func (b *bootstrap) readDocument(i *inlet, where func([]string) placing) {
	if !i.document.exists() {
		b.errorf(i.config, "configuration", `give it as {"@type": type.googleapis.com/google.protobuf.StringValue, value: …}`, "Inlet's filter has no configuration")
		return
	}
	known := knownTo(i.name)
	if one := alone(i.file); one != nil {
		known = one
	}
	var options []chain.Option
	if !i.wasm {
		options = append(options, Embed())
	}
	c, warnings, err := load(i.text, known, options...)
	i.place = where(lines(b.text))
	b.found = append(b.found, documentFindings(warnings, err, i.place, b.file)...)
	if err == nil {
		i.chain = c
	}
	// Also with faults, so that those of the bootstrap are reported with them.
	var root yaml.Node
	if yaml.Unmarshal(i.text, &root) == nil && len(root.Content) > 0 {
		i.readPools(newNode(root.Content[0]))
		i.readAsked(newNode(root.Content[0]))
	}
}

// readAsked collects the clusters of the guardrail's providers.
func (i *inlet) readAsked(tree node) {
	for n, f := range tree.get("filters").items() {
		for k, p := range f.get(guardrail.Factory.Name, "providers").items() {
			for _, protocol := range provider.Protocols {
				cluster := p.get(protocol.Name, "cluster")
				if cluster.text() == "" {
					continue // a fault of the configuration, if it should have one
				}
				path := fmt.Sprintf("filters[%d].%s.providers[%d].%s.cluster", n, guardrail.Factory.Name, k, protocol.Name)
				i.asks = append(i.asks, asked{cluster.text(), conf.Error{Path: path, Line: cluster.value.Line, Column: cluster.value.Column}})
			}
		}
	}
}

// readPools collects the pools to which the chain can send a request.
func (i *inlet) readPools(tree node) {
	external := map[string]bool{}
	add := func(n node) {
		if name := n.text(); name != "" && !slices.ContainsFunc(i.pools, func(p pool) bool { return p.name == name }) {
			i.pools = append(i.pools, pool{name, external[name]})
		}
	}
	for _, f := range tree.get("filters").items() {
		bbr := f.get("bbr")
		for _, p := range bbr.get("pools").items() {
			external[p.get("name").text()] = p.get("external").isTrue()
		}
		for _, m := range bbr.get("models").items() {
			for _, t := range m.get("targets").items() {
				add(t.get("pool"))
			}
			for _, name := range m.get("fallback").items() {
				add(name)
			}
		}
		if picker := f.get("picker"); picker.exists() {
			i.picks = true
			add(picker.get("pool"))
		}
	}
}

// atNode points at the value, and says where in it.
func atNode(n node) placing {
	return func(e conf.Error) (int, int, string) {
		if n.place == nil {
			return 1, 1, ""
		}
		return n.place.Line, n.place.Column, fmt.Sprintf("at %d:%d of the configuration: ", e.Line, e.Column)
	}
}

// inScalar finds a place of the text within the file's own lines, if it stands there as a block (value: |).
func inScalar(n node, file []string) placing {
	if n.value == nil || n.value.Style&yaml.LiteralStyle == 0 {
		return atNode(n)
	}
	text := strings.Split(n.value.Value, "\n")
	first := slices.IndexFunc(text, func(line string) bool { return strings.TrimSpace(line) != "" })
	begin := n.value.Line // the line after the |, counted from 0
	if first < 0 || begin+first >= len(file) {
		return atNode(n)
	}
	shift := indent(file[begin+first]) - indent(text[first])
	return func(e conf.Error) (int, int, string) { return begin + e.Line, shift + e.Column, "" }
}

var step = regexp.MustCompile(`^(?:\.?([^.\[\]"]+)|\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\])`)

// byPath finds a place by its path, for a configuration that is part of the file's own tree.
func byPath(root node) placing {
	return func(e conf.Error) (int, int, string) {
		at := root
		for rest := e.Path; rest != ""; {
			m := step.FindStringSubmatch(rest)
			if m == nil {
				break
			}
			rest = rest[len(m[0]):]
			var next node
			if n, err := strconv.Atoi(m[2]); err == nil {
				if items := at.items(); n < len(items) {
					next = items[n]
				}
			} else {
				next = at.member(m[1] + m[3])
			}
			if !next.exists() {
				break
			}
			at = next
		}
		if at.place == nil {
			return 1, 1, ""
		}
		return at.place.Line, at.place.Column, ""
	}
}
