package e2e_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// threeMistakes is a configuration with three mistakes, and these are their lines in
// Envoy's log.
const threeMistakes = `filters:
  - bbr:
      models:
        - {name: llama, targets: [{model: llama-3-8b, pol: llama}]}
  - picker: {endpoints: none}
compnion: {cluster: inlet-companion}
`

var mistakesFound = []string{
	`configuration: filters[0].bbr.models[0].targets[0]: 4:55: unknown key "pol" (did you mean "pool"?)`,
	`configuration: filters[1].picker.endpoints: 5:25: found the string "none", want a whole number`,
	`configuration: 6:1: unknown key "compnion" (did you mean "companion"?)`,
}

// TestShippedBootstraps: Envoy accepts the shipped bootstraps unchanged, and with the
// other shipped configurations.
func TestShippedBootstraps(t *testing.T) {
	documents, err := filepath.Glob("../envoy/static/inlet-*.yaml")
	require.NoError(t, err)
	require.Len(t, documents, 4)
	for _, name := range append(slices.Clone(abis), "module-embedded") {
		t.Run(name, func(t *testing.T) {
			b, err := stack.LoadBootstrap("../envoy/static/" + name + ".yaml")
			require.NoError(t, err)
			// As further listeners, which cost no second compilation.
			shipped := proto.CloneOf(b)
			for _, file := range documents {
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				another := proto.CloneOf(shipped)
				setDocument(another, string(text))
				listener := another.GetStaticResources().GetListeners()[0]
				listener.Name = filepath.Base(file)
				listener.GetAddress().GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{}
				b.StaticResources.Listeners = append(b.GetStaticResources().GetListeners(), listener)
			}
			log, err := validate(t, b)
			require.NoError(t, err, log)
			require.NotContains(t, log, "inlet: companion: ", "an embedded companion starts with Envoy's main loop")
		})
	}
}

// TestMistakesAreAllTold: one attempt shows every mistake with its position.
func TestMistakesAreAllTold(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			refused := updateOf(t, abi)(func(b *bootstrapv3.Bootstrap) { setDocument(b, threeMistakes) })
			require.NotNil(t, refused, "Envoy accepts it")
			for _, mistake := range mistakesFound {
				require.Contains(t, refused.Details, mistake)
			}
		})
	}
}

// TestDocumentAsMessage: a configuration given as a Struct is accepted, or the error says what to use instead; as text in
// bytes it is accepted.
func TestDocumentAsMessage(t *testing.T) {
	tree, err := structpb.NewStruct(map[string]any{"filters": []any{map[string]any{"bbr": map[string]any{}}}, "limits": map[string]any{"depth": 100}})
	require.NoError(t, err)
	for _, abi := range abis {
		update := updateOf(t, abi)
		for name, c := range map[string]struct {
			message proto.Message
			refused string // the wasm plugin's error; the module accepts it
		}{
			"Struct":     {tree, "give it as a StringValue"},
			"BytesValue": {wrapperspb.Bytes([]byte("filters: [bbr: {}]")), ""},
		} {
			t.Run(abi+", "+name, func(t *testing.T) {
				as, err := anypb.New(c.message)
				require.NoError(t, err)
				refused := update(func(b *bootstrapv3.Bootstrap) {
					setConfiguration(b, func(a *anypb.Any) { a.TypeUrl, a.Value = as.GetTypeUrl(), as.GetValue() })
				})
				if abi == stack.Wasm && c.refused != "" {
					require.NotNil(t, refused, "Envoy accepts it")
					require.Contains(t, refused.Details, c.refused)
					return
				}
				require.Nil(t, refused)
			})
		}
	}
}

// updateOf starts an Envoy whose configuration can be changed. The change returns what Envoy says if it refuses it.
func updateOf(t *testing.T, abi string) (change func(func(*bootstrapv3.Bootstrap)) *stack.Refused) {
	t.Helper()
	s := stack.ForTest(t, stack.Options{ABI: abi, NoCompanion: true, Pools: []stack.Pool{{Name: "llama"}}, Updatable: true})
	return func(edit func(*bootstrapv3.Bootstrap)) *stack.Refused {
		var refused *stack.Refused
		if err := s.Update(t.Context(), func(o *stack.Options) { o.Edit = edit }); !errors.As(err, &refused) {
			require.NoError(t, err)
		}
		return refused
	}
}

// validate runs envoy --mode validate at the root of the repository and returns its
// output.
func validate(t *testing.T, b *bootstrapv3.Bootstrap) (log string, err error) {
	t.Helper()
	envoy, err := envoybin.Find(t.Context(), envoybin.Options{})
	require.NoError(t, err)
	root, err := stack.Root()
	require.NoError(t, err)
	text, err := protojson.Marshal(b)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "envoy.json")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	cmd := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "-c", file, "--concurrency", "1", "-l", "warning")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// setDocument puts a configuration into the Inlet filter.
func setDocument(b *bootstrapv3.Bootstrap, document string) {
	editManager(b, func(m *hcmv3.HttpConnectionManager) { setManagerDocument(m, document) })
}

func setManagerDocument(m *hcmv3.HttpConnectionManager, document string) {
	setManagerConfiguration(m, func(a *anypb.Any) {
		editAny(a, func(v *wrapperspb.StringValue) { v.Value = document })
	})
}

// setConfiguration changes the configuration of the Inlet filter.
func setConfiguration(b *bootstrapv3.Bootstrap, set func(*anypb.Any)) {
	editManager(b, func(m *hcmv3.HttpConnectionManager) { setManagerConfiguration(m, set) })
}

func setManagerConfiguration(m *hcmv3.HttpConnectionManager, set func(*anypb.Any)) {
	setFilterConfiguration(inletFilter(m).GetTypedConfig(), set)
}

func setFilterConfiguration(filter *anypb.Any, set func(*anypb.Any)) {
	if filter.MessageIs(&wasmv3.Wasm{}) {
		editAny(filter, func(w *wasmv3.Wasm) { set(w.GetConfig().GetConfiguration()) })
	} else {
		editAny(filter, func(f *modulev3.DynamicModuleFilter) { set(f.GetFilterConfig()) })
	}
}
