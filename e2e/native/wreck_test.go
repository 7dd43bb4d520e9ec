package native_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inlet-proxy/inlet/e2e/native/wreck"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// wrecked is the module of all filters and the wreck.
var wrecked = stack.Target{
	File: "libinlet-wreck.so", Package: "./e2e/native/bundle-module", Flags: stack.NativeModule.Flags, Env: stack.NativeModule.Env,
}

// wreckDocument has the wreck last: of the filters that watch the replicas or learn from other proxies, the last one does.
func wreckDocument(n int, settings string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "filters:\n  - bbr:\n      models:\n        - {name: llama, targets: [{model: version-%d, pool: llama}]}\n", n)
	for i := range 50 {
		fmt.Fprintf(&b, "        - {name: model-%d, targets: [{model: served-%d-%d, pool: llama}]}\n", i, n, i)
	}
	fmt.Fprintf(&b, "  - picker: {}\n  - wreck: {%s}\ncompanion: {cluster: inlet-companion}\n", settings)
	return b.String()
}

// withOpen adds a route for requests with x-mode: open, whose document says FailOpen.
func withOpen(m *hcmv3.HttpConnectionManager, document string) {
	host := m.GetRouteConfig().GetVirtualHosts()[0]
	open := proto.CloneOf(host.GetRoutes()[0])
	open.GetMatch().Headers = []*routev3.HeaderMatcher{header("x-mode", "open")}
	open.TypedPerFilterConfig = map[string]*anypb.Any{"inlet": perRoute(m, "inlet", document)}
	host.Routes = append([]*routev3.Route{open}, host.GetRoutes()...)
}

func header(name, value string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
		StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}},
	}}
}

// TestWreck: a filter that panics wherever it can takes nothing down but its own exchange, and hundreds of configurations
// leave nothing behind.
func TestWreck(t *testing.T) {
	root, err := stack.Root()
	require.NoError(t, err)
	require.NoError(t, stack.Build(t.Context(), root, nil, wrecked))
	closed, open := wreckDocument(0, ""), wreckDocument(0, "failureMode: FailOpen")
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, Plugin: wrecked.Path(root), Updatable: true, Chain: closed,
		Pools: []stack.Pool{{Name: "llama", Replicas: 1, Args: []string{"--speed", "0"}}},
		Edit: func(b *bootstrapv3.Bootstrap) {
			editListener(gateway(b), func(m *hcmv3.HttpConnectionManager) { withOpen(m, open) })
		},
	})
	require.NoError(t, s.WaitForSnapshot(t.Context()))
	w := &wreckage{t: t, Stack: s}
	t.Run("exchanges", w.exchanges)
	t.Run("configurations", w.configurations)
	t.Run("background", w.background)
	t.Run("200 updates", w.updates)
	require.Zero(t, logged(t, s, "a secret"))
	require.NoError(t, s.EndEnvoy(patience))
}

type wreckage struct {
	t *testing.T
	*stack.Stack
}

// serves checks that Envoy still serves.
func (w *wreckage) serves(t *testing.T) answer {
	t.Helper()
	a := ask(t, w.URL()+chatPath, chat("llama"))
	require.Equal(t, http.StatusOK, a.status, a)
	return a
}

// h2 is a client whose requests may have trailers.
func h2() *http.Client {
	only := &http.Protocols{}
	only.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: only}}
}

func (w *wreckage) exchanges(t *testing.T) {
	client := h2()
	defer client.CloseIdleConnections()
	panics, failed := 0.0, map[string]float64{}
	for _, hook := range wreck.Hooks {
		for _, how := range []string{"nil", "value"} {
			for _, mode := range []string{"open", "closed"} {
				for _, form := range []string{"JSON", "stream", "trailers"} {
					body := chat("llama")
					if form == "stream" {
						body = strings.Replace(body, "{", `{"stream":true,`, 1)
					}
					var a answer
					if form == "trailers" {
						a = withTrailers(t.Context(), client, w.URL()+chatPath, body, "x-wreck", hook, "x-wreck-how", how, "x-mode", mode)
					} else {
						a = ask(t, w.URL()+chatPath, body, "x-wreck", hook, "x-wreck-how", how, "x-mode", mode)
					}
					what := fmt.Sprintf("%s %s %s %s: %v", hook, how, mode, form, a)
					require.NoError(t, a.err, what)
					failed[mode]++
					if hook != "unscreened" || mode == "open" { // otherwise nothing goes on unscreened
						panics++
					}
					switch harmless := hook == "firstByte" || hook == "done"; {
					case harmless || mode == "open":
						require.Equal(t, http.StatusOK, a.status, what)
					default:
						require.GreaterOrEqual(t, a.status, 500, what)
						require.Contains(t, a.body, `"error"`, what)
					}
					require.NotContains(t, a.body, "secret")
				}
			}
		}
		w.serves(t)
	}
	metric(t, w.Stack, panics, "wreck_panic_total")
	metric(t, w.Stack, failed["open"], "inlet_filter_failure_total", "filter", "wreck", "failure_mode", "FailOpen")
	metric(t, w.Stack, failed["closed"], "inlet_filter_failure_total", "filter", "wreck", "failure_mode", "FailClosed")
	metric(t, w.Stack, 0, "inlet_filter_failure_total", "filter", "adapter")
}

// withTrailers sends a body with trailers, which end it.
func withTrailers(ctx context.Context, client *http.Client, url, body string, headers ...string) answer {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, onlyReader{strings.NewReader(body)})
	if err != nil {
		return answer{err: err}
	}
	req.Trailer = http.Header{"X-End": {"here"}}
	return finish(client, req, headers...)
}

// onlyReader hides the length.
type onlyReader struct{ *strings.Reader }

// configurations: one that panics while it is made is refused, and the one before goes on.
func (w *wreckage) configurations(t *testing.T) {
	for i, at := range wreck.Making {
		bad := wreckDocument(i, fmt.Sprintf("at: %s, how: %s", at, []string{"nil", "value"}[i%2]))
		for name, change := range map[string]func(*stack.Options){
			"of the listener": func(o *stack.Options) { o.Chain = bad },
			"of a route": func(o *stack.Options) {
				o.Edit = func(b *bootstrapv3.Bootstrap) {
					editListener(gateway(b), func(m *hcmv3.HttpConnectionManager) { withOpen(m, bad) })
				}
			},
		} {
			var refused *stack.Refused
			require.ErrorAs(t, w.Update(t.Context(), change), &refused, at+" "+name)
			require.Contains(t, refused.Details, "panic", at+" "+name)
			w.serves(t)
		}
	}
}

// background: what runs on Envoy's main thread may panic all the time.
func (w *wreckage) background(t *testing.T) {
	for i, at := range wreck.Background {
		how := []string{"nil", "value"}[i%2]
		require.NoError(t, w.Update(t.Context(), func(o *stack.Options) { o.Chain = wreckDocument(i, fmt.Sprintf("at: %s, how: %s", at, how)) }))
		if at == "learn" { // from another proxy
			second, err := w.StartEnvoy(context.WithoutCancel(t.Context()))
			require.NoError(t, err)
			long := strings.Replace(chat("llama"), "Hello", strings.Repeat("a long prompt ", 200), 1)
			require.Equal(t, http.StatusOK, ask(t, second.URL()+chatPath, long).status)
			defer second.Close()
		}
		eventually(t, at+" panics", func() bool {
			w.serves(t)
			m, err := w.Metrics(t.Context())
			return err == nil && m.Sum("wreck_panic_total", "at", at) > 0
		})
	}
	require.NoError(t, w.Update(t.Context(), func(o *stack.Options) { o.Chain = wreckDocument(0, "") }))
}

// updates: 200 configurations under load, of the listener and of a route, leave no memory, goroutine or configuration behind.
func (w *wreckage) updates(t *testing.T) {
	const updates, settled = 200, 50
	goroutines := func() int {
		n, err := strconv.Atoi(w.serves(t).header.Get("x-wreck-goroutines"))
		require.NoError(t, err)
		return n
	}
	live := func() float64 {
		a := ask(t, w.URL()+chatPath, chat("llama"), "x-wreck-collect", "1")
		require.Equal(t, http.StatusOK, a.status, a)
		bytes, err := strconv.ParseFloat(a.header.Get("x-wreck-live"), 64)
		require.NoError(t, err)
		return bytes / 1e6
	}
	before := goroutines()
	used := live()
	stop := load(t, w.Stack, true, "x-mode", "open")
	var resident []float64
	for n := 1; n <= updates; n++ {
		require.NoError(t, w.Update(t.Context(), func(o *stack.Options) {
			o.Chain = wreckDocument(n, "")
			o.Edit = func(b *bootstrapv3.Bootstrap) {
				editListener(gateway(b), func(m *hcmv3.HttpConnectionManager) { withOpen(m, wreckDocument(n, "failureMode: FailOpen")) })
			}
		}))
		resident = append(resident, residentMB(t, w.EnvoyPID()))
	}
	require.NoError(t, stop())
	slope, noise := trend(resident[settled:])
	growth := slope * float64(updates-settled)
	t.Logf("resident after 1, %d, %d updates: %.1f, %.1f, %.1f MB; growth from then on %.2f MB, noise %.2f MB", settled, updates,
		resident[0], resident[settled], resident[updates-1], growth, noise)
	require.Equal(t, fmt.Sprintf("version-%d", updates), w.serves(t).header.Get("x-modelsim-model"))
	for _, kind := range []string{"listener", "route"} {
		eventually(t, "one configuration of a "+kind, func() bool {
			require.Equal(t, http.StatusOK, ask(t, w.URL()+chatPath, chat("llama"), "x-wreck-collect", "1").status)
			m, err := w.Metrics(t.Context())
			return err == nil && m.Sum("inlet_configurations", "kind", kind) == 1
		})
	}
	eventually(t, fmt.Sprintf("no more than %d goroutines", before), func() bool { return goroutines() <= before })
	// A configuration takes more than 100 KB, so 200 of them would be seen.
	eventually(t, "Go uses no more memory than before", func() bool { return live() < used+5 })
	t.Logf("Go's memory in use: %.1f MB before, %.1f MB after", used, live())
	require.Less(t, growth, 3*noise, "resident memory grows with the number of updates: %v", resident)
}

// load sends requests from four clients until it is stopped, two of which make a new connection for each, and returns
// those that failed. With cuts, Envoy may cut one on a kept connection, as it does at the end of the drain time.
func load(t *testing.T, s *stack.Stack, cuts bool, headers ...string) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for i := range 4 {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i < 2}}
		all.Go(func() {
			defer client.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				var some []string
				if n%2 == 0 {
					some = headers
				}
				a := do(context.WithoutCancel(ctx), client, s.URL()+chatPath, chat("llama"), some...)
				if cuts && a.err != nil && i >= 2 || a.err == nil && a.status == http.StatusOK {
					continue
				}
				mu.Lock()
				failed = append(failed, errors.New(a.String()))
				mu.Unlock()
			}
		})
	}
	end := func() error {
		cancel()
		all.Wait()
		return errors.Join(failed...)
	}
	t.Cleanup(func() { _ = end() })
	return end
}

// trend fits a line to samples: its slope, and the standard deviation from it.
func trend(y []float64) (slope, noise float64) {
	n := float64(len(y))
	var sx, sy, sxx, sxy float64
	for i, v := range y {
		x := float64(i)
		sx, sy, sxx, sxy = sx+x, sy+v, sxx+x*x, sxy+x*v
	}
	slope = (n*sxy - sx*sy) / (n*sxx - sx*sx)
	at := (sy - slope*sx) / n
	for i, v := range y {
		d := v - at - slope*float64(i)
		noise += d * d
	}
	return slope, math.Sqrt(noise / n)
}

// residentMB is the memory that a process uses (proc(5), statm).
func residentMB(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	require.NoError(t, err)
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	require.NoError(t, err)
	return pages * float64(os.Getpagesize()) / 1e6
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
