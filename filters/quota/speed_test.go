package quota

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// fullDocument has a product with three limits, as the benchmark of the whole gateway has them.
const fullDocument = `
keys: {list: [{name: demo, products: [p], sha256: KEY(demo)}]}
products: [{name: p, requests: 1000M/min, tokens: {total: 1000000M/min}, concurrency: 1000}]
headers: false
`

// decision plays what the filter decides about one request and settles, without the look-up of the key.
func decision(tb testing.TB) func() {
	r := newRig(tb, fullDocument)
	r.deps.Metrics = nowhere{} // adapters keep the series, tests print them
	r.load(fullDocument)
	x := &filter.Exchange{}
	request := &llm.Request{API: llm.Chat, Model: "llama", PromptBytes: 4096, MaxTokens: 512}
	var response filter.Headers = headers{}
	var k *key
	for _, one := range r.f.fixed.keys {
		k = one
	}
	return func() {
		x.Reset(1)
		x.API, x.Request, x.Start = llm.Chat, request, r.clock
		q := begin(x)
		q.app = k.app
		x.Tenant = filter.Tenant{Name: k.name, App: k.app.name}
		if r.f.choose(x, q, k.subscriptions()) != filter.Next || r.f.OnRequest(x) != filter.Next {
			tb.Fatal("refused")
		}
		x.Response.Headers, x.Response.Status = response, 200
		x.Usage = llm.Usage{Known: true, Prompt: 1000, Completion: 100}
		r.f.OnDone(x, filter.End{Complete: true, Status: 200})
	}
}

type nowhere struct{}

func (nowhere) Counter(string, ...string) filter.Metric   { return nowhere{} }
func (nowhere) Gauge(string, ...string) filter.Metric     { return nowhere{} }
func (nowhere) Histogram(string, ...string) filter.Metric { return nowhere{} }
func (nowhere) Record(int64, filter.Values)               {}

func TestDecisionAllocatesNothing(t *testing.T) {
	play := decision(t)
	play()
	require.Zero(t, testing.AllocsPerRun(100, play))
}

func BenchmarkDecision(b *testing.B) {
	play := decision(b)
	b.ReportAllocs()
	for b.Loop() {
		play()
	}
}
