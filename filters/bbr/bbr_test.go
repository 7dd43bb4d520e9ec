package bbr

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

func newBBR(t testing.TB, doc string) *Filter {
	var f filter.Filter
	rng := rand.New(rand.NewPCG(1, 2))
	err := conf.Decode([]byte(doc), func(o *conf.Object) {
		f = newFilter(o, &filter.Deps{Rand: rng.Uint64, Metrics: counts{}, ClaimHeader: func(string) {}})
	})
	require.NoError(t, err)
	return f.(*Filter)
}

// counts are counters by name and first label.
type counts map[string]int64

func (c counts) Counter(name string, _ ...string) filter.Metric   { return counter{c, name} }
func (c counts) Gauge(name string, _ ...string) filter.Metric     { return counter{c, name} }
func (c counts) Histogram(name string, _ ...string) filter.Metric { return counter{c, name} }

type counter struct {
	of   counts
	name string
}

func (c counter) Record(n int64, v filter.Values) { c.of[c.name+"/"+v[0]] += n }

// headers are those of a request.
type headers map[string]string

func (h headers) Get(name string) (string, bool) { v, ok := h[name]; return v, ok }

func (h headers) At(name string, n int) (string, bool) { v, ok := h[name]; return v, ok && n == 0 }

func (h headers) Line(n int) (name, value string, ok bool) {
	if n >= len(h) {
		return "", "", false
	}
	name = slices.Sorted(maps.Keys(h))[n]
	return name, h[name], true
}

// route runs f on body and returns the result.
func route(t testing.TB, f *Filter, body string) (*filter.Exchange, filter.Verdict) {
	var scan llm.RequestScanner
	scan.Reset(llm.Chat, llm.Want{Fields: f.Fields()}, jsonscan.Limits{})
	require.NoError(t, scan.Feed([]byte(body)))
	require.NoError(t, scan.End())
	x := &filter.Exchange{}
	x.Reset(1)
	x.API, x.Request, x.RequestHeaders = llm.Chat, scan.Request(), headers{}
	return x, f.OnRequest(x)
}

const models = `models:
  - name: llama
    targets: [{model: llama-3-8b, pool: llama-v1, weight: 90}, {model: llama-3-8b-next, pool: llama-v2, weight: 10}]
  - {name: gemma-support, base: gemma-7b, targets: [{model: lora-1-gemma, pool: gemma}]}
  - {name: plain, targets: [{pool: p}]}
  - {name: "a/b", targets: [{model: 'q"uote', pool: p}]}
`

func TestRoutes(t *testing.T) {
	f := newBBR(t, models)
	for _, c := range []struct {
		model   string
		route   filter.Route
		headers map[string]string
		edit    string
	}{
		{
			"gemma-support",
			filter.Route{Model: "gemma-support", Target: "lora-1-gemma", Base: "gemma-7b", Pool: "gemma"},
			map[string]string{"x-gateway-model-name": "gemma-support", RewriteHeader: "lora-1-gemma", BaseHeader: "gemma-7b", PoolHeader: "gemma"},
			`"lora-1-gemma"`,
		},
		{
			"plain",
			filter.Route{Model: "plain", Target: "plain", Pool: "p"},
			map[string]string{"x-gateway-model-name": "plain", PoolHeader: "p"},
			"",
		},
		{
			"a/b",
			filter.Route{Model: "a/b", Target: `q"uote`, Pool: "p"},
			map[string]string{"x-gateway-model-name": "a/b", RewriteHeader: `q"uote`, PoolHeader: "p"},
			`"q\"uote"`,
		},
	} {
		t.Run(c.model, func(t *testing.T) {
			body := `{"n":9007199254740993,"model":"` + c.model + `"}`
			x, v := route(t, f, body)
			require.Equal(t, filter.Next, v)
			require.Equal(t, c.route, x.Route)
			got := map[string]string{}
			for _, h := range x.Effects().Request {
				got[h.Name] = h.Value
			}
			require.Equal(t, c.headers, got)
			if c.edit == "" {
				require.Empty(t, x.Effects().Model, "the response need not be read")
				require.Empty(t, x.Effects().Body)
				return
			}
			require.Equal(t, c.model, x.Effects().Model)
			e := x.Effects().Body[0]
			require.Equal(t, `{"n":9007199254740993,"model":`+c.edit+`}`, body[:e.Span.Start]+string(e.With)+body[e.Span.End:])
		})
	}
}

func TestRefusals(t *testing.T) {
	f := newBBR(t, models)
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{
		{`{"messages":[]}`, 400, "missing_model"},
		{`{"model":7}`, 400, "invalid_model"},
		{`{"model":null}`, 400, "invalid_model"},
		{`{"model":""}`, 400, "invalid_model"},
		{`{"model":"a\r\nx-gateway-inference-pool: mine"}`, 400, "invalid_model"},
		{`{"model":"nobody"}`, 404, "model_not_found"},
		{`{"model":"LLAMA"}`, 404, "model_not_found"},
		{`{"inner":{"model":"llama"}}`, 400, "missing_model"},
	} {
		x, v := route(t, f, c.body)
		require.NotNil(t, v.Refusal(), c.body)
		require.Equal(t, c.status, v.Refusal().Status, c.body)
		require.Equal(t, c.code, v.Refusal().Code, c.body)
		require.Equal(t, "model", v.Refusal().Param)
		require.Empty(t, x.Effects().Request)
	}
}

func TestAloneItOnlySetsTheHeader(t *testing.T) {
	f := newBBR(t, "header: x-model")
	x, v := route(t, f, `{"model":"any/thing"}`)
	require.Equal(t, filter.Next, v)
	require.Equal(t, []filter.HeaderEdit{{Name: "x-model", Value: "any/thing"}}, x.Effects().Request)
	require.Equal(t, filter.Route{Model: "any/thing", Target: "any/thing"}, x.Route)
}

func TestUnknownModelsCanPass(t *testing.T) {
	f := newBBR(t, models+"unknownModel: pass\n")
	x, v := route(t, f, `{"model":"nobody"}`)
	require.Equal(t, filter.Next, v)
	require.Equal(t, "nobody", x.Route.Model)
	require.Empty(t, x.Route.Pool)
	require.Equal(t, "bbr=nobody", string(x.Why()))
}

// Within three standard deviations of 90/10 over 10,000 requests.
func TestSplit(t *testing.T) {
	f := newBBR(t, models)
	const n, p = 10000, 0.9
	first := 0
	for range n {
		x, _ := route(t, f, `{"model":"llama"}`)
		if x.Route.Pool == "llama-v1" {
			first++
		}
	}
	require.InDelta(t, n*p, first, 3*math.Sqrt(n*p*(1-p)))
}

func TestModelListNamesNoModel(t *testing.T) {
	for _, doc := range []string{"{}", models + "listModels: false"} {
		f := newBBR(t, doc)
		for _, path := range []string{"/v1/models", "/v1/models/llama", "/v1/models/nobody"} {
			require.Equal(t, filter.Next, f.OnRequest(&filter.Exchange{API: llm.Models, Path: path}), "a replica responds")
		}
	}
}

func TestDecisionAllocatesNothing(t *testing.T) {
	f := newBBR(t, models)
	x, _ := route(t, f, `{"model":"gemma-support"}`)
	req := x.Request
	allocs := testing.AllocsPerRun(100, func() {
		x.Reset(1)
		x.API, x.Request = llm.Chat, req
		f.OnRequest(x)
	})
	require.Zero(t, allocs)
}

func BenchmarkOnRequest(b *testing.B) {
	f := newBBR(b, models)
	x, _ := route(b, f, `{"model":"gemma-support"}`)
	req := x.Request
	b.ReportAllocs()
	for b.Loop() {
		x.Reset(1)
		x.API, x.Request = llm.Chat, req
		if f.OnRequest(x) != filter.Next {
			b.Fatal("not routed")
		}
	}
}
