package guardrail

import (
	"regexp"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Factory makes the filter "guardrail".
var Factory = filter.Factory{
	Name:        "guardrail",
	Strict:      true,
	FailureMode: filter.FailClosed,
	New:         newFilter,
	Help:        help,
}

// provider screens text.
type provider struct {
	name     string
	patterns []*regexp.Regexp
}

// policy is which providers screen what, and what happens on a match.
type policy struct {
	use []*provider
}

func newFilter(o *conf.Object, _ *filter.Deps) filter.Filter {
	f := &Filter{}
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
	o.List("policies", func(v *conf.Value) {
		v.Object(func(o *conf.Object) {
			f.policies = append(f.policies, readPolicy(o, providers, names))
		})
	})
	notEmpty(o, "policies", len(f.policies))
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
		o.Required("patterns")
		o.List("patterns", func(v *conf.Value) {
			var expr string
			if !v.String(&expr, conf.NotEmpty) {
				return
			}
			re, err := regexp.Compile(expr)
			if err != nil {
				v.Errorf("%v", err)
				return
			}
			p.patterns = append(p.patterns, re)
		})
		notEmpty(o, "patterns", len(p.patterns))
	})
	return p
}

func readPolicy(o *conf.Object, providers map[string]*provider, names []string) policy {
	var pol policy
	on, action := "request", "block"
	o.Enum("on", &on, "request")
	o.Enum("action", &action, "block")
	o.Required("on", "use", "action")
	o.List("use", func(v *conf.Value) {
		var name string
		if !v.String(&name) {
			return
		}
		p := providers[name]
		if p == nil {
			v.Errorf("there is no provider %q%s", name, conf.Suggest(name, names))
			return
		}
		pol.use = append(pol.use, p)
	})
	notEmpty(o, "use", len(pol.use))
	return pol
}
