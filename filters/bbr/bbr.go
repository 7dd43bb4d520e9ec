// Package bbr is body-based routing: it reads the model from the request body,
// puts it into headers that ordinary routes match, chooses the target behind a
// public model name, and rewrites the name in the body when the replica knows
// the model by another one. The answer then has the public name again.
package bbr

import (
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/llm"
)

// Headers by which routes and later gateways learn what was decided.
const (
	RewriteHeader = "x-gateway-model-name-rewrite"
	BaseHeader    = "x-gateway-base-model-name"
	PoolHeader    = "x-gateway-inference-pool"
)

// Filter routes by the body's model. Writes x.Route.
type Filter struct {
	filter.Base
	header        string
	models        map[string]*model
	refuseUnknown bool
	rand          func() uint64
}

// Needs the scanned body.
func (f *Filter) Needs() filter.Needs { return filter.NeedRequest }

// OnRequest decides where the request goes.
func (f *Filter) OnRequest(x *filter.Exchange) filter.Verdict {
	r := x.Request
	switch {
	case x.API == llm.Models:
		return filter.Next // names no model
	case !r.HasModel:
		return refuse(400, "missing_model", "You must provide a model parameter.")
	case !r.ModelIsString || !fitsHeader(r.Model):
		return refuse(400, "invalid_model", "The model parameter must be a string of 1 to 256 printable characters.")
	}
	m := f.models[r.Model]
	if m == nil {
		return f.unknown(x)
	}
	f.send(x, m, m.choose(f.rand))
	return filter.Next
}

// unknown handles a model that is not configured.
func (f *Filter) unknown(x *filter.Exchange) filter.Verdict {
	name := x.Request.Model
	if f.refuseUnknown {
		return refuse(404, "model_not_found", "The model `"+name+"` does not exist or you do not have access to it.")
	}
	x.Route = filter.Route{Model: name, Target: name}
	x.SetRequestHeader(f.header, name)
	x.Explain("bbr", name)
	return filter.Next
}

// send writes down the decision for headers, body and later filters.
func (f *Filter) send(x *filter.Exchange, m *model, t *target) {
	x.Route = filter.Route{Model: m.name, Target: t.model, Base: m.base, Pool: t.pool}
	x.SetRequestHeader(f.header, m.name)
	if t.model != m.name {
		x.SetRequestHeader(RewriteHeader, t.model)
		x.ReplaceInBody(x.Request.ModelSpan, t.quoted)
		x.RestoreModel(m.name)
	}
	if m.base != "" {
		x.SetRequestHeader(BaseHeader, m.base)
	}
	if t.pool != "" {
		x.SetRequestHeader(PoolHeader, t.pool)
	}
	x.Explain("bbr", t.why)
}

// choose draws a target by weight.
func (m *model) choose(rand func() uint64) *target {
	if len(m.targets) == 1 {
		return &m.targets[0]
	}
	// The bias of the modulo is below 2⁻³² for weights that fit 31 bits.
	n := rand() % m.weights
	for i := range m.targets {
		w := uint64(m.targets[i].weight)
		if n < w {
			return &m.targets[i]
		}
		n -= w
	}
	return &m.targets[len(m.targets)-1]
}

func refuse(status int, code, message string) filter.Verdict {
	return filter.Deny(filter.Refusal{Refusal: llm.Refusal{
		Status: status, Type: "invalid_request_error", Code: code, Param: "model", Message: message,
	}})
}

// fitsHeader reports whether s can stand in a header as it is: a line break
// in a model name must not become a second header.
func fitsHeader(s string) bool {
	if s == "" || len(s) > 256 || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return true
}
