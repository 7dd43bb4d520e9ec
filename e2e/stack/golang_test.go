package stack

import (
	"os"
	"strings"
	"testing"

	typedv3 "github.com/cncf/xds/go/xds/type/v3"
	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inlet-proxy/inlet/shared/adapters/golang"
)

// golangBootstrap is the one for an Envoy with contrib extensions. None has loaded it: it is compared with the published types and with
// the bootstrap of the module.
func golangBootstrap(t *testing.T) *bootstrapv3.Bootstrap {
	t.Helper()
	b, err := LoadBootstrap(static(t, "golang.yaml"))
	require.NoError(t, err)
	return b
}

// golangFilter is Inlet's filter in it.
func golangFilter(t *testing.T, b *bootstrapv3.Bootstrap) (c *golangv3.Config) {
	t.Helper()
	require.NoError(t, editManager(b, func(m *hcmv3.HttpConnectionManager) error {
		c = unpack[*golangv3.Config](t, m.GetHttpFilters()[0].GetTypedConfig())
		return nil
	}))
	return c
}

// takeCompanion returns the companion's cluster and the list without it.
func takeCompanion(all []*clusterv3.Cluster) (found *clusterv3.Cluster, rest []*clusterv3.Cluster) {
	for _, c := range all {
		if c.GetName() == companionCluster {
			found = c
			continue
		}
		rest = append(rest, c)
	}
	return found, rest
}

// All messages in it are valid, those in other messages too.
func TestGolangBootstrapIsValid(t *testing.T) {
	seen := 0
	var check func(m protoreflect.Message)
	check = func(m protoreflect.Message) {
		if a, ok := m.Interface().(*anypb.Any); ok {
			inner, err := a.UnmarshalNew()
			require.NoError(t, err, a.GetTypeUrl())
			check(inner.ProtoReflect())
			return
		}
		if v, ok := m.Interface().(interface{ ValidateAll() error }); ok {
			seen++
			require.NoError(t, v.ValidateAll())
		}
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.IsMap():
				if f.MapValue().Message() != nil {
					v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
						check(v.Message())
						return true
					})
				}
			case f.Message() == nil:
			case f.IsList():
				for i := range v.List().Len() {
					check(v.List().Get(i).Message())
				}
			default:
				check(v.Message())
			}
			return true
		})
	}
	check(golangBootstrap(t).ProtoReflect())
	require.Greater(t, seen, 100)
}

func TestGolangBootstrapHasThePlugin(t *testing.T) {
	c := golangFilter(t, golangBootstrap(t))
	require.Equal(t, golang.PluginName, c.GetPluginName())
	require.Equal(t, "dist/"+GolangPlugin.File, c.GetLibraryPath())
	value := unpack[*typedv3.TypedStruct](t, c.GetPluginConfig()).GetValue().AsMap()
	document, err := os.ReadFile(static(t, "inlet.yaml"))
	require.NoError(t, err)
	require.Equal(t, string(document), value["config"])

	module, err := LoadBootstrap(static(t, "module.yaml"))
	require.NoError(t, err)
	companion, _ := takeCompanion(module.GetStaticResources().GetClusters())
	address := companion.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress()
	require.EqualValues(t, 9002, address.GetPortValue())
	require.Equal(t, map[string]any{"inlet-companion": "http://" + address.GetAddress() + ":9002"}, value["clusters"])
}

// It differs from the module's in the filter, the companion's cluster and the metrics' labels.
func TestGolangBootstrapDiffersOnlyInTheBuild(t *testing.T) {
	rest := func(b *bootstrapv3.Bootstrap) proto.Message {
		b.StatsConfig, b.LayeredRuntime = nil, nil
		_, b.StaticResources.Clusters = takeCompanion(b.GetStaticResources().GetClusters())
		require.NoError(t, editManager(b, func(m *hcmv3.HttpConnectionManager) error {
			m.GetHttpFilters()[0].ConfigType = nil
			return nil
		}))
		return b
	}
	module, err := LoadBootstrap(static(t, "module.yaml"))
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(rest(module), rest(golangBootstrap(t)), protocmp.Transform()))
}

// The labels are taken out of the metrics' names as in the wasm build. Two more are those of the embedded companion, which wasm has not: see
// TestEmbeddedMetricsHaveTags.
func TestGolangBootstrapHasTheTags(t *testing.T) {
	wasm, err := LoadBootstrap(static(t, "wasm.yaml"))
	require.NoError(t, err)
	tags := golangBootstrap(t).GetStatsConfig().GetStatsTags()
	require.Len(t, tags, len(wasm.GetStatsConfig().GetStatsTags())+2)
	for i, tag := range wasm.GetStatsConfig().GetStatsTags() {
		require.Equal(t, tag.GetTagName(), tags[i].GetTagName())
		require.Equal(t, strings.Replace(tag.GetRegex(), `^wasmcustom\.`, "^inlet_", 1), tags[i].GetRegex())
	}
}
