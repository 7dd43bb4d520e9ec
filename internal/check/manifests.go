package check

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ManifestChecks are the names of the checks of Kubernetes manifests, each with what it is about. Those of Checks with the same name are about the same.
var ManifestChecks = []struct{ Name, About string }{
	{"yaml", "the files are YAML or JSON"},
	{"configuration", "the chain's configuration is right"},
	{"no-inlet", "a policy puts Inlet on a Gateway"},
	{"policy-attachment", "Inlet's policy is on the Gateway, is the only one there, and no route's policy replaces it"},
	{"fail-open", "Inlet's policy does not let requests pass when it cannot be loaded"},
	{"module-allowed", "module: the EnvoyProxy of the Gateway lists it, with the path of its file"},
	{"module-filter-name", "module: filterName is inlet, or the name of one filter"},
	{"module-do-not-close", "module: doNotClose is true"},
	{"wasm-stop-iteration", "wasm: a patch sets allow_on_headers_stop_iteration"},
	{"wasm-failure-policy", "wasm: a patch sets failure_policy to FAIL_RELOAD"},
	{"wasm-digest", "wasm: the image is named by its digest"},
	{"control-headers", "clients' own control headers are removed before a route is matched"},
	{"buffer-limit", "buffers hold the largest body that Inlet accepts"},
	{"path-normalization", "a path has one spelling for Inlet and for the replica"},
	{"client-policy", "the ClientTrafficPolicy is on the whole Gateway"},
	{"local-replies", "Envoy's own errors have a form that SDKs understand"},
	{"pool-route", "each pool has a route"},
	{"last-route", "a route catches all"},
	{"override-host", "the clusters of pools use the endpoints that Inlet picked, and consist of pods"},
	{"route-timeout", "the routes of pools have no timeout"},
	{"route-retry", "the routes of pools try the next endpoint of the list"},
	{"companion-cluster", "a patch makes the companion's cluster"},
	{"guardrail-cluster", "patches make the clusters of guardrail's providers"},
	{"drain", "proxies that end wait for streams"},
	{"eviction", "a PodDisruptionBudget lets nodes be drained"},
	{"service-links", "pods get no variables of Services, and no Service has a name that makes variables of vLLM"},
}

// ManifestFile is a file of Kubernetes manifests.
type ManifestFile struct {
	Name string
	Text []byte
}

// manifest is one object of a file.
type manifest struct {
	node
	in *bootstrap // its file, which has the findings
}

func (m manifest) kind() string { return m.get("kind").text() }
func (m manifest) name() string { return m.get("metadata", "name").text() }

// manifests are a set that is being checked.
type manifests struct {
	all      []manifest
	gateways []*entrance
}

// entrance is a Gateway with Inlet on it.
type entrance struct {
	manifest
	set    *manifests
	policy manifest // that has Inlet: an EnvoyExtensionPolicy, or an EnvoyPatchPolicy
	entry  node     // Inlet's entry in it
	*inlet
}

// Manifests checks a set of Kubernetes manifests that put Inlet on Envoy Gateway: what of envoy/gateway is missing, or was changed to what does not work.
// It looks at nothing but the files.
func Manifests(files []ManifestFile) []Finding {
	set := &manifests{}
	var read []*bootstrap
	for _, f := range files {
		b := &bootstrap{file: f.Name, text: f.Text}
		read = append(read, b)
		set.read(b)
	}
	set.findGateways()
	for _, g := range set.gateways {
		for _, rule := range gatewayRules {
			rule(g)
		}
	}
	if len(set.gateways) == 0 && len(read) > 0 {
		read[0].errorf(node{}, "no-inlet", "an EnvoyExtensionPolicy whose targetRefs name the Gateway, as in envoy/gateway/module",
			"no Gateway has Inlet on it: neither an EnvoyExtensionPolicy nor an EnvoyPatchPolicy puts it there")
	}
	for _, m := range set.all {
		workloads(m)
	}
	var found []Finding
	for _, b := range read {
		found = append(found, sorted(b.found)...)
	}
	return found
}

// read adds the objects of a file, those of lists too.
func (s *manifests) read(b *bootstrap) {
	for d := yaml.NewDecoder(bytes.NewReader(b.text)); ; {
		var root yaml.Node
		if err := d.Decode(&root); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			b.malformed(err)
			return
		}
		if len(root.Content) == 0 {
			continue
		}
		n := newNode(root.Content[0])
		if items := n.get("items").items(); strings.HasSuffix(n.get("kind").text(), "List") && items != nil {
			for _, item := range items {
				s.all = append(s.all, manifest{item, b})
			}
			continue
		}
		s.all = append(s.all, manifest{n, b})
	}
}

// ofKind are the objects of a kind.
func (s *manifests) ofKind(kind string) []manifest {
	return slices.DeleteFunc(slices.Clone(s.all), func(m manifest) bool { return m.kind() != kind })
}

// targets are what a policy is on.
func (m manifest) targets() []node {
	all := m.get("spec", "targetRefs").items()
	if t := m.get("spec", "targetRef"); t.exists() {
		all = append(all, t)
	}
	return all
}

// isOn reports whether a policy names an object.
func (m manifest) isOn(kind, name string) bool {
	return slices.ContainsFunc(m.targets(), func(t node) bool { return t.get("kind").text() == kind && t.get("name").text() == name })
}

// on are the policies of a kind that name this Gateway.
func (g *entrance) on(kind string) []manifest {
	return slices.DeleteFunc(g.set.ofKind(kind), func(m manifest) bool { return !m.isOn("Gateway", g.manifest.name()) })
}

// findGateways finds the Gateways with Inlet.
func (s *manifests) findGateways() {
	for _, gateway := range s.ofKind("Gateway") {
		g := &entrance{manifest: gateway, set: s}
		for _, p := range g.on("EnvoyExtensionPolicy") {
			for _, list := range []string{"dynamicModule", "wasm"} {
				for _, e := range p.get("spec", list).items() {
					g.take(p, e, e.get("config"), list == "wasm")
				}
			}
		}
		for _, p := range g.on("EnvoyPatchPolicy") {
			for _, patch := range p.get("spec", "jsonPatches").items() {
				if value := patch.get("operation", "value"); value.get("typed_config").is("filters.http.wasm.v3.Wasm") {
					g.takePatched(p, value)
				}
			}
		}
		if g.inlet != nil {
			s.gateways = append(s.gateways, g)
		}
	}
}

// take is for an entry of an EnvoyExtensionPolicy.
func (g *entrance) take(p manifest, entry, config node, wasm bool) {
	text := []byte("{}")
	if config.exists() {
		text, _ = yaml.Marshal(config.value) // of a tree that was parsed
	}
	if entry.get("name").text() != "inlet" && !looksLikeChain(text) {
		return
	}
	i := &inlet{config: entry, document: config, wasm: wasm, text: text, name: entry.get("filterName").text()}
	p.in.readDocument(i, func([]string) placing { return byPath(config) })
	g.policy, g.entry, g.inlet = p, entry, i
}

// takePatched is for a filter that a patch adds.
func (g *entrance) takePatched(p manifest, filter node) {
	if i := p.in.inlet(filter); i != nil {
		g.policy, g.entry, g.inlet = p, filter, i
	}
}
