// Package probe is a filter for tests only: request headers tell it what to do.
//
//	x-probe-call: <cluster>   OnRequest waits for POST /probe of that cluster; the
//	                          request then carries x-probe-reply: <status>, or "failed"
//	x-probe-deny: <hook>      the hook refuses with 403
//	x-probe-fail: <hook>      the hook says that it cannot decide
//	x-probe-panic: <hook>     the hook panics
//	x-probe-trap: <hook>      the hook ends in a fault that nobody can recover from
//	x-probe-replace: <text>   the body's model is replaced by the text
//	x-probe-response: <text>  the answer gets x-probe-response: <text>
//
// Hooks are requestHeaders, request, reply, responseHeaders and done.
package probe

import (
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Factory makes the filter "probe". Its configuration:
//
//	needs: [request, prompt, usage]   what must be read for it, nothing by default
//	timeout: 1s                       of its calls
var Factory = filter.Factory{
	Name:        "probe",
	FailureMode: filter.FailClosed,
	New: func(o *conf.Object, d *filter.Deps) filter.Filter {
		f := &probe{timeout: time.Second, done: d.Metrics.Counter("probe_done_total", "complete", "refused")}
		o.Duration("timeout", &f.timeout, time.Millisecond, time.Minute)
		o.List("needs", func(v *conf.Value) {
			var word string
			if !v.String(&word) {
				return
			}
			switch word {
			case "request":
				f.needs |= filter.NeedRequest
			case "prompt":
				f.needs |= filter.NeedPrompt
			case "usage":
				f.needs |= filter.NeedUsage
			default:
				v.Errorf("%q is none of request, prompt, usage", word)
			}
		})
		return f
	},
}

type probe struct {
	needs   filter.Needs
	timeout time.Duration
	done    filter.Metric
}

// orders are what a request told the probe to do, kept because a filter that
// runs at the end may not count on the headers any more.
type orders struct{ call, deny, fail, panic, trap, replace, response string }

func (p *probe) Needs() filter.Needs { return p.needs }

func (p *probe) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	o := &orders{}
	for name, to := range map[string]*string{
		"x-probe-call": &o.call, "x-probe-deny": &o.deny, "x-probe-fail": &o.fail, "x-probe-panic": &o.panic,
		"x-probe-trap": &o.trap, "x-probe-replace": &o.replace, "x-probe-response": &o.response,
	} {
		*to, _ = x.RequestHeaders.Get(name)
	}
	x.SetState(o)
	return p.at("requestHeaders", x)
}

func (p *probe) OnRequest(x *filter.Exchange) filter.Verdict {
	o := x.State().(*orders)
	if o.replace != "" && x.Request.HasModel {
		with, _ := json.Marshal(o.replace) // a string always marshals
		x.ReplaceInBody(x.Request.ModelSpan, with)
	}
	if v := p.at("request", x); v != filter.Next {
		return v
	}
	if o.call == "" {
		return filter.Next
	}
	return filter.Wait(filter.Call{
		Cluster: o.call, Path: "/probe", Headers: [][2]string{{"x-probe", "1"}}, Body: []byte("ask"), Timeout: p.timeout,
	})
}

func (p *probe) OnReply(x *filter.Exchange, r *filter.Reply) filter.Verdict {
	reply := strconv.Itoa(r.Status)
	if r.Err != nil {
		reply = "failed"
	}
	x.SetRequestHeader("x-probe-reply", reply)
	return p.at("reply", x)
}

func (p *probe) OnResponseHeaders(x *filter.Exchange) filter.Verdict {
	if text := x.State().(*orders).response; text != "" {
		x.SetResponseHeader("x-probe-response", text)
	}
	return p.at("responseHeaders", x)
}

func (p *probe) OnDone(x *filter.Exchange, end filter.End) {
	p.done.Record(1, filter.Values{strconv.FormatBool(end.Complete), strconv.FormatBool(end.Refused)})
	p.at("done", x)
}

// at does what was ordered for a hook.
func (p *probe) at(hook string, x *filter.Exchange) filter.Verdict {
	o := x.State().(*orders)
	switch hook {
	case o.panic:
		panic("ordered")
	case o.trap:
		new(sync.Mutex).Unlock() // fatal: no recover sees it
	case o.fail:
		return filter.Fail("ordered")
	case o.deny:
		return filter.Deny(filter.Refusal{Refusal: llm.Refusal{
			Status: 403, Type: "permission_error", Code: "probe_denied", Message: "The probe refuses in " + hook + ".",
		}})
	}
	return filter.Next
}
