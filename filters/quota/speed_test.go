package quota

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// fullDocument has a product with three limits, as the benchmark of the whole gateway has them.
const fullDocument = `
keys: {list: [{name: demo, products: [p], sha256: KEY(demo)}]}
products: [{name: p, requests: 1000M/min, tokens: {total: 1000000M/min}, concurrency: 1000}]
`

// silent is the same without headers that tell how the limits stand.
const silent = fullDocument + "headers: false\n"

// decision plays what the filter decides about one request and settles, without the look-up of the key: begin is what it does before the request
// goes on, end is the rest.
func decision(tb testing.TB, r *rig, doc string) (begins, ends func()) {
	r.deps.Metrics = nowhere{} // adapters keep the series, tests print them
	r.load(doc)
	x := &filter.Exchange{}
	request := &llm.Request{API: llm.Chat, Model: "llama", PromptBytes: 4096, MaxTokens: 512}
	var response filter.Headers = headers{}
	var k *key
	for _, one := range r.f.fixed.keys {
		k = one
	}
	begins = func() {
		x.Reset(1)
		x.API, x.Request, x.Start = llm.Chat, request, r.clock
		q := begin(x)
		q.app = k.app
		x.Tenant = filter.Tenant{Name: k.name, App: k.app.name}
		if r.f.choose(x, q, k.subscriptions()) != filter.Next || r.f.OnRequest(x) != filter.Next {
			tb.Fatal("refused")
		}
	}
	return begins, func() {
		x.Response.Headers, x.Response.Status = response, 200
		r.f.OnResponseHeaders(x)
		x.Usage = llm.Usage{Known: true, Prompt: 1000, Completion: 100}
		r.f.OnDone(x, filter.End{Complete: true, Status: 200})
	}
}

type nowhere struct{}

func (nowhere) Counter(string, ...string) filter.Metric   { return nowhere{} }
func (nowhere) Gauge(string, ...string) filter.Metric     { return nowhere{} }
func (nowhere) Histogram(string, ...string) filter.Metric { return nowhere{} }
func (nowhere) Record(int64, filter.Values)               {}

// A decision allocates nothing, and the headers of a response one string.
func TestDecisionAllocates(t *testing.T) {
	for doc, want := range map[string]float64{silent: 0, fullDocument: 1} {
		begins, ends := decision(t, newRig(t, doc), doc)
		begins()
		ends()
		require.Zero(t, testing.AllocsPerRun(100, begins))
		require.Equal(t, want, testing.AllocsPerRun(100, func() { begins(); ends() }))
	}
}

// calls counts how often the store is called, each of which is a call of the host in wasm.
type calls struct {
	kv.Store
	n int
}

func (c *calls) Get(key string) ([]byte, uint32, error) { c.n++; return c.Store.Get(key) }

func (c *calls) Set(key string, value []byte, cas uint32) error {
	c.n++
	return c.Store.Set(key, value, cas)
}

// Each limit is read and written before a request goes on, and at its end. The headers read two.
func TestCallsOfTheStore(t *testing.T) {
	for doc, want := range map[string][2]int{silent: {6, 6}, fullDocument: {6, 8}} {
		r := newRig(t, doc)
		store := &calls{Store: mem.NewStore()}
		r.deps.Worker, r.deps.Store = "1", store
		clear(r.kept)
		begins, ends := decision(t, r, doc)
		begins() // a new worker also reads what the others have in common
		ends()
		for range 3 {
			store.n = 0
			begins()
			require.Equal(t, want[0], store.n)
			store.n = 0
			ends()
			require.Equal(t, want[1], store.n)
		}
	}
}

func TestSecondsAreDurations(t *testing.T) {
	for _, n := range []int64{0, 1, 59, 60, 61, 3599, 3600, 3661, 86_400, 31 * 86_400} {
		require.Equal(t, (time.Duration(n) * time.Second).String(), string(appendSeconds(nil, n)))
	}
}

func BenchmarkDecision(b *testing.B) {
	begins, ends := decision(b, newRig(b, silent), silent)
	b.ReportAllocs()
	for b.Loop() {
		begins()
		ends()
	}
}

// What a request waits for.
func BenchmarkOnRequest(b *testing.B) {
	doc := strings.Replace(silent, "concurrency: 1000", "concurrency: 2000000000", 1) // no request ends
	begins, _ := decision(b, newRig(b, doc), doc)
	b.ReportAllocs()
	for b.Loop() {
		begins()
	}
}
