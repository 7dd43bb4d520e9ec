package quota

import (
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// product is what applications subscribe to: what they may call, and how much.
type product struct {
	name       string
	manual     bool        // somebody approves each subscription
	operations []operation // empty: all
	models     patterns
	limits     []*limit // each per app
}

// operation is a method and a path.
type operation struct {
	path    string
	prefix  bool // path is the beginning of it
	methods []string
}

func readProduct(o *conf.Object) *product {
	p, approval := &product{}, "auto"
	o.String("name", &p.name, conf.NotEmpty, shortName)
	o.Required("name")
	o.Enum("approval", &approval, "auto", "manual")
	p.manual = approval == "manual"
	o.List("operations", func(v *conf.Value) {
		v.Object(func(o *conf.Object) { p.operations = append(p.operations, readOperation(o)) })
	})
	p.models = readPatterns(o, "models")
	r := limitReader{name: p.name, per: []dimension{byApp}}
	p.limits = r.read(o)
	return p
}

func readOperation(o *conf.Object) operation {
	var op operation
	exact := o.String("path", &op.path, conf.PathPrefix)
	op.prefix = o.String("pathPrefix", &op.path, conf.PathPrefix)
	if exact == op.prefix {
		o.Errorf("", "needs either a path or a pathPrefix")
	}
	o.Strings("methods", &op.methods, isMethod)
	return op
}

func isMethod(s string) string {
	if s == "" || strings.ToUpper(s) != s {
		return "is not a method such as POST"
	}
	return ""
}

func readPatterns(o *conf.Object, key string) (all patterns) {
	var list []string
	o.Strings(key, &list, conf.NotEmpty)
	for _, s := range list {
		all = append(all, pattern(s))
	}
	return all
}

// permits reports whether an operation is one of the product's.
func (p *product) permits(method, path string) bool {
	if len(p.operations) == 0 {
		return true
	}
	path, _, _ = strings.Cut(path, "?")
	return slices.ContainsFunc(p.operations, func(op operation) bool {
		if len(op.methods) > 0 && !slices.Contains(op.methods, method) {
			return false
		}
		return op.path == path || op.prefix && strings.HasPrefix(path, op.path)
	})
}
