// Package bbr implements body-based routing: it reads the model from the request body,
// copies it to headers that ordinary routes match, chooses the target behind a public
// model name, and rewrites the name in the body if the replica uses another one. The
// response then gets the public name back.
package bbr

import (
	"math/bits"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Headers that pass the decision to routes and later gateways.
const (
	RewriteHeader = filter.RewriteHeader
	BaseHeader    = filter.BaseHeader
	PoolHeader    = filter.PoolHeader
)

// Filter routes by the model in the body. It writes x.Route.
type Filter struct {
	filter.Base
	headers       []string // get the public name; the first one is "header"
	copies        []fieldCopy
	fields        []string          // body members that are read by name
	models        map[string]*model // by public name, alias and adapter
	prefixes      []prefix          // longest first
	listed        []*model          // as configured, in order
	cards         []card            // all names but prefixes
	lists         bool              // whether to respond to GET /v1/models
	learner       learner
	nothing       *lesson // what is known without any replica
	refuseUnknown bool
	refuseMissing bool
	rand          func() uint64
	metrics       metrics
}

// Needs requests the model and the configured fields.
func (f *Filter) Needs() filter.Needs { return filter.NeedModel }

// Fields returns the members that are copied to headers or keep a client with its target.
func (f *Filter) Fields() []string { return f.fields }

// OnRequest decides where the request goes.
func (f *Filter) OnRequest(x *filter.Exchange) filter.Verdict {
	if x.API == llm.Models {
		return f.respondModels(x)
	}
	if v := f.copyFields(x); v != filter.Next {
		return v
	}
	r := x.Request
	switch {
	case !r.HasModel:
		f.metrics.missing.Record(1, filter.Values{"model"})
		return f.withoutModel(x)
	case r.ModelIsString && r.Model == "":
		f.metrics.empty.Record(1, filter.Values{"model"})
		return refuse(400, "invalid_model", "model", invalidModel)
	case !r.ModelIsString || !fitsHeader(r.Model):
		return refuse(400, "invalid_model", "model", invalidModel)
	}
	l := f.learner.lesson()
	m := f.find(l, r.Model)
	if m == nil {
		return f.unknown(x, l)
	}
	f.send(x, l, m, m.choose(x, f.rand))
	return filter.Next
}

const invalidModel = "Invalid value for 'model': expected a string of 1 to 256 printable characters."

// find looks a name up: as configured, as listed by a replica, or by its longest
// prefix.
func (f *Filter) find(l *lesson, name string) *model {
	if m := f.models[name]; m != nil {
		return m
	}
	if m := l.models[name]; m != nil {
		return m
	}
	for _, p := range f.prefixes {
		if strings.HasPrefix(name, p.of) {
			return p.model
		}
	}
	return nil
}

// withoutModel handles a request without a model: many servers then use the only one
// they have.
func (f *Filter) withoutModel(x *filter.Exchange) filter.Verdict {
	if f.refuseMissing {
		return refuse(400, "missing_model", "model", "You must provide a model parameter.")
	}
	for _, header := range f.headers {
		x.RemoveRequestHeader(header)
	}
	x.Explain("bbr", "no-model")
	return filter.Next
}

// unknown handles a model that is not configured.
func (f *Filter) unknown(x *filter.Exchange, l *lesson) filter.Verdict {
	name := x.Request.Model
	if f.refuseUnknown {
		return refuseUnknown(clientsName(x, name))
	}
	x.Route = filter.Route{Model: name, Target: name, Base: l.parents[name]}
	f.setModel(x, name)
	if x.Route.Base != "" {
		x.SetRequestHeader(BaseHeader, x.Route.Base)
	}
	x.Explain("bbr", name)
	return filter.Next
}

func (f *Filter) setModel(x *filter.Exchange, name string) {
	for _, header := range f.headers {
		x.SetRequestHeader(header, name)
	}
}

// copyFields copies body members to headers. A value that the client set there itself
// is always removed.
func (f *Filter) copyFields(x *filter.Exchange) filter.Verdict {
	for i := range f.copies {
		c := &f.copies[i]
		field := x.Request.Field(c.field)
		switch {
		case field.Kind == llm.FieldAbsent:
			f.metrics.missing.Record(1, filter.Values{c.field})
			x.RemoveRequestHeader(c.header)
		case field.Kind == llm.FieldNull || field.Kind == llm.FieldText && len(field.Value) == 0:
			f.metrics.empty.Record(1, filter.Values{c.field})
			x.RemoveRequestHeader(c.header)
		default:
			value := string(field.Value)
			if !fitsHeader(value) {
				return refuse(400, "invalid_field", c.field,
					"Invalid value for '"+c.field+"': expected a number, a boolean, or a string of at most 256 printable characters.")
			}
			x.SetRequestHeader(c.header, value)
		}
	}
	return filter.Next
}

// send records the decision for headers, body and later filters.
func (f *Filter) send(x *filter.Exchange, l *lesson, m *model, t *target) {
	x.Route = filter.Route{
		Model: m.name, Target: t.model, Base: l.baseOf(m, t),
		Pool: t.pool.Name, External: t.pool.External, Fallback: m.fallback,
	}
	f.setModel(x, m.name)
	if t.model != m.name {
		x.SetRequestHeader(RewriteHeader, t.model)
	}
	if t.model != x.Request.Model {
		name := t.quoted
		if x.Request.Form {
			name = t.bare
		}
		x.ReplaceInBody(x.Request.ModelSpan, name)
		x.RestoreModel(x.Request.Model)
	}
	if x.Route.Base != "" {
		x.SetRequestHeader(BaseHeader, x.Route.Base)
	}
	if t.pool.Name != "" {
		x.SetRequestHeader(PoolHeader, t.pool.Name)
	}
	x.Explain("bbr", t.why)
}

// choose selects a target by weight: by the value that the client is to stay with,
// otherwise at random.
func (m *model) choose(x *filter.Exchange, rand func() uint64) *target {
	if len(m.targets) == 1 {
		return &m.targets[0]
	}
	if h, ok := m.sticky.hash(x, m.name); ok {
		// The high bits of hash × weights are uniform in [0, weights), and most clients keep
		// their target when the weights change.
		point, _ := bits.Mul64(h, m.weights)
		return m.at(point)
	}
	// The bias of the modulo is below 2⁻³² for weights that fit 31 bits.
	return m.at(rand() % m.weights)
}

// at returns the target whose share of the weights contains the point.
func (m *model) at(point uint64) *target {
	for i := range m.targets {
		w := uint64(m.targets[i].weight)
		if point < w {
			return &m.targets[i]
		}
		point -= w
	}
	return &m.targets[len(m.targets)-1]
}

// hash returns a number that is the same for the same client and model in every
// worker, Envoy and build; ok is false if the request does not identify the client.
func (s *sticky) hash(x *filter.Exchange, model string) (h uint64, ok bool) {
	h = fnv(fnvOffset, model) * fnvPrime // a zero byte between the two
	switch {
	case s.field != "":
		field := x.Request.Field(s.field)
		h, ok = fnv(h, field.Value), len(field.Value) > 0
	case s.header != "":
		value, _ := x.RequestHeaders.Get(s.header)
		h, ok = fnv(h, value), value != ""
	}
	return mix(h), ok
}

// FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func fnv[T string | []byte](h uint64, s T) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// mix spreads the bits of x, since FNV's high bits hardly depend on the last
// characters (the finalizer of SplitMix64, Steele et al. 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// clientsName returns the client's name for the model. If a gateway before this one has put
// another name into the body, the client must not see that name. A client that writes
// these headers itself gets back what it wrote.
func clientsName(x *filter.Exchange, name string) string {
	for _, h := range &filter.Renamings {
		if rewritten, _ := x.RequestHeaders.Get(h.To); rewritten != name {
			continue
		}
		if public, _ := x.RequestHeaders.Get(h.From); fitsHeader(public) {
			return public
		}
	}
	return name
}

func refuseUnknown(name string) filter.Verdict {
	return refuse(404, "model_not_found", "model", "The model `"+name+"` does not exist or you do not have access to it.")
}

func refuse(status int, code, param, message string) filter.Verdict {
	return filter.Deny(filter.Refusal{Refusal: llm.Refusal{
		Status: status, Type: "invalid_request_error", Code: code, Param: param, Message: message,
	}})
}

// fitsHeader reports whether s is valid as a header value: a line break in a model
// name must not become a second header.
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
