package chost_test

import (
	"debug/elf"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inlet-proxy/inlet/shared/adapters/golang/chost"
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 20*time.Second, 5*time.Millisecond, what)
}

func logs(h *chost.Host, part string) bool {
	return strings.Contains(strings.Join(h.Log(), "\n"), part)
}

// pass sends a request through and finishes it.
func pass(t *testing.T, h *chost.Host, worker int, config uint64) (pool string) {
	x := open(t, h, worker, config, nil)
	defer x.end()
	x.RequestHeaders(post(chat), false)
	x.RequestData([]byte(chat), true)
	pool = get(x.next("uph").Headers(), "x-gateway-inference-pool")
	x.Info(map[string]string{"served": "10.0.0.1:80", "details": "via_upstream"})
	x.ResponseHeaders([][2]string{{":status", "200"}, {"content-type", "application/json"}}, false)
	x.ResponseData([]byte(`{"usage":{"total_tokens":3}}`), true)
	x.next("downd")
	return pool
}

// The configuration in the shipped bootstrap is one that the plugin takes.
func TestShippedConfiguration(t *testing.T) {
	text, err := os.ReadFile("../../../../envoy/static/golang.yaml")
	require.NoError(t, err)
	var tree any
	require.NoError(t, yaml.Unmarshal(text, &tree))
	value, _ := find(tree, "plugin_config").(map[string]any)["value"].(map[string]any)
	require.NotEmpty(t, value)
	s, err := structpb.NewStruct(value)
	require.NoError(t, err)
	bytes, err := proto.Marshal(s)
	require.NoError(t, err)
	// A TypedStruct has its struct in field 2.
	typed := append([]byte{2<<3 | 2}, append(varint(len(bytes)), bytes...)...)
	h := start(t, 1)
	c, err := h.Configure(chost.OfFilter, &anypb.Any{TypeUrl: "type.googleapis.com/xds.type.v3.TypedStruct", Value: typed})
	require.NoError(t, err, "%q", h.Log())
	require.True(t, logs(h, "chain: bbr"), "%q", h.Log())
	require.NoError(t, h.Drop(c, false))
}

func varint(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// find returns the first value of a key, wherever it stands.
func find(tree any, key string) any {
	switch tree := tree.(type) {
	case map[string]any:
		if v, ok := tree[key]; ok {
			return v
		}
		for _, v := range tree {
			if found := find(v, key); found != nil {
				return found
			}
		}
	case []any:
		for _, v := range tree {
			if found := find(v, key); found != nil {
				return found
			}
		}
	}
	return nil
}

// What the plugin needs of Envoy is what the stand-in has, and what Envoy looks up in a plugin of this filter is there.
func TestSymbols(t *testing.T) {
	needs, has := symbols(t, plugin)
	_, given := symbols(t, program)
	require.NotEmpty(t, needs)
	require.Subset(t, given, needs)
	require.ElementsMatch(t, []string{
		"envoyGoFilterNewHttpPluginConfig", "envoyGoFilterDestroyHttpPluginConfig", "envoyGoFilterMergeHttpPluginConfig",
		"envoyGoFilterOnHttpHeader", "envoyGoFilterOnHttpData", "envoyGoFilterOnHttpLog", "envoyGoFilterOnHttpStreamComplete",
		"envoyGoFilterOnHttpDestroy", "envoyGoRequestSemaDec", "envoyGoFilterCleanUp",
	}, has)
}

// symbols are those of Envoy's filter that a file needs, and those that it has.
func symbols(t *testing.T, file string) (needs, has []string) {
	t.Helper()
	f, err := elf.Open(file)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	all, err := f.DynamicSymbols()
	require.NoError(t, err)
	for _, s := range all {
		switch {
		case !strings.HasPrefix(s.Name, "envoyGo"):
		case s.Section == elf.SHN_UNDEF:
			needs = append(needs, s.Name)
		default:
			has = append(has, s.Name)
		}
	}
	return needs, has
}

// A configuration that is refused says why, with the place and what to do.
func TestRefusedConfigurations(t *testing.T) {
	h := start(t, 1)
	for name, one := range map[string]struct {
		message *anypb.Any
		says    string
	}{
		"a mistake":          {settings(t, "filters: [{bbr: {modls: []}}]", nil), `filters[0].bbr`},
		"no address":         {settings(t, document+"companion: {cluster: inlet-companion}\n", nil), `companion.cluster: 4:22: "inlet-companion" has no address`},
		"no URL":             {settings(t, document, map[string]any{"a": "127.0.0.1:80"}), "is not a URL such as http://127.0.0.1:9002"},
		"no file":            {settings(t, document, map[string]any{"a": map[string]any{"url": "https://a:443", "ca": "/no/such/file"}}), "its ca cannot be read"},
		"no config":          {settings(t, "", nil), "the document is empty"},
		"another message":    {&anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.StringValue"}, "give it as type.googleapis.com/xds.type.v3.TypedStruct"},
		"a broken message":   {&anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.Struct", Value: []byte("\xff")}, "cannot be read"},
		"nothing whatsoever": {&anypb.Any{}, "give it as"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(h.Log())
			_, err := h.Configure(chost.OfFilter, one.message)
			require.ErrorIs(t, err, chost.ErrRefused)
			said := strings.Join(h.Log()[before:], "\n")
			require.Contains(t, said, one.says)
			require.NotContains(t, said, "warn", "nothing was begun")
		})
	}
}

// Each filter loads alone by its own name, and takes no other.
func TestFiltersAlone(t *testing.T) {
	h := start(t, 1)
	c, err := h.ConfigureAs("bbr", chost.OfFilter, settings(t, document, nil))
	require.NoError(t, err)
	require.Equal(t, "llama", pass(t, h, 0, c))
	_, err = h.ConfigureAs("picker", chost.OfFilter, settings(t, document, nil))
	require.ErrorIs(t, err, chost.ErrRefused)
}

// A route has a whole document of its own, which replaces the one above.
func TestRoutes(t *testing.T) {
	h := start(t, 1)
	above, err := h.Configure(chost.OfFilter, settings(t, document, nil))
	require.NoError(t, err)
	own := settings(t, strings.ReplaceAll(document, "pool: llama", "pool: own")+"companion: {cluster: nobody}\n", nil)
	route, err := h.Configure(chost.OfRoute, own)
	require.NoError(t, err)
	used, err := h.Merge(above, route)
	require.NoError(t, err)
	require.True(t, logs(h, "warn inlet: the configuration of a route names companion cluster nobody, which no filter's configuration names"))
	require.Equal(t, "own", pass(t, h, 0, used))
	require.Equal(t, "llama", pass(t, h, 0, above))

	// The one above changes, and the route's stays.
	next, err := h.Configure(chost.OfFilter, settings(t, document, nil))
	require.NoError(t, err)
	require.NoError(t, h.Drop(used, true))
	used, err = h.Merge(next, route)
	require.NoError(t, err)
	require.NoError(t, h.Drop(above, false))
	require.Equal(t, "own", pass(t, h, 0, used))
	m, err := h.Metrics()
	require.NoError(t, err)
	require.EqualValues(t, 2, m["inlet_request_total;model_name=llama;pool=own;outcome=ok"], "%v", m)

	// A mistake is refused where that is possible, and else refuses requests: Envoy would end.
	wrong := settings(t, "filters: []", nil)
	_, err = h.Configure(chost.OfRoute, wrong)
	require.ErrorIs(t, err, chost.ErrRefused)
	late, err := h.Configure(chost.OfRouteLate, wrong)
	require.NoError(t, err)
	require.True(t, logs(h, "critical inlet: all requests of a route are refused"))
	used, err = h.Merge(next, late)
	require.NoError(t, err)
	x := open(t, h, 0, used, nil)
	x.RequestHeaders(post(chat), false)
	require.Equal(t, "500", get(x.next("downh").Headers(), ":status"))
	x.end()
}

// Envoy forgets a metric with the last configuration that has it. A new configuration has all, and gauges keep their values.
func TestMetricsSurviveAnUpdate(t *testing.T) {
	h := start(t, 1)
	first, err := h.Configure(chost.OfFilter, settings(t, document+"  - picker: {}\n", nil))
	require.NoError(t, err, "%q", h.Log())
	pass(t, h, 0, first)
	second, err := h.Configure(chost.OfFilter, settings(t, document+"  - picker: {}\n", nil))
	require.NoError(t, err)
	require.NoError(t, h.Drop(first, false))
	m, err := h.Metrics()
	require.NoError(t, err)
	const requests = "inlet_request_total;model_name=llama;pool=llama;outcome=ok"
	require.EqualValues(t, 1, m[requests], "%v", m)
	require.EqualValues(t, 1, m["inlet_configurations;kind=listener"])
	pass(t, h, 0, second)
	m, err = h.Metrics()
	require.NoError(t, err)
	require.EqualValues(t, 2, m[requests])
}

// webhook is a service that a guardrail asks. What it waits for is up to the test.
func webhook(t *testing.T, serve http.HandlerFunc) string {
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return s.URL
}

const guarded = `
filters:
  - bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}
  - guardrail:
      providers: [{name: a, webhook: {cluster: a}, timeout: 5s, retries: 0}]
      policies: [{on: request, use: [a], action: block}]
`

// A held request waits for its call, whether its trailers come before the reply or not.
func TestCalls(t *testing.T) {
	replies := make(chan string)
	asked := make(chan struct{}, 1)
	url := webhook(t, func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		_, _ = io.WriteString(w, `{"action":"`+<-replies+`"}`)
	})
	h := start(t, 1)
	c, err := h.Configure(chost.OfFilter, settings(t, guarded, map[string]any{"a": url}))
	require.NoError(t, err, "%q", h.Log())
	want := strings.Replace(chat, "llama", "llama-3-8b", 1)
	for name, rest := range map[string]func(x *exchange){
		"at its end": func(x *exchange) { x.RequestData([]byte(chat[20:]), true) },
		"with trailers": func(x *exchange) {
			x.RequestData([]byte(chat[20:]), false)
			x.RequestTrailers([][2]string{{"x-t", "1"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := open(t, h, 0, c, nil)
			x.RequestHeaders(post(chat), false)
			x.RequestData([]byte(chat[:20]), false)
			rest(x)
			<-asked
			replies <- "pass"
			e := x.next("uph")
			require.Equal(t, itoa(len(want)), get(e.Headers(), "content-length"))
			e = x.next("upd")
			require.Equal(t, want, string(e.Parts[0]))
			if e.A == 0 {
				require.Equal(t, "1", get(x.next("upt").Headers(), "x-t"))
			}
			x.end()

			x = open(t, h, 0, c, nil)
			x.RequestHeaders(post(chat), false)
			x.RequestData([]byte(chat[:20]), false)
			rest(x)
			<-asked
			replies <- "block"
			require.Equal(t, "400", get(x.next("downh").Headers(), ":status"))
			x.end()
		})
	}
}

// A client that leaves ends its call. A configuration that is dropped does not: the exchange still uses it.
func TestCallsEndWithTheExchange(t *testing.T) {
	gone := make(chan struct{}, 1)
	asked := make(chan struct{}, 1)
	reply := make(chan struct{})
	url := webhook(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
			gone <- struct{}{}
		case <-reply:
			_, _ = io.WriteString(w, `{"action":"pass"}`)
		}
	})
	h := start(t, 2)
	c, err := h.Configure(chost.OfFilter, settings(t, guarded, map[string]any{"a": url}))
	require.NoError(t, err)
	x := open(t, h, 1, c, nil)
	x.RequestHeaders(post(chat), false)
	x.RequestData([]byte(chat), true)
	<-asked
	x.end()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		require.Fail(t, "the call runs on")
	}

	x = open(t, h, 1, c, nil)
	x.RequestHeaders(post(chat), false)
	x.RequestData([]byte(chat), true)
	<-asked
	require.NoError(t, h.Drop(c, false))
	close(reply)
	x.next("uph")
	x.end()
}

// The poll of the companion ends with its configuration, and nothing of Envoy's stays in use.
func TestThePollEndsWithItsConfiguration(t *testing.T) {
	var polls, over atomic.Int64
	url := webhook(t, func(w http.ResponseWriter, r *http.Request) {
		polls.Add(1)
		defer over.Add(1)
		<-r.Context().Done()
	})
	h := start(t, 1)
	c, err := h.Configure(chost.OfFilter, settings(t, document+"companion: {cluster: inlet-companion}\n", map[string]any{"inlet-companion": url}))
	require.NoError(t, err)
	eventually(t, "it polls", func() bool { return polls.Load() == 1 })
	require.NoError(t, h.Drop(c, false))
	eventually(t, "the poll ends", func() bool { return over.Load() == 1 })
	eventually(t, "the configuration is freed", func() bool {
		require.NoError(t, h.CleanUp())
		_, configs, err := h.Alive()
		require.NoError(t, err)
		return configs == 0
	})
	require.EqualValues(t, 1, polls.Load())
}

// The companion inside it finds the replicas with no other process.
func TestEmbeddedCompanion(t *testing.T) {
	replica := strings.TrimPrefix(webhook(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0\n")
	}), "http://")
	h := start(t, 1)
	const inside = "  - picker: {}\ncompanion: {embedded: {pools: [{name: llama, cluster: replicas, static: [%q], engine: vllm}]}}\n"
	c, err := h.Configure(chost.OfFilter, settings(t, document+fmt.Sprintf(inside, replica), nil))
	require.NoError(t, err, "%q", h.Log())
	eventually(t, "the replica is picked", func() bool {
		x := open(t, h, 0, c, nil)
		defer x.end()
		x.RequestHeaders(post(chat), false)
		x.RequestData([]byte(chat), true)
		return get(x.next("uph").Headers(), "x-gateway-destination-endpoint") == replica
	})
	require.NoError(t, h.Drop(c, false))
}

// The access log may be written at any time, also before the request, and a wake-up that nobody waits for disturbs nobody.
func TestOtherCallbacks(t *testing.T) {
	const start_, periodic = 4, 5
	h := start(t, 1)
	c, err := h.Configure(chost.OfFilter, settings(t, document, nil))
	require.NoError(t, err)
	x := open(t, h, 0, c, nil)
	x.Log(start_)
	x.RequestHeaders(post(chat), false)
	x.Log(periodic)
	x.Wake()
	x.RequestData([]byte(chat), true)
	x.next("upd")
	x.end()

	x = open(t, h, 0, c, nil) // of which the plugin sees nothing
	x.end()
	x = open(t, h, 0, c, nil) // answered by a filter before this one
	x.Reply(403, nil, []byte("no"))
	require.Equal(t, "403", get(x.next("downh").Headers(), ":status"))
	x.end()
}

// The reason is in the dynamic metadata and in the filter state before the exchange is over.
func TestTheReasonIsShown(t *testing.T) {
	h := start(t, 1)
	c, err := h.Configure(chost.OfFilter, settings(t, document, nil))
	require.NoError(t, err)
	x := open(t, h, 0, c, nil)
	unknown := strings.Replace(chat, "llama", "gpt-9", 1)
	x.RequestHeaders(post(unknown), false)
	x.RequestData([]byte(unknown), true)
	require.Equal(t, "404", get(x.next("downh").Headers(), ":status"))
	x.Finish()
	e := x.next("meta")
	require.Equal(t, "inlet/why", string(e.Parts[0])+"/"+string(e.Parts[1]))
	var why structpb.Value
	require.NoError(t, proto.Unmarshal(e.Parts[2], &why))
	require.NotEmpty(t, why.GetStringValue())
	e = x.next("state")
	require.Equal(t, "state:wasm.inlet.why", string(e.Parts[0]))
	require.Equal(t, why.GetStringValue(), string(e.Parts[1]))
	x.next("finished")
}

// rss is the memory of the program, in KiB.
func rss(t *testing.T, pid int) (n int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "statm"))
	require.NoError(t, err)
	var size, resident int
	_, err = fmt.Sscan(string(text), &size, &resident)
	require.NoError(t, err)
	return resident * os.Getpagesize() >> 10
}

// Ten thousand requests on two workers: no memory of Envoy's stays in use, and the program does not grow.
func TestNothingIsLeft(t *testing.T) {
	h := start(t, 2)
	c, err := h.Configure(chost.OfFilter, settings(t, document, nil))
	require.NoError(t, err)
	const round = 2500
	var sizes []int
	for n := range 4 {
		require.True(t, t.Run(fmt.Sprint("round ", n), func(t *testing.T) {
			for worker := range 2 {
				t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
					t.Parallel()
					for range round / 2 {
						x := open(t, h, worker, c, nil)
						x.RequestHeaders(post(chat), false)
						x.RequestData([]byte(chat), true)
						x.ResponseHeaders([][2]string{{":status", "200"}, {"content-type", "application/json"}}, false)
						x.ResponseData([]byte(`{"usage":{"total_tokens":3}}`), true)
						x.end()
					}
				})
			}
		}))
		eventually(t, "all requests are freed", func() bool {
			require.NoError(t, h.CleanUp())
			exchanges, _, err := h.Alive()
			require.NoError(t, err)
			return exchanges == 0
		})
		sizes = append(sizes, rss(t, h.Pid()))
	}
	m, err := h.Metrics()
	require.NoError(t, err)
	require.EqualValues(t, 4*round, m["inlet_request_total;model_name=llama;pool=llama;outcome=ok"])
	require.Less(t, sizes[3]-sizes[0], 8<<10, "KiB after each of four rounds: %v", sizes)
	t.Logf("KiB after each of four rounds: %v", sizes)
}
