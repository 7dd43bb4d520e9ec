package guardrail

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/filters/guardrail/valid"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Factory makes the filter "guardrail".
var Factory = filter.Factory{
	Name:        "guardrail",
	Reads:       filter.FactRoute,
	Strict:      true,
	FailureMode: filter.FailClosed,
	New:         newFilter,
	Metrics:     func(m filter.Metrics) { newMetrics(m) },
	Help:        help,
}

// mostPolicies is how many there may be: sets of them are bits.
const mostPolicies = 64

func newFilter(o *conf.Object, d *filter.Deps) filter.Filter {
	f := &Filter{deps: d, byModel: map[string]*plan{}, metrics: newMetrics(d.Metrics)}
	sources := map[string]*source{}
	var names []string
	o.Required("providers", "policies")
	o.List("providers", func(v *conf.Value) {
		v.Object(func(o *conf.Object) {
			p := readSource(o, d)
			if sources[p.name] != nil {
				o.Errorf("name", "provider %q is listed twice", p.name)
			}
			sources[p.name] = p
			names = append(names, p.name)
		})
	})
	o.List("policies", func(v *conf.Value) {
		v.Object(func(o *conf.Object) {
			p := readPolicy(o, d, sources, names)
			p.bit = 1 << len(f.policies)
			f.policies = append(f.policies, p)
		})
	})
	notEmpty(o, "policies", len(f.policies))
	if len(f.policies) > mostPolicies {
		o.Errorf("policies", "has %d entries (want %d or less)", len(f.policies), mostPolicies)
		return nil
	}
	if !fewValidations(o, f.policies) {
		return nil
	}
	f.plan(sources)
	for _, p := range sources {
		if p.remote != nil {
			f.makeKey()
			break
		}
	}
	return f
}

// plan makes what follows from the policies.
func (f *Filter) plan(sources map[string]*source) {
	f.other = planFor(f.policies, "")
	for _, p := range f.policies {
		for _, model := range p.models {
			if f.byModel[model] == nil {
				f.byModel[model] = planFor(f.policies, model)
			}
		}
		if len(p.products) > 0 {
			f.reads |= filter.FactTenant
		}
	}
	for _, p := range sources {
		if p.remote != nil && p.remote.cache != nil {
			f.reads |= filter.FactTenant // verdicts are kept for each tenant
		}
	}
	f.needs = f.needed()
}

// makeKey makes the key of sums.
func (f *Filter) makeKey() {
	for i := 0; i < len(f.key); i += 8 {
		binary.LittleEndian.PutUint64(f.key[i:], f.deps.Rand())
	}
}

// notEmpty refuses an empty list: a guardrail that screens nothing is a mistake that
// nobody would notice.
func notEmpty(o *conf.Object, key string, n int) {
	if n == 0 && o.Has(key) {
		o.Errorf(key, "needs at least one entry")
	}
}

// source is a provider: it finds text, here or by asking a service.
type source struct {
	name     string
	kinds    detect.Set
	deny     []string
	patterns []string
	remote   *remote      // nil: it finds here
	valid    *valid.Rules // nil: it does not validate
}

func readSource(o *conf.Object, d *filter.Deps) *source {
	p := &source{}
	o.String("name", &p.name, conf.NotEmpty)
	o.Required("name")
	var has []string
	object := func(name string, read func(*conf.Object)) {
		if o.Object(name, read) {
			has = append(has, name)
		}
	}
	object("local", p.readLocal)
	object("validate", p.readValidate)
	for _, protocol := range provider.Protocols {
		object(protocol.Name, func(o *conf.Object) { p.remote = readRemote(o, protocol) })
	}
	if len(has) != 1 {
		o.Errorf("", "needs exactly one of local, validate, %s; has %s", protocolNames(), cmp.Or(strings.Join(has, ", "), "none"))
	}
	p.readCalls(o, d)
	return p
}

// planFor makes the plan of a model from the policies for it; "" is any model that no policy names.
func planFor(policies []*policy, model string) *plan {
	side := func(phase string, wanted func(*policy) bool) *side {
		var all []*policy
		for _, p := range policies {
			if wanted(p) && (len(p.models) == 0 || slices.Contains(p.models, model)) {
				all = append(all, p)
			}
		}
		return sideOf(phase, all)
	}
	return &plan{
		request:  side("request", func(p *policy) bool { return p.request }),
		response: side("response", func(p *policy) bool { return p.response }),
	}
}

// sideOf makes one side of the policies, nil if they find nothing.
func sideOf(phase string, policies []*policy) *side {
	s := &side{phase: phase, policies: policies}
	var c detect.Config
	for _, p := range policies {
		for _, used := range p.use {
			r := rule{p.action, used.name, p}
			for k := range s.kinds {
				if used.kinds.Has(detect.Kind(k)) {
					s.kinds[k] = append(s.kinds[k], r)
				}
			}
			c.Kinds |= used.kinds
			for _, text := range used.deny {
				c.Deny, s.denied = append(c.Deny, text), append(s.denied, r)
			}
			for _, expr := range used.patterns {
				c.Patterns, s.patterns = append(c.Patterns, expr), append(s.patterns, r)
			}
			s.calls = s.calls || used.remote != nil
			if used.valid != nil {
				s.validations = append(s.validations, validation{r, used.valid})
			}
		}
		if p.conditional() || p.scoped() && phase == "request" {
			s.choosy = true
		}
		s.actions |= 1 << p.action
	}
	for k := range s.kinds {
		slices.SortStableFunc(s.kinds[k], func(a, b rule) int { return cmp.Compare(b.action, a.action) })
	}
	d, err := detect.New(c)
	if err != nil {
		return nil // each pattern was compiled before
	}
	if !d.Empty() {
		s.detector = d
	} else if !s.calls && len(s.validations) == 0 {
		return nil
	}
	return s
}

// needed is what all plans need.
func (f *Filter) needed() (n filter.Needs) {
	add := func(p *plan) {
		if p.request != nil {
			n |= filter.NeedPrompt
			if p.request.actions.has(redact) || p.request.calls || p.request.choosy {
				n |= filter.NeedStrings
			}
		}
		if p.response != nil && p.response.calls {
			n |= filter.NeedPrompt | filter.NeedStrings // services judge a response together with what it answers
		}
	}
	add(f.other)
	for _, p := range f.byModel {
		add(p)
	}
	if len(f.byModel) > 0 {
		n |= filter.NeedModel
	}
	return n
}

// Reads says what the policies depend on, besides the route.
func (f *Filter) Reads() filter.Facts { return f.reads }
