package guardrail

import (
	"slices"
	"unicode/utf8"

	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
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
	Help:        help,
}

// provider screens text.
type provider struct {
	name     string
	kinds    detect.Set
	deny     []string
	patterns []string
}

// policy is which providers screen what, and what happens on a finding.
type policy struct {
	request, response bool
	use               []*provider
	action            action
	models            []string // empty: all
	message           string
	filtered          bool
}

func newFilter(o *conf.Object, d *filter.Deps) filter.Filter {
	providers := map[string]*provider{}
	var names []string
	o.Required("providers", "policies")
	o.List("providers", func(v *conf.Value) {
		v.Object(func(o *conf.Object) {
			p := readProvider(o)
			if providers[p.name] != nil {
				o.Errorf("name", "provider %q is listed twice", p.name)
			}
			providers[p.name] = p
			names = append(names, p.name)
		})
	})
	var policies []*policy
	o.List("policies", func(v *conf.Value) {
		v.Object(func(o *conf.Object) {
			policies = append(policies, readPolicy(o, providers, names))
		})
	})
	notEmpty(o, "policies", len(policies))
	f := &Filter{byModel: map[string]*plan{}, other: planFor(policies, "")}
	for _, p := range policies {
		for _, model := range p.models {
			if f.byModel[model] == nil {
				f.byModel[model] = planFor(policies, model)
			}
		}
	}
	f.needs = f.needed()
	f.findings = d.Metrics.Counter("inlet_guardrail_finding_total", "phase", "kind", "action")
	return f
}

// notEmpty refuses an empty list: a guardrail that screens nothing is a mistake that
// nobody would notice.
func notEmpty(o *conf.Object, key string, n int) {
	if n == 0 && o.Has(key) {
		o.Errorf(key, "needs at least one entry")
	}
}

func readProvider(o *conf.Object) *provider {
	p := &provider{}
	o.String("name", &p.name, conf.NotEmpty)
	o.Required("name", "local")
	o.Object("local", func(o *conf.Object) {
		p.readDetect(o)
		n := 0
		o.List("deny", func(v *conf.Value) {
			n++
			var text string
			if v.String(&text, denied) {
				p.deny = append(p.deny, text)
			}
		})
		notEmpty(o, "deny", n)
		n = 0
		o.List("patterns", func(v *conf.Value) {
			n++
			p.readPattern(v)
		})
		notEmpty(o, "patterns", n)
		if !o.Has("detect") && !o.Has("deny") && !o.Has("patterns") {
			o.Errorf("", "finds nothing: needs detect, deny or patterns")
		}
	})
	return p
}

// all is the word for all detectors.
const all = "all"

func (p *provider) readDetect(o *conf.Object) {
	n := 0
	o.Value("detect", func(v *conf.Value) {
		v.OneOrList(func(v *conf.Value) {
			n++
			var name string
			if !v.Enum(&name, append([]string{all}, detect.GroupNames...)...) {
				return
			}
			for _, group := range detect.GroupNames {
				if name == all || name == group {
					p.kinds |= detect.Groups[group]
				}
			}
		})
	})
	notEmpty(o, "detect", n)
}

// denied refuses what is too short to be looked for.
func denied(text string) string {
	switch {
	case utf8.RuneCountInString(text) < 2:
		return "must have at least two characters"
	case len(text) > maxDenied:
		return "must not be longer than 200 bytes"
	}
	return ""
}

// maxDenied bounds what of a stream waits for the rest of a phrase.
const maxDenied = 200

// readPattern reads a pattern, alone or with texts that it has to find.
func (p *provider) readPattern(v *conf.Value) {
	v.Either(func(o *conf.Object) {
		var expr string
		var finds []string
		o.Required("pattern", "finds")
		ok := o.String("pattern", &expr, conf.NotEmpty)
		o.Strings("finds", &finds, conf.NotEmpty)
		notEmpty(o, "finds", len(finds))
		if !ok || expr == "" {
			return
		}
		d, err := detect.New(detect.Config{Patterns: []string{expr}})
		if err != nil {
			o.Errorf("pattern", "%s", err.Why)
			return
		}
		var s detect.Scanner
		for _, text := range finds {
			if len(d.Find(&s, []byte(text))) == 0 {
				o.Errorf("finds", "the pattern does not match %q", text)
			}
		}
		p.patterns = append(p.patterns, expr)
	}, func(v *conf.Value) {
		var expr string
		if !v.String(&expr, conf.NotEmpty) {
			return
		}
		if _, err := detect.New(detect.Config{Patterns: []string{expr}}); err != nil {
			v.Errorf("%s", err.Why)
			return
		}
		p.patterns = append(p.patterns, expr)
	})
}

func readPolicy(o *conf.Object, providers map[string]*provider, names []string) *policy {
	p := &policy{}
	var on, action string
	ending := "error"
	o.Required("on", "use", "action")
	o.Enum("on", &on, "request", "response", "both")
	p.request, p.response = on != "response", on != "request"
	o.Enum("action", &action, actionNames[block], actionNames[redact], actionNames[report])
	p.action = actionNamed(action)
	o.List("use", func(v *conf.Value) {
		var name string
		if !v.String(&name) {
			return
		}
		used := providers[name]
		if used == nil {
			v.Errorf("there is no provider %q%s", name, conf.Suggest(name, names))
			return
		}
		p.use = append(p.use, used)
	})
	notEmpty(o, "use", len(p.use))
	o.Strings("models", &p.models, conf.NotEmpty)
	notEmpty(o, "models", len(p.models))
	o.String("message", &p.message, conf.NotEmpty)
	o.Enum("ending", &ending, "error", "content_filter")
	p.filtered = ending == "content_filter"
	return p
}

// actionNamed returns the action of a name, pass if there is none.
func actionNamed(name string) action { return action(max(0, slices.Index(actionNames[:], name))) }

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
	s := &side{phase: phase}
	var c detect.Config
	for _, p := range policies {
		for _, used := range p.use {
			r := rule{p.action, used.name, p}
			for k := range s.kinds {
				if used.kinds.Has(detect.Kind(k)) && p.action > s.kinds[k].action {
					s.kinds[k] = r
				}
			}
			c.Kinds |= used.kinds
			for _, text := range used.deny {
				c.Deny, s.denied = append(c.Deny, text), append(s.denied, r)
			}
			for _, expr := range used.patterns {
				c.Patterns, s.patterns = append(c.Patterns, expr), append(s.patterns, r)
			}
			s.actions |= 1 << p.action
		}
	}
	d, err := detect.New(c)
	if err != nil || d.Empty() {
		return nil // each pattern was compiled before
	}
	s.detector = d
	return s
}

// needed is what all plans need.
func (f *Filter) needed() (n filter.Needs) {
	add := func(p *plan) {
		if p.request != nil {
			n |= filter.NeedPrompt
			if p.request.actions.has(redact) {
				n |= filter.NeedStrings
			}
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
