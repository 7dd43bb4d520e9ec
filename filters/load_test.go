package filters_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// noMetrics discards metrics.
type noMetrics struct{}

func (noMetrics) Counter(string, ...string) filter.Metric   { return noMetrics{} }
func (noMetrics) Gauge(string, ...string) filter.Metric     { return noMetrics{} }
func (noMetrics) Histogram(string, ...string) filter.Metric { return noMetrics{} }
func (noMetrics) Record(int64, filter.Values)               {}

// manyModels returns a configuration with n models of two targets each.
func manyModels(n int) []byte {
	var b strings.Builder
	b.WriteString("filters:\n  - bbr:\n      models:\n")
	for i := range n {
		fmt.Fprintf(&b, "        - {name: team-%d-model-%d, targets: [{model: served-%d, pool: one, weight: 90}, {model: next-%d, pool: one, weight: 10}]}\n",
			i%50, i, i, i)
	}
	b.WriteString("  - picker: {}\n")
	return []byte(b.String())
}

func load(tb testing.TB, document []byte) *chain.Chain {
	tb.Helper()
	c, err := chain.New(document, filters.All, &filter.Deps{
		Now: time.Now, Rand: rand.Uint64,
		Store: mem.NewStore(), Counters: mem.NewCounters(),
		Snapshot: func() *endpoint.Snapshot { return nil },
		Metrics:  noMetrics{}, Log: func(filter.Level, string) {},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// BenchmarkLoad measures what each worker of the wasm build does at an update, while its requests wait.
func BenchmarkLoad(b *testing.B) {
	document := manyModels(2000)
	b.ReportAllocs()
	for b.Loop() {
		load(b, document)
	}
}

// TestLoadAllocates limits the allocations when a large configuration is read: in wasm, the VM's memory grows by them and
// never shrinks again.
func TestLoadAllocates(t *testing.T) {
	document := manyModels(2000)
	allocs := testing.AllocsPerRun(2, func() { load(t, document) })
	if perModel := allocs / 2000; perModel > 115 {
		t.Errorf("%.0f allocations a model", perModel)
	}
}
