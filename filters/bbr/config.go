package bbr

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Factory makes the filter "bbr".
var Factory = filter.Factory{
	Name:        "bbr",
	Writes:      filter.FactRoute,
	FailureMode: filter.FailClosed,
	New:         newFilter,
	Metrics:     func(m filter.Metrics) { newMetrics(m) },
	Help:        help,
}

// model is one public name and the targets behind it.
type model struct {
	name     string
	base     string
	targets  []target
	weights  uint64 // sum of the targets' weights
	sticky   sticky
	fallback []filter.Pool
}

// target is one of the choices behind a public name.
type target struct {
	model  string // the replica's name for the model
	pool   filter.Pool
	weight int

	quoted []byte // model as a JSON string, written into JSON bodies
	bare   []byte // model without quotes, written into forms
	why    string // "name>model@pool", for the access log
}

// sticky is the value that keeps a client with one target; empty for none.
type sticky struct{ field, header string }

// prefix is an alias "name*".
type prefix struct {
	of    string // without the asterisk
	model *model
}

// fieldCopy is a body member that is copied to a header.
type fieldCopy struct{ field, header string }

// metrics are what the filter counts.
type metrics struct{ missing, empty filter.Metric }

func newMetrics(m filter.Metrics) metrics {
	return metrics{
		missing: m.Counter("inlet_body_field_missing_total", "field"),
		empty:   m.Counter("inlet_body_field_empty_total", "field"),
	}
}

// reader reads the configuration into f.
type reader struct {
	f     *Filter
	pools []*pool
}

// pool is an entry of "pools".
type pool struct {
	filter.Pool
	used bool
}

func newFilter(o *conf.Object, d *filter.Deps) filter.Filter {
	f := &Filter{
		headers: []string{filter.ModelHeader},
		models:  map[string]*model{},
		rand:    d.Rand,
		metrics: newMetrics(d.Metrics),
	}
	r := &reader{f: f}
	o.String("header", &f.headers[0], conf.HeaderName)
	r.readCopies(o)
	for _, header := range f.headers {
		d.ClaimHeader(header)
	}
	for _, c := range f.copies {
		d.ClaimHeader(c.header)
	}
	o.List("pools", func(v *conf.Value) { v.Object(r.addPool) })
	o.List("models", func(v *conf.Value) { v.Object(r.addModel) })
	for _, p := range r.pools {
		if !p.used {
			o.Errorf("pools", "no model uses pool %q", p.Name)
		}
	}
	slices.SortStableFunc(f.prefixes, func(a, b prefix) int { return cmp.Compare(len(b.of), len(a.of)) })
	r.readSwitches(o)
	r.readLearning(o, d)
	return f
}

// readSwitches reads the keys whose defaults depend on whether models are listed. With
// models, an unknown name is the client's mistake, and the list of models is known.
// Without, the filter only copies the name to the header.
func (r *reader) readSwitches(o *conf.Object) {
	f, listed := r.f, len(r.f.cards) > 0
	unknown, missing, list := "pass", "refuse", listed
	if listed {
		unknown = "refuse"
	}
	o.Enum("unknownModel", &unknown, "refuse", "pass")
	f.refuseUnknown = unknown == "refuse"
	o.Enum("missingModel", &missing, "refuse", "pass")
	f.refuseMissing = missing == "refuse"
	if o.Bool("listModels", &list) && list && !listed {
		o.Errorf("listModels", "there are no models to list")
	}
	f.lists = list
}

// readLearning reads whether to learn from the replicas' own lists of models.
func (r *reader) readLearning(o *conf.Object, d *filter.Deps) {
	f, learn := r.f, true
	o.Bool("learnAdapters", &learn)
	f.nothing = f.learn(nil)
	f.learner = learner{f: f, last: f.nothing, lock: d.Mutex()}
	if f.refuseUnknown {
		d.Routes = f.routes(learn && d.Companion != nil)
	}
	if learn {
		f.learner.snapshot = d.Snapshot
	}
}

// routes are what later filters may know of the models and pools.
func (f *Filter) routes(learns bool) *filter.Routes {
	r := &filter.Routes{Models: map[string]string{}, Learned: learns}
	add := func(p filter.Pool) {
		if p.Name != "" && !slices.Contains(r.Pools, p.Name) {
			r.Pools = append(r.Pools, p.Name)
		}
	}
	for name, m := range f.models {
		r.Models[name] = m.name
	}
	for _, m := range f.listed {
		for i := range m.targets {
			add(m.targets[i].pool)
		}
		for _, p := range m.fallback {
			add(p)
		}
	}
	return r
}

// readCopies reads bodyFieldToHeader.
func (r *reader) readCopies(o *conf.Object) {
	f, taken := r.f, []string{r.f.headers[0]}
	o.List("bodyFieldToHeader", func(v *conf.Value) {
		v.Object(func(o *conf.Object) {
			var c fieldCopy
			o.String("field", &c.field, conf.NotEmpty)
			o.String("header", &c.header, freeHeader)
			o.Required("field", "header")
			c.header = strings.ToLower(c.header)
			switch {
			case c.header == "":
				return // reported already
			case c.field == "model" && c.header == f.headers[0]:
				return // the same copy is listed twice
			case slices.Contains(taken, c.header):
				o.Errorf("header", "two body members cannot both be copied to header %q", c.header)
			}
			taken = append(taken, c.header)
			if c.field == "model" {
				f.headers = append(f.headers, c.header)
				return
			}
			f.copies = append(f.copies, c)
			f.reads(c.field)
		})
	})
}

// reads adds a body member to those that the filter reads by name.
func (f *Filter) reads(field string) {
	if !slices.Contains(f.fields, field) {
		f.fields = append(f.fields, field)
	}
}

// reserved headers have a meaning of their own, so clients must not control them.
var reserved = []string{
	RewriteHeader, BaseHeader, PoolHeader, filter.EndpointHeader, filter.SubsetKey,
	"host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding", "te", "upgrade", "authorization",
}

// freeHeader checks that a header name, in any case, may get a copy of a body member.
func freeHeader(s string) string {
	s = strings.ToLower(s)
	if slices.Contains(reserved, s) {
		return "is a header that a client may not set through the body"
	}
	return conf.HeaderName(s)
}

func (r *reader) addPool(o *conf.Object) {
	p := &pool{}
	o.String("name", &p.Name, conf.NotEmpty, headerValue)
	o.Bool("external", &p.External)
	o.Required("name")
	switch {
	case p.Name == "": // reported already
	case r.pool(p.Name) != nil:
		o.Errorf("name", "pool %q is listed twice", p.Name)
	default:
		r.pools = append(r.pools, p)
	}
}

// pool returns the entry of a name, nil if there is none.
func (r *reader) pool(name string) *pool {
	i := slices.IndexFunc(r.pools, func(p *pool) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return r.pools[i]
}

// use returns the pool of a name. Only pools with special settings must be listed.
func (r *reader) use(name string) filter.Pool {
	p := r.pool(name)
	if p == nil {
		return filter.Pool{Name: name}
	}
	p.used = true
	return p.Pool
}

func (r *reader) addModel(o *conf.Object) {
	m := &model{}
	var aliases, adapters, fallback []string
	o.String("name", &m.name, conf.NotEmpty, headerValue, noAsterisk)
	o.Strings("aliases", &aliases, conf.NotEmpty, headerValue, prefixOrName)
	o.String("base", &m.base, conf.NotEmpty, headerValue)
	o.Strings("adapters", &adapters, conf.NotEmpty, headerValue, noAsterisk)
	o.Required("name", "targets")
	o.List("targets", func(v *conf.Value) {
		v.Object(func(o *conf.Object) { r.addTarget(o, m) })
	})
	if o.Has("targets") && len(m.targets) == 0 {
		o.Errorf("targets", "needs at least one target")
	} else if len(m.targets) > 0 && m.weights == 0 {
		o.Errorf("targets", "all weights are 0, so no target can be selected")
	}
	o.Strings("fallback", &fallback, conf.NotEmpty, headerValue)
	for _, name := range fallback {
		m.fallback = append(m.fallback, r.use(name))
	}
	if slices.ContainsFunc(m.targets, func(t target) bool { return t.pool.Name == "" }) && len(fallback) > 0 {
		o.Errorf("fallback", "every target needs a pool to fall back from")
	}
	o.Object("stickyBy", func(o *conf.Object) { r.readSticky(o, &m.sticky) })
	r.f.listed = append(r.f.listed, m)

	r.offer(o, "name", m.name, m)
	for _, alias := range aliases {
		if of, ok := strings.CutSuffix(alias, "*"); ok {
			r.offerPrefix(o, of, m)
		} else {
			r.offer(o, "aliases", alias, m)
		}
	}
	for _, name := range adapters {
		r.offer(o, "adapters", name, m.adapter(name))
	}
}

func (r *reader) addTarget(o *conf.Object, m *model) {
	var name, pool string
	weight := 1
	o.String("model", &name, conf.NotEmpty, headerValue)
	o.String("pool", &pool, conf.NotEmpty, headerValue)
	o.Int("weight", &weight, 0, math.MaxInt32)
	if name == "" {
		name = m.name
	}
	m.weights += uint64(weight)
	m.targets = append(m.targets, newTarget(m.name, name, r.use(pool), weight))
}

func newTarget(public, name string, pool filter.Pool, weight int) target {
	return target{
		model: name, pool: pool, weight: weight,
		quoted: llm.AppendString(nil, name), bare: []byte(name), why: public + ">" + name + "@" + pool.Name,
	}
}

// adapter returns the model for a LoRA adapter of m: it is served wherever m is, under
// its own name.
func (m *model) adapter(name string) *model {
	a := *m
	a.name = name
	if a.base == "" {
		a.base = m.name
	}
	a.targets = nil
	for _, t := range m.targets {
		a.targets = append(a.targets, newTarget(name, name, t.pool, t.weight))
	}
	return &a
}

func (r *reader) readSticky(o *conf.Object, s *sticky) {
	o.String("field", &s.field, conf.NotEmpty)
	o.String("header", &s.header, conf.HeaderName)
	if o.Has("field") == o.Has("header") {
		o.Errorf("", "needs either field or header")
	}
	if s.field != "" {
		r.f.reads(s.field)
	}
}

// offer adds m under a name.
func (r *reader) offer(o *conf.Object, key, name string, m *model) {
	if name == "" {
		return // reported already
	}
	if r.f.models[name] != nil {
		o.Errorf(key, "model %q is listed twice", name)
		return
	}
	r.f.models[name] = m
	r.f.cards = append(r.f.cards, card{name, m})
}

// offerPrefix adds m under all names that begin with of.
func (r *reader) offerPrefix(o *conf.Object, of string, m *model) {
	if slices.ContainsFunc(r.f.prefixes, func(p prefix) bool { return p.of == of }) {
		o.Errorf("aliases", "alias %q is listed twice", of+"*")
		return
	}
	r.f.prefixes = append(r.f.prefixes, prefix{of, m})
}

// headerValue returns why s is not valid as a header value.
func headerValue(s string) string {
	if !fitsHeader(s) {
		return "has characters that a header cannot carry, or is longer than 256 bytes"
	}
	return ""
}

func noAsterisk(s string) string {
	if strings.Contains(s, "*") {
		return "has an asterisk, which only an alias may have"
	}
	return ""
}

func prefixOrName(s string) string {
	if strings.Contains(strings.TrimSuffix(s, "*"), "*") {
		return "has an asterisk that is not its last character"
	}
	return ""
}
