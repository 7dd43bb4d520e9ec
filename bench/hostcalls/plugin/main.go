// Command plugin is a proxy-wasm module that times calls of its host, and responds to a request with the results.
package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

func init() { proxywasm.SetVMContext(&vm{}) }

func main() {}

type vm struct{ types.DefaultVMContext }

func (*vm) NewPluginContext(uint32) types.PluginContext { return &plugin{} }

type plugin struct {
	types.DefaultPluginContext
	counter   proxywasm.MetricCounter
	histogram proxywasm.MetricHistogram
}

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	p.counter = proxywasm.DefineCounterMetric("hostcalls")
	p.histogram = proxywasm.DefineHistogramMetric("hostcalls_ms")
	return proxywasm.SetSharedData("hostcalls", []byte("12345678"), 0) == nil
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext { return &exchange{p: p} }

type exchange struct {
	types.DefaultHttpContext
	p *plugin
}

var (
	began  = time.Now()
	memory []byte
)

// OnHttpRequestHeaders times each call and responds with the table.
func (x *exchange) OnHttpRequestHeaders(int, bool) types.Action {
	var table strings.Builder
	for _, c := range []struct {
		name string
		call func() error
	}{
		{"the clock", func() error { _ = time.Since(began); return nil }},
		{"incrementing a counter", func() error { x.p.counter.Increment(1); return nil }},
		{"recording a histogram value", func() error { x.p.histogram.Record(1); return nil }},
		{"setting a header", func() error { return proxywasm.ReplaceHttpRequestHeader("x-gateway-inference-pool", "llama") }},
		{"writing filter state", func() error { return proxywasm.SetProperty([]string{"inlet.why"}, []byte("picker=sticky")) }},
		{"writing shared data", func() error { return proxywasm.SetSharedData("hostcalls", []byte("12345678"), 0) }},
		{"reading one header", func() error { _, err := proxywasm.GetHttpRequestHeader(":path"); return err }},
		{"reading shared data", func() error { _, _, err := proxywasm.GetSharedData("hostcalls"); return err }},
		{"reading all headers", func() error { _, err := proxywasm.GetHttpRequestHeaders(); return err }},
		{"allocating 64 B", func() error { return allocate(64) }},
		{"allocating 4 KiB", func() error { return allocate(4 << 10) }},
		{"allocating 16 KiB", func() error { return allocate(16 << 10) }},
	} {
		took, err := least(c.call)
		if err != nil {
			proxywasm.LogCritical(c.name + ": " + err.Error())
			return types.ActionContinue
		}
		fmt.Fprintf(&table, "%-36s %6.2f µs\n", c.name, float64(took)/float64(time.Microsecond))
	}
	if err := proxywasm.SendHttpResponse(200, nil, []byte(table.String()), -1); err != nil {
		proxywasm.LogCritical("the answer cannot be sent: " + err.Error())
	}
	return types.ActionPause
}

func allocate(n int) error {
	if memory = make([]byte, n); memory[0] != 0 {
		return errors.New("new memory is not empty")
	}
	return nil
}

// least is the time of a call in the fastest of many rounds: others slow a round down, and nothing makes it faster.
func least(call func() error) (time.Duration, error) {
	const rounds, calls = 100, 100
	best := time.Hour
	for range rounds {
		start := time.Now()
		for range calls {
			if err := call(); err != nil {
				return 0, err
			}
		}
		best = min(best, time.Since(start)/calls)
	}
	return best, nil
}
