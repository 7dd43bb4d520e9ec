package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	// The types that the bootstraps use only by name.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	balancerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/dynamic_modules/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/override_host/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// companionCluster is the companion's cluster in the shipped bootstraps.
const companionCluster = "inlet-companion"

// LoadBootstrap reads a bootstrap in YAML, strictly: a field that Envoy's API does not have is an error.
func LoadBootstrap(file string) (*bootstrapv3.Bootstrap, error) {
	return loadBootstrap(file, nil)
}

// loadBootstrap also uncomments recipes: the lines that begin with #name.
func loadBootstrap(file string, recipes []string) (*bootstrapv3.Bootstrap, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for _, r := range recipes {
		comment := []byte("#" + r + " ")
		if !bytes.Contains(text, comment) {
			return nil, fmt.Errorf("%s: no recipe %q", file, r)
		}
		text = bytes.ReplaceAll(text, comment, nil)
	}
	b := &bootstrapv3.Bootstrap{}
	if err := UnmarshalYAML(text, b); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}

// UnmarshalYAML reads a message of Envoy's API in YAML, strictly.
func UnmarshalYAML(text []byte, into proto.Message) error {
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return err
	}
	asJSON, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(asJSON, into)
}

// writeBootstrap writes a bootstrap and returns the file.
func (s *Stack) writeBootstrap(b *bootstrapv3.Bootstrap) (string, error) {
	text, err := protojson.Marshal(b)
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.Dir, "envoy.json")
	return file, os.WriteFile(file, text, 0o644)
}

// bootstrap is the shipped bootstrap with this stack's ports, pools and configuration.
func (s *Stack) bootstrap() (*bootstrapv3.Bootstrap, error) {
	shipped := s.o.ABI
	if shipped == None {
		shipped = Wasm
	}
	if s.o.Embedded {
		shipped += "-embedded"
	}
	recipes := s.o.Recipes
	if s.o.NativeLB {
		recipes = append(slices.Clip(recipes), "native-lb")
	}
	b, err := loadBootstrap(filepath.Join(s.Root, "envoy", "static", shipped+".yaml"), recipes)
	if err != nil {
		return nil, err
	}
	setPort(b.GetAdmin().GetAddress(), 0)
	setPort(b.GetStaticResources().GetListeners()[0].GetAddress(), s.o.Port)
	if err := s.setClusters(b); err != nil {
		return nil, err
	}
	if err := editManager(b, s.setManager); err != nil {
		return nil, err
	}
	if s.o.Edit != nil {
		s.o.Edit(b)
	}
	return b, nil
}

func setPort(a *corev3.Address, port int) {
	a.GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: uint32(port)}
}

// setClusters makes one cluster for each pool, each a copy of the first shipped one.
func (s *Stack) setClusters(b *bootstrapv3.Bootstrap) error {
	var clusters []*clusterv3.Cluster
	shipped := b.GetStaticResources().GetClusters()
	if s.o.NativeLB {
		policy := shipped[0].GetLoadBalancingPolicy().GetPolicies()[0].GetTypedExtensionConfig()
		if err := edit(policy.GetTypedConfig(), s.setModule); err != nil {
			return err
		}
	}
	for _, pool := range s.o.Pools {
		c := proto.CloneOf(shipped[0])
		c.Name = pool.Name
		c.EdsClusterConfig.EdsConfig.ConfigSourceSpecifier = &corev3.ConfigSource_PathConfigSource{
			PathConfigSource: &corev3.PathConfigSource{
				Path:             s.endpointFile(pool.Name),
				WatchedDirectory: &corev3.WatchedDirectory{Path: filepath.Dir(s.endpointFile(pool.Name))},
			},
		}
		clusters = append(clusters, c)
	}
	for _, c := range shipped {
		if c.GetName() == companionCluster {
			address := s.o.CompanionAddress
			if s.Companion != nil {
				address = s.Companion.Address()
			}
			port := 1 // nobody listens there
			if address != "" {
				var err error
				if port, err = portOf(address); err != nil {
					return err
				}
			}
			setPort(c.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress(), port)
			clusters = append(clusters, c)
		}
	}
	b.StaticResources.Clusters = clusters
	return nil
}

// setManager sets the routes and the Inlet filter.
func (s *Stack) setManager(m *hcmv3.HttpConnectionManager) error {
	host := m.GetRouteConfig().GetVirtualHosts()[0]
	perPool, last := host.GetRoutes()[0], host.GetRoutes()[len(host.GetRoutes())-1]
	var routes []*routev3.Route
	for _, pool := range s.o.Pools {
		r := proto.CloneOf(perPool)
		r.GetMatch().GetHeaders()[0].GetStringMatch().MatchPattern = exact(pool.Name)
		r.GetRoute().ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: pool.Name}
		routes = append(routes, r)
	}
	if s.o.DefaultPool != "" {
		last = proto.CloneOf(perPool)
		last.GetMatch().Headers = nil
		last.GetRoute().ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: s.o.DefaultPool}
	}
	host.Routes = append(routes, last)
	return s.setInlet(m)
}

// setInlet sets the file and the configuration of the Inlet filter.
func (s *Stack) setInlet(m *hcmv3.HttpConnectionManager) error {
	i := slices.IndexFunc(m.GetHttpFilters(), func(f *hcmv3.HttpFilter) bool { return f.GetName() == "inlet" })
	if i < 0 {
		return errors.New("the shipped bootstrap has no filter called inlet")
	}
	filter := m.GetHttpFilters()[i].GetTypedConfig()
	switch s.o.ABI {
	case None:
		m.HttpFilters = slices.Delete(m.GetHttpFilters(), i, i+1)
		return nil
	case Wasm:
		return edit(filter, func(w *wasmv3.Wasm) error {
			file := w.GetConfig().GetVmConfig().GetCode().GetLocal()
			file.Specifier = &corev3.DataSource_Filename{Filename: s.plugin(WasmPlugin)}
			return s.setDocument(w.GetConfig().GetConfiguration())
		})
	default:
		return edit(filter, func(f *modulev3.DynamicModuleFilter) error {
			file := f.GetDynamicModuleConfig().GetModule().GetLocal()
			file.Specifier = &corev3.DataSource_Filename{Filename: s.plugin(NativeModule)}
			return s.setDocument(f.GetFilterConfig())
		})
	}
}

// setModule sets the file of the load-balancing policy: the same as that of the filter. Envoy 1.38 finds it by name only.
func (s *Stack) setModule(c *balancerv3.DynamicModulesLoadBalancerConfig) error {
	path := s.plugin(NativeModule)
	if s.byName {
		module := c.GetDynamicModuleConfig()
		module.Module = nil
		module.Name = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "lib"), ".so")
		return nil
	}
	file := c.GetDynamicModuleConfig().GetModule().GetLocal()
	file.Specifier = &corev3.DataSource_Filename{Filename: path}
	return nil
}

// searchPath is the environment in which this Envoy finds the module by name.
func (s *Stack) searchPath() []string {
	if !s.byName {
		return nil
	}
	return []string{"ENVOY_DYNAMIC_MODULES_SEARCH_PATH=" + filepath.Dir(s.plugin(NativeModule))}
}

// findsByName reports whether this Envoy finds the modules of policies by name only, as 1.38 does.
func findsByName(ctx context.Context, envoy string) (bool, error) {
	out, err := exec.CommandContext(ctx, envoy, "--version").Output() // … version: <commit>/1.38.3/Clean/RELEASE/BoringSSL
	if err != nil {
		return false, fmt.Errorf("the version of %s: %w", envoy, err)
	}
	return strings.Contains(string(out), "/1.38."), nil
}

func (s *Stack) plugin(t Target) string {
	if s.o.Plugin != "" {
		return s.o.Plugin
	}
	return t.Path(s.Root)
}

// setDocument replaces the shipped configuration of the chain.
func (s *Stack) setDocument(a *anypb.Any) error {
	document, err := s.document()
	if err != nil || document == "" {
		return err
	}
	return edit(a, func(v *wrapperspb.StringValue) error {
		v.Value = document
		return nil
	})
}

// polled is where a chain's configuration names the companion of the shipped bootstraps.
var polled = regexp.MustCompile(`(?m)^companion: *\{ *cluster: *` + companionCluster + `[^}]*\}.*$`)

// document is the configuration of the chain, "" for the shipped one.
func (s *Stack) document() (string, error) {
	if !s.o.Embedded {
		return s.o.Chain, nil
	}
	document := s.o.Chain
	if document == "" {
		text, err := os.ReadFile(filepath.Join(s.Root, "envoy", "static", "inlet.yaml"))
		if err != nil {
			return "", err
		}
		document = string(text)
	}
	if strings.Contains(document, "embedded:") {
		return document, nil // it has one of its own
	}
	if !polled.MatchString(document) {
		return "", errors.New("the chain's configuration has no line `companion: {cluster: " + companionCluster + "}`, whose place the embedded companion takes")
	}
	section, err := json.Marshal(object{"embedded": s.scraping()})
	return polled.ReplaceAllLiteralString(document, "companion: "+string(section)), err
}

// editManager changes the HTTP connection manager of the one listener.
func editManager(b *bootstrapv3.Bootstrap, f func(*hcmv3.HttpConnectionManager) error) error {
	network := b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0]
	return edit(network.GetTypedConfig(), f)
}

// edit changes the message inside an Any.
func edit[T proto.Message](a *anypb.Any, f func(T) error) error {
	message, err := a.UnmarshalNew()
	if err != nil {
		return err
	}
	typed, ok := message.(T)
	if !ok {
		return fmt.Errorf("found a %s where the shipped bootstrap has another type", a.GetTypeUrl())
	}
	if err := f(typed); err != nil {
		return err
	}
	return a.MarshalFrom(message)
}

func portOf(address string) (int, error) {
	a, err := netip.ParseAddrPort(address)
	return int(a.Port()), err
}

func exact(value string) *matcherv3.StringMatcher_Exact {
	return &matcherv3.StringMatcher_Exact{Exact: value}
}
