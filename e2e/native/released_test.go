package native_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// discovered is the filter of the gateway, found by ECDS: a configuration lives as long as its last request, so Envoy destroys it on a
// worker. (By LDS it does so on the main thread.)
type discovered struct {
	t      *testing.T
	file   string
	filter *anypb.Any
}

// edit has the gateway find its filter here.
func (d *discovered) edit(b *bootstrapv3.Bootstrap) {
	editListener(gateway(b), func(m *hcmv3.HttpConnectionManager) {
		f := m.GetHttpFilters()[inletFilter(m)]
		d.filter = f.GetTypedConfig()
		f.ConfigType = &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
			TypeUrls: []string{d.filter.GetTypeUrl()},
			ConfigSource: &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{
				PathConfigSource: &corev3.PathConfigSource{Path: d.file, WatchedDirectory: &corev3.WatchedDirectory{Path: filepath.Dir(d.file)}},
			}},
		}}
	})
	d.write(0)
}

// write moves a version into place.
func (d *discovered) write(version int) {
	editAny(d.filter, func(m *modulev3.DynamicModuleFilter) {
		editAny(m.GetFilterConfig(), func(v *wrapperspb.StringValue) { v.Value = guarded(version) })
	})
	packed, err := anypb.New(&corev3.TypedExtensionConfig{Name: "inlet", TypedConfig: d.filter})
	require.NoError(d.t, err)
	text, err := protojson.Marshal(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{packed}})
	require.NoError(d.t, err)
	require.NoError(d.t, os.MkdirAll(filepath.Dir(d.file), 0o755))
	next := filepath.Dir(d.file) + ".next" // outside the folder that Envoy watches
	require.NoError(d.t, os.WriteFile(next, text, 0o600))
	require.NoError(d.t, os.Rename(next, d.file))
}

// reloads is how many versions Envoy has taken.
func reloads(t *testing.T, s *stack.Stack) (n int) {
	m, err := s.Metrics(t.Context())
	require.NoError(t, err)
	for _, x := range m {
		if strings.Contains(x.Name, "extension_config_discovery") && strings.HasSuffix(x.Name, "config_reload") {
			n += int(x.Value)
		}
	}
	return n
}

// threads are the threads on which Envoy wrote the lines that have a part.
func threads(t *testing.T, s *stack.Stack, part string) (all []string) {
	text, err := os.ReadFile(s.EnvoyLog())
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^\[[^]]*\]\[(\d+)\].*`+regexp.QuoteMeta(part)).FindAllSubmatch(text, -1) {
		all = append(all, string(m[1]))
	}
	return all
}

// TestDestroyedOnWorkers: configurations go with their last request, on its worker, when the reply to its call comes or its client leaves.
func TestDestroyedOnWorkers(t *testing.T) {
	guard, companion := newHolder(t, `{"results":[{"flagged":false,"categories":{},"category_scores":{}}]}`), newHolder(t, `{}`)
	d := &discovered{t: t, file: filepath.Join(t.TempDir(), "inlet", "ecds.json")}
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, Chain: guarded(0), NoCompanion: true, CompanionAddress: companion.address(),
		Pools: []stack.Pool{{Name: "llama", Replicas: 1, Args: []string{"--speed", "0"}}},
		Edit: func(b *bootstrapv3.Bootstrap) {
			addCluster(b, "guard", guard.address())
			d.edit(b)
		},
	})
	resp, err := http.Post(s.AdminURL()+"/logging?dynamic_modules=debug", "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	main := threads(t, s, "starting main dispatch loop")
	require.Len(t, main, 1)

	ask := func(ctx context.Context, n int) <-chan answer {
		all := make(chan answer, n)
		for range n {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			go func() { all <- do(ctx, client, s.URL()+chatPath, chat("llama")) }()
		}
		guard.waits(t, n)
		return all
	}
	const held = 4
	for round, leaves := range []bool{false, true} {
		eventually(t, "this version is in force", func() bool { return reloads(t, s) == round+1 })
		ctx, cancel := context.WithCancel(t.Context())
		answers := ask(ctx, held)
		d.write(round + 1)
		eventually(t, "Envoy has the next version", func() bool { return reloads(t, s) == round+2 })
		metric(t, s, 2, "inlet_configurations", "kind", "listener")
		if leaves {
			cancel()
		} else {
			guard.release()
		}
		for range held {
			if a := <-answers; !leaves {
				require.Equal(t, http.StatusOK, a.status, a)
				require.Equal(t, "version-"+strconv.Itoa(round), a.header.Get("x-modelsim-model"), "the old configuration decides")
			}
		}
		cancel()
		metric(t, s, 1, "inlet_configurations", "kind", "listener")
		guard.release()
		companion.release() // also polls of configurations that are gone
		now := ask(t.Context(), 1)
		guard.release()
		a := <-now
		require.Equal(t, "version-"+strconv.Itoa(round+1), a.header.Get("x-modelsim-model"), a)
		gone := threads(t, s, "a configuration is no longer in use")
		require.Len(t, gone, round+1)
		require.NotEqual(t, main[0], gone[round], "on a worker")
	}
	require.Zero(t, logged(t, s, "panic"))
	require.NoError(t, s.EndEnvoy(patience))
}
