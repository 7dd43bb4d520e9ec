package guardrail

import (
	"maps"
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// policy is which providers screen what, and what happens on a finding.
type policy struct {
	bit               uint64 // of it in sets of policies
	request, response bool
	use               []*source
	action            action
	message           string
	filtered          bool

	// What it is for; empty: all.
	models, pools, products []string
	headers                 []headerMatch

	roles    roles // whose text of a prompt; 0: everybody's
	latest   bool  // of a conversation, only the last turn
	whole    bool  // a conversation of which the server has a part is refused
	parallel bool  // the services are asked at once, not one after the other
	beside   bool  // ... and while the model works

	window, overlap int // of a stream
}

// headerMatch is a header that a request must have, with one of some values.
type headerMatch struct {
	name   string
	values []string
}

// roles is a set of them.
type roles uint8

func (r roles) has(role llm.Role) bool { return r == 0 || r>>role&1 == 1 }

// roleNames are the names of roles in the configuration, by role.
var roleNames = []string{"user", "system", "assistant", "tool", "arguments"}

// conditional reports whether it depends on more of a request than the model whether the policy holds.
func (p *policy) conditional() bool { return len(p.pools)+len(p.products)+len(p.headers) > 0 }

// scoped reports whether the policy is for a part of a prompt.
func (p *policy) scoped() bool { return p.roles != 0 || p.latest }

// calls reports whether it uses services.
func (p *policy) calls() bool {
	return slices.ContainsFunc(p.use, func(s *source) bool { return s.remote != nil })
}

// holds reports whether the policy is for a request, whose model is one of the policy's. The request may still go to another pool
// than was decided, if that is saturated.
func (p *policy) holds(x *filter.Exchange) bool {
	if len(p.pools) > 0 && !slices.Contains(p.pools, x.Route.Pool) &&
		!slices.ContainsFunc(x.Route.Fallback, func(pool filter.Pool) bool { return slices.Contains(p.pools, pool.Name) }) {
		return false
	}
	if len(p.products) > 0 && !slices.Contains(p.products, x.Tenant.Product) {
		return false
	}
	for i := range p.headers {
		if !p.headers[i].in(x.RequestHeaders) {
			return false
		}
	}
	return true
}

// in reports whether any of the header's lines has one of the values.
func (m *headerMatch) in(h filter.Headers) bool {
	for n := 0; ; n++ {
		value, ok := h.At(m.name, n)
		if !ok {
			return false
		}
		if slices.Contains(m.values, value) {
			return true
		}
	}
}

func readPolicy(o *conf.Object, d *filter.Deps, sources map[string]*source, names []string) *policy {
	p := &policy{window: 1}
	var on, action string
	ending := "error"
	o.Required("on", "use", "action")
	o.Enum("on", &on, "request", "response", "both")
	p.request, p.response = on != "response", on != "request"
	o.Enum("action", &action, actionNames[block], actionNames[redact], actionNames[report])
	p.action = actionNamed(action)
	named := 0
	o.List("use", func(v *conf.Value) {
		named++
		var name string
		if !v.String(&name) {
			return
		}
		used := sources[name]
		if used == nil {
			v.Errorf("there is no provider %q%s", name, conf.Suggest(name, names))
			return
		}
		p.use = append(p.use, used)
	})
	notEmpty(o, "use", named)
	if p.action == redact && len(p.use) > 0 && !slices.ContainsFunc(p.use, (*source).redacts) {
		o.Errorf("action", "none of the providers can redact (want block or report)")
	}
	p.checkValidated(o)
	p.readMatch(o)
	p.checkRoutes(o, d.Routes)
	p.readScope(o)
	p.readCalling(o)
	o.String("message", &p.message, conf.NotEmpty)
	o.Enum("ending", &ending, "error", "content_filter")
	p.filtered = ending == "content_filter"
	return p
}

// readMatch reads which requests the policy is for.
func (p *policy) readMatch(o *conf.Object) {
	for _, list := range []struct {
		key string
		of  *[]string
	}{{"models", &p.models}, {"pools", &p.pools}, {"products", &p.products}} {
		o.Strings(list.key, list.of, conf.NotEmpty)
		notEmpty(o, list.key, len(*list.of))
	}
	n := 0
	o.Object("headers", func(o *conf.Object) {
		o.Each(func(name string, v *conf.Value) {
			n++
			if wrong := conf.HeaderName(name); wrong != "" {
				v.Errorf("%q %s", name, wrong)
			}
			m := headerMatch{name: name}
			v.OneOrList(func(v *conf.Value) {
				var value string
				v.String(&value)
				m.values = append(m.values, value)
			})
			p.headers = append(p.headers, m)
		})
	})
	notEmpty(o, "headers", n)
}

// redactOverlap is how much of a stream waits where it is to be redacted: names, card numbers and addresses have several words, and what
// has gone on cannot be redacted any more.
const redactOverlap = 64

// checkRoutes refuses names that no request can have: such a policy screens nothing, and nobody would notice.
func (p *policy) checkRoutes(o *conf.Object, r *filter.Routes) {
	if r == nil {
		return
	}
	models := slices.Sorted(maps.Values(r.Models))
	for _, name := range p.models {
		public, known := r.Models[name]
		switch {
		case !known && r.Learned:
			o.Warnf("models", "bbr lists no model %q%s, so this is only for an adapter of that name", name, conf.Suggest(name, models))
		case !known:
			o.Errorf("models", "there is no model %q%s", name, conf.Suggest(name, models))
		case public != name:
			o.Errorf("models", "%q is an alias (did you mean %q?)", name, public)
		}
	}
	for _, name := range p.pools {
		if !slices.Contains(r.Pools, name) {
			o.Errorf("pools", "there is no pool %q%s", name, conf.Suggest(name, r.Pools))
		}
	}
}

// readScope reads of which texts the policy is.
func (p *policy) readScope(o *conf.Object) {
	n := 0
	o.List("roles", func(v *conf.Value) {
		n++
		var name string
		if v.Enum(&name, roleNames...) {
			p.roles |= 1 << slices.Index(roleNames, name)
		}
	})
	notEmpty(o, "roles", n)
	text := "all"
	o.Enum("text", &text, "all", "latest")
	p.latest = text == "latest"
	stored := "audit"
	o.Enum("storedHistory", &stored, "audit", "refuse")
	p.whole = stored == "refuse"
	for _, key := range []string{"roles", "text", "storedHistory"} {
		if o.Has(key) && !p.request {
			o.Errorf(key, "applies to prompts only (want on: request or both)")
		}
	}
	var window, overlap int64 = 1, -1
	o.Size("window", &window, 1, 64<<10)
	o.Size("overlap", &overlap, 0, 16<<10)
	if p.window = int(window); overlap >= 0 {
		p.overlap = int(overlap)
	} else if p.action == redact && p.calls() {
		p.overlap = redactOverlap
	}
	for _, key := range []string{"window", "overlap"} {
		switch {
		case !o.Has(key):
		case !p.response:
			o.Errorf(key, "applies to streamed responses only (want on: response or both)")
		case len(p.use) > 0 && !p.calls():
			o.Errorf(key, "applies to remote providers only, and this policy uses none")
		}
	}
}

// readCalling reads how services are asked.
func (p *policy) readCalling(o *conf.Object) {
	order, mode := "sequence", "wait"
	o.Enum("order", &order, "sequence", "parallel")
	o.Enum("mode", &mode, "wait", "parallel")
	p.beside = mode == "parallel"
	p.parallel = order == "parallel" || p.beside
	switch {
	case !p.beside:
	case p.action == redact:
		o.Errorf("mode", "parallel asks while the model reads the prompt, when it is too late to redact (want block or report)")
	case !p.request:
		o.Errorf("mode", "parallel applies to prompts only (want on: request or both)")
	case len(p.use) > 0 && !p.calls():
		o.Errorf("mode", "parallel applies to remote providers only, and this policy uses none")
	}
}

// actionNamed returns the action of a name, pass if there is none.
func actionNamed(name string) action { return action(max(0, slices.Index(actionNames[:], name))) }
