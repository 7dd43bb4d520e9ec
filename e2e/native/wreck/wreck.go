// Package wreck is a filter for tests only, which panics where it is told to.
//
//	x-wreck: <hook>   this hook of the exchange panics: requestHeaders, request, reply, responseHeaders, response,
//	                  unscreened, firstByte or done
//	x-wreck-how: nil  by following a nil pointer; otherwise with a value
//	x-wreck-collect   garbage is collected, which finds documents of routes that Envoy has dropped
//
// Its responses have the number of goroutines, x-wreck-goroutines, and the bytes that the last collection has left, x-wreck-live.
package wreck

import (
	"runtime"
	"runtime/metrics"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Factory makes the filter "wreck". Its configuration:
//
//	at: <hook>   this hook of the configuration panics: new, needs, fields, metadata, facts; or one in the background: see,
//	             learn, take, heard
//	how: nil     as above
var Factory = filter.Factory{
	Name:        "wreck",
	FailureMode: filter.FailClosed,
	Metrics:     func(m filter.Metrics) { m.Counter("wreck_panic_total", "at") },
	New:         newWreck,
}

// Hooks are those of an exchange, in order; Making those of a configuration, and Background those that run beside exchanges.
var (
	Hooks      = []string{"requestHeaders", "request", "reply", "responseHeaders", "firstByte", "response", "unscreened", "done"}
	Making     = []string{"new", "needs", "fields", "metadata", "facts"}
	Background = []string{"see", "take", "heard", "learn"}
)

type wreck struct {
	at, how string
	panics  filter.Metric
}

func newWreck(o *conf.Object, d *filter.Deps) filter.Filter {
	w := &wreck{panics: d.Metrics.Counter("wreck_panic_total", "at")}
	o.String("at", &w.at)
	o.String("how", &w.how)
	w.making("new")
	if d.Companion != nil && (w.at == "take" || w.at == "heard") {
		d.Companion.Converse("/v1/wreck", func() []byte {
			w.making("take")
			return []byte("{}")
		}, func(*filter.Reply) { w.making("heard") })
	}
	if d.Watch != nil && w.at == "see" {
		d.Watch(func() { w.making("see") })
	}
	if d.Peers != nil && w.at == "learn" {
		d.Peers.Hear(func([]byte) { w.making("learn") })
	}
	return w
}

func (w *wreck) making(hook string) {
	if w.at == hook {
		w.panic(hook, w.how)
	}
}

func (w *wreck) panic(hook, how string) {
	w.panics.Record(1, filter.Values{hook})
	if how == "nil" {
		var nobody *wreck
		nobody.at = hook
	}
	panic("a wreck, and a secret")
}

// orders are what a request says.
type orders struct{ at, how string }

func (w *wreck) hook(x *filter.Exchange, hook string) {
	if o, ok := x.State().(*orders); ok && o.at == hook {
		w.panic(hook, o.how)
	}
}

// Needs reads the body.
func (w *wreck) Needs() filter.Needs {
	w.making("needs")
	return filter.NeedRequest | filter.NeedUsage
}

// Fields implements filter.FieldReader.
func (w *wreck) Fields() []string {
	w.making("fields")
	return nil
}

// Metadata implements filter.MetadataReader.
func (w *wreck) Metadata() (namespace, key string) {
	w.making("metadata")
	return "", ""
}

// Reads implements filter.FactReader.
func (w *wreck) Reads() filter.Facts {
	w.making("facts")
	return 0
}

func (w *wreck) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	o := &orders{}
	o.at, _ = x.RequestHeaders.Get("x-wreck")
	o.how, _ = x.RequestHeaders.Get("x-wreck-how")
	x.SetState(o)
	if _, collect := x.RequestHeaders.Get("x-wreck-collect"); collect {
		runtime.GC()
	}
	w.hook(x, "requestHeaders")
	return filter.Next
}

func (w *wreck) OnRequest(x *filter.Exchange) filter.Verdict {
	w.hook(x, "request")
	o, _ := x.State().(*orders)
	switch {
	case o == nil: // its first hook has failed
	case o.at == "response", o.at == "unscreened":
		x.Screen(filter.Screening{Window: 1})
	case o.at == "reply":
		return filter.Wait(filter.Call{Cluster: "inlet-companion", Method: "GET", Path: "/none", Timeout: 10 * time.Second})
	}
	return filter.Next
}

func (w *wreck) OnReply(x *filter.Exchange, _ *filter.Reply) filter.Verdict {
	w.hook(x, "reply")
	return filter.Next
}

func (w *wreck) OnResponseHeaders(x *filter.Exchange) filter.Verdict {
	x.SetResponseHeader("x-wreck-goroutines", strconv.Itoa(runtime.NumGoroutine()))
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	x.SetResponseHeader("x-wreck-live", strconv.FormatUint(live[0].Value.Uint64(), 10))
	w.hook(x, "responseHeaders")
	return filter.Next
}

// OnFirstByte implements filter.FirstByter.
func (w *wreck) OnFirstByte(x *filter.Exchange) { w.hook(x, "firstByte") }

// OnResponse implements filter.Screener.
func (w *wreck) OnResponse(x *filter.Exchange, _ *filter.Unit) filter.Verdict {
	w.hook(x, "response")
	if o, ok := x.State().(*orders); ok && o.at == "unscreened" {
		return filter.Fail("told to")
	}
	return filter.Next
}

// OnUnscreened implements filter.Unscreener.
func (w *wreck) OnUnscreened(x *filter.Exchange, _ filter.Unscreened) { w.hook(x, "unscreened") }

func (w *wreck) OnDone(x *filter.Exchange, _ filter.End) { w.hook(x, "done") }
