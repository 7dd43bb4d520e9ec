package stack

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/internal/companion/embedded"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

func static(t *testing.T, name string) string {
	t.Helper()
	root, err := Root()
	require.NoError(t, err)
	return filepath.Join(root, "envoy", "static", name)
}

// unpack returns the message inside an Any.
func unpack[T proto.Message](t *testing.T, a *anypb.Any) T {
	t.Helper()
	m, err := a.UnmarshalNew()
	require.NoError(t, err)
	require.IsType(t, *new(T), m)
	return m.(T)
}

// TestBootstrapsHoldTheDocument compares the configuration inside the bootstraps with inlet.yaml.
func TestBootstrapsHoldTheDocument(t *testing.T) {
	want, err := os.ReadFile(static(t, "inlet.yaml"))
	require.NoError(t, err)
	for _, abi := range []string{Wasm, Module} {
		b, err := LoadBootstrap(static(t, abi+".yaml"))
		require.NoError(t, err)
		var document *anypb.Any
		require.NoError(t, editManager(b, func(m *hcmv3.HttpConnectionManager) error {
			filter := m.GetHttpFilters()[0].GetTypedConfig()
			if abi == Wasm {
				document = unpack[*wasmv3.Wasm](t, filter).GetConfig().GetConfiguration()
			} else {
				document = unpack[*modulev3.DynamicModuleFilter](t, filter).GetFilterConfig()
			}
			return nil
		}))
		require.Equal(t, string(want), unpack[*wrapperspb.StringValue](t, document).GetValue(), abi)
	}
}

// TestBootstrapsRemoveControlHeaders compares the headers that Envoy removes early with the chain's list.
func TestBootstrapsRemoveControlHeaders(t *testing.T) {
	for _, abi := range []string{Wasm, Module} {
		b, err := LoadBootstrap(static(t, abi+".yaml"))
		require.NoError(t, err)
		var removed []string
		require.NoError(t, editManager(b, func(m *hcmv3.HttpConnectionManager) error {
			for _, extension := range m.GetEarlyHeaderMutationExtensions() {
				for _, mutation := range unpack[*earlyv3.HeaderMutation](t, extension.GetTypedConfig()).GetMutations() {
					removed = append(removed, mutation.GetRemove())
				}
			}
			return nil
		}))
		require.ElementsMatch(t, filter.ControlHeaders, removed, abi)
	}
}

// TestBootstrapsDifferOnlyInTheBuild removes what may differ, and compares the rest.
func TestBootstrapsDifferOnlyInTheBuild(t *testing.T) {
	rest := func(abi string) proto.Message {
		b, err := LoadBootstrap(static(t, abi+".yaml"))
		require.NoError(t, err)
		b.StatsConfig, b.LayeredRuntime = nil, nil
		require.NoError(t, editManager(b, func(m *hcmv3.HttpConnectionManager) error {
			m.GetHttpFilters()[0].ConfigType = nil
			return nil
		}))
		return b
	}
	differences := cmp.Diff(rest(Wasm), rest(Module), protocmp.Transform())
	for line := range strings.Lines(differences) {
		if strings.HasPrefix(line, "-") || strings.HasPrefix(line, "+") {
			require.Contains(t, line, "inlet", "only the source of `why` may differ:\n%s", differences)
			require.Contains(t, line, "why")
		}
	}
	require.NotEmpty(t, differences)
}

var update = flag.Bool("update", false, "write envoy/static/module-embedded.yaml again")

// embedding is how module-embedded.yaml differs from module.yaml.
var embedding = []struct{ old, new string }{
	{
		`# Envoy with Inlet as a native dynamic module. Run it from the root of the repository, after ` + "`make build`" + `:
#
#   envoy -c envoy/static/module.yaml
#
# eds/ lists the replicas, inlet.yaml is Inlet's configuration, and ` + "`dist/companion --config envoy/static/companion.yaml`" + ` starts
# the companion that scrapes them. wasm.yaml is the same gateway with the wasm plugin: the two
# differ in the Inlet filter, in where the access log finds ` + "`why`" + `, and in how the metrics get their names.
`,
		`# Envoy with Inlet as a native dynamic module, and the companion inside it: one Envoy and one .so are all that runs. Run it from the root of
# the repository, after ` + "`make build`" + `:
#
#   envoy -c envoy/static/module-embedded.yaml
#
# eds/ lists the replicas; Envoy and the companion read the same files. This is module.yaml but for the companion: a test compares the two, and
# ` + "`go test ./e2e/stack -run TestEmbeddedBootstrap -update`" + ` writes this file.
`,
	},
	{"# the same text as inlet.yaml\n", "# the same text as inlet.yaml, but for the companion\n"},
	{
		"                          companion: {cluster: inlet-companion}\n",
		`                          companion:
                            embedded: # finds and scrapes the replicas; the keys are those of the companion's own file
                              scrape: {interval: 100ms}
                              pools: # the same lists of replicas that Envoy reads
                                - {name: llama, eds: envoy/static/eds/llama.yaml, engine: vllm}
                                - {name: gemma, eds: envoy/static/eds/gemma.yaml, engine: vllm}
`,
	},
	{
		`    - name: inlet-companion
      type: STATIC
      connect_timeout: 1s
      load_assignment:
        cluster_name: inlet-companion
        endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9002}}}}]}]
`, "",
	},
}

// TestEmbeddedBootstrap makes module-embedded.yaml of module.yaml.
func TestEmbeddedBootstrap(t *testing.T) {
	text, err := os.ReadFile(static(t, "module.yaml"))
	require.NoError(t, err)
	want := string(text)
	for _, e := range embedding {
		require.Equal(t, 1, strings.Count(want, e.old), "module.yaml has no more, or twice: %s", e.old)
		want = strings.Replace(want, e.old, e.new, 1)
	}
	file := static(t, "module-embedded.yaml")
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
	}
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want, string(have), "run `go test ./e2e/stack -run TestEmbeddedBootstrap -update`")
	b, err := LoadBootstrap(file)
	require.NoError(t, err)
	require.Len(t, b.GetStaticResources().GetClusters(), 2)
}

// TestEveryLabelHasATag compares the wasm bootstrap's stats_tags with the labels in the code: a label without a tag would
// become part of the metric's name.
func TestEveryLabelHasATag(t *testing.T) {
	b, err := LoadBootstrap(static(t, "wasm.yaml"))
	require.NoError(t, err)
	var tags []string
	for _, tag := range b.GetStatsConfig().GetStatsTags() {
		tags = append(tags, tag.GetTagName())
	}
	require.ElementsMatch(t, labelsInCode(t), tags)
}

// TestEmbeddedMetricsHaveTags: contrib's Go filter knows no labels, so they are part of a metric's name until golang.yaml's stats_tags take
// them out; the embedded companion's, too.
func TestEmbeddedMetricsHaveTags(t *testing.T) {
	b, err := LoadBootstrap(static(t, "golang.yaml"))
	require.NoError(t, err)
	for _, m := range embedded.Metrics {
		name := m.Name
		for _, l := range m.Labels {
			name += ";" + l + "=x.y"
		}
		found, rest := map[string]string{}, name
		for _, tag := range b.GetStatsConfig().GetStatsTags() {
			if m := regexp.MustCompile(tag.GetRegex()).FindStringSubmatch(name); m != nil {
				found[tag.GetTagName()] = m[2]
				rest = strings.Replace(rest, m[1], "", 1)
			}
		}
		require.Equal(t, m.Name, rest)
		for _, l := range m.Labels {
			require.Equal(t, "x.y", found[l], name)
		}
		require.Len(t, found, len(m.Labels), name)
	}
}

// labelsInCode are the labels of all metrics that filters and chain define.
func labelsInCode(t *testing.T) []string {
	t.Helper()
	root, err := Root()
	require.NoError(t, err)
	define := regexp.MustCompile(`\.(?:Counter|Gauge|Histogram)\("inlet_[a-z_]+"((?:, "[a-z_]+")*)\)`)
	label := regexp.MustCompile(`[a-z_]+`)
	found := map[string]bool{}
	for _, part := range []string{"filters", "internal", "shared"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, part), func(path string, _ os.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") ||
				strings.Contains(path, "/adapters/module/") { // wasm has none of these
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range define.FindAllStringSubmatch(string(text), -1) {
				for _, l := range label.FindAllString(m[1], -1) {
					found[l] = true
				}
			}
			return err
		}))
	}
	require.NotEmpty(t, found)
	return slices.Sorted(maps.Keys(found))
}

func TestParseSample(t *testing.T) {
	for line, want := range map[string]Sample{
		`a 1`:            {Name: "a", Labels: map[string]string{}, Value: 1},
		`a{} 0`:          {Name: "a", Labels: map[string]string{}},
		`a{b="c, d}"} 2`: {Name: "a", Labels: map[string]string{"b": "c, d}"}, Value: 2},
		`a_bucket{b="x=\"1\"",le="+Inf"} 1e3`: {
			Name: "a_bucket", Labels: map[string]string{"b": `x="1"`, "le": "+Inf"}, Value: 1000,
		},
	} {
		got, err := parseSample(line)
		require.NoError(t, err, line)
		require.Equal(t, want, got, line)
	}
	for _, line := range []string{"", "a", "a x", "1a 1", "a{b 1"} {
		_, err := parseSample(line)
		require.Error(t, err, line)
	}
}

func TestAccessLogRefusesWhatIsNotJSON(t *testing.T) {
	l := newAccessLog()
	l.add(`{"request_id":"1","status":200}`)
	l.add(`not JSON`)
	a, err := l.from(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, 200, a.Status)
	_, err = l.from(t.Context(), 1)
	require.ErrorContains(t, err, "not JSON")
}

// The commands in the comments of the shipped bootstraps uncomment the lines of a recipe and change no other, not even their own.
func TestRecipesByTheirCommands(t *testing.T) {
	for file, recipes := range map[string][]string{
		"wasm.yaml": {"cors"}, "golang.yaml": {"cors"}, "module.yaml": {"cors", "native-lb"}, "module-embedded.yaml": {"cors", "native-lb"},
	} {
		text, err := os.ReadFile(static(t, file))
		require.NoError(t, err)
		for _, recipe := range recipes {
			name := file + " " + recipe
			command := regexp.MustCompile("run `sed -i '([^'`]*#" + recipe + " [^'`]*)' *`").FindSubmatch(text)
			require.NotNil(t, command, name)
			sed := exec.CommandContext(t.Context(), "sed", string(command[1]))
			sed.Stdin = bytes.NewReader(text)
			have, err := sed.Output()
			require.NoError(t, err, name)
			want := regexp.MustCompile("(?m)^( *)#"+recipe+" ").ReplaceAll(text, []byte("$1"))
			require.NotEqual(t, string(text), string(want), name)
			require.Empty(t, cmp.Diff(string(want), string(have)), name)
		}
	}
}
