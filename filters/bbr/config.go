package bbr

import (
	"math"

	"github.com/inlet-proxy/inlet/shared/conf"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/llm"
)

// Factory makes the filter "bbr".
var Factory = filter.Factory{
	Name:        "bbr",
	Writes:      filter.FactRoute,
	FailureMode: filter.FailClosed,
	New:         newFilter,
}

// model is one public name and what it may be sent as.
type model struct {
	name    string
	base    string
	targets []target
	weights uint64 // sum of the targets' weights
}

// target is one thing that a public name can stand for.
type target struct {
	model  string // name that the replica knows; "" keeps the public name
	pool   string
	weight int

	quoted []byte // model as a JSON string, what the body gets
	why    string // "name>model@pool", what the access log gets
}

func newFilter(o *conf.Object, d *filter.Deps) filter.Filter {
	f := &Filter{header: "x-gateway-model-name", models: map[string]*model{}, rand: d.Rand}
	o.String("header", &f.header, conf.HeaderName)
	d.ClaimHeader(f.header)
	o.List("models", func(v *conf.Value) {
		v.Object(func(o *conf.Object) { f.addModel(o) })
	})
	// With models listed, a name that is not among them is a mistake of the
	// caller; without, the filter only copies the name to the header.
	unknown := "pass"
	if len(f.models) > 0 {
		unknown = "refuse"
	}
	o.Enum("unknownModel", &unknown, "refuse", "pass")
	f.refuseUnknown = unknown == "refuse"
	return f
}

func (f *Filter) addModel(o *conf.Object) {
	m := &model{}
	o.String("name", &m.name, conf.NotEmpty, headerValue)
	o.String("base", &m.base, conf.NotEmpty, headerValue)
	o.Required("name", "targets")
	o.List("targets", func(v *conf.Value) {
		v.Object(func(o *conf.Object) { m.addTarget(o) })
	})
	if o.Has("targets") && len(m.targets) == 0 {
		o.Errorf("targets", "needs at least one target")
	} else if len(m.targets) > 0 && m.weights == 0 {
		o.Errorf("targets", "all weights are 0, so no target can be chosen")
	}
	if f.models[m.name] != nil {
		o.Errorf("name", "model %q is listed twice", m.name)
	}
	f.models[m.name] = m
}

func (m *model) addTarget(o *conf.Object) {
	t := target{weight: 1}
	o.String("model", &t.model, conf.NotEmpty, headerValue)
	o.String("pool", &t.pool, conf.NotEmpty, headerValue)
	o.Int("weight", &t.weight, 0, math.MaxInt32)
	sent := t.model
	if sent == "" {
		sent = m.name
	}
	t.why = m.name + ">" + sent + "@" + t.pool
	t.model = sent
	t.quoted = llm.AppendString(nil, sent)
	m.weights += uint64(t.weight)
	m.targets = append(m.targets, t)
}

// headerValue says what keeps s from being a header value.
func headerValue(s string) string {
	if !fitsHeader(s) {
		return "has characters that a header cannot carry, or is longer than 256 bytes"
	}
	return ""
}
