package quota

import (
	"math"
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Factory makes the filter "quota".
var Factory = filter.Factory{
	Name:        "quota",
	Writes:      filter.FactTenant,
	Strict:      true,
	FailureMode: filter.FailClosed,
	New:         newFilter,
	Metrics:     func(m filter.Metrics) { newMetrics(m) },
	Help:        help,
}

// settings are what the configuration says besides who may call.
type settings struct {
	places    places
	identity  identity
	anonymous *app // who calls without an identity; nil: nobody may
	limits    []*limit
	prices    forModel[price]
	estimate  estimate
	asks      bool     // servers are asked to tell the usage of streams
	without   patterns // models whose servers do not understand to be asked for the usage
	unread    bool     // requests of which nothing tells the usage are charged by the estimate, not refused
	ends      bool     // streams are ended when the budget is gone
	headers   bool
	shadow    bool
	apigee    bool
	sourced   bool // keys, applications and products come from the companion
	open      bool // while the companion is unreachable this Envoy's share is admitted
	shared    bool
	hold      time.Duration
}

func newFilter(o *conf.Object, d *filter.Deps) filter.Filter {
	f := &Filter{settings: settings{
		estimate: newEstimate(), asks: true, unread: true, headers: true, shared: true, hold: 15 * time.Minute,
	}}
	f.readSource(o, d)
	r := newBookReader()
	r.elsewhere, r.now = f.sourced, d.Now()
	r.read(o)
	f.readIdentity(o, r)
	f.readLimits(o, r)
	f.readPrices(o, r)
	o.Object("estimate", f.estimate.read)
	f.readUsage(o)
	f.readSwitches(o)
	f.open = f.readStoreFailure(o)
	f.start(r.b, d)
	return f
}

// readSource reads where keys, applications and products come from.
func (f *Filter) readSource(o *conf.Object, d *filter.Deps) {
	source := "config"
	o.Enum("source", &source, "config", "companion")
	if f.sourced = source == "companion"; !f.sourced {
		return
	}
	switch {
	case d.Companion == nil:
		o.Errorf("source", "needs the key companion of the chain, with a cluster")
	case d.Companion.Cluster == "":
		o.Errorf("source", "needs a companion process, companion: {cluster: …} in the chain: an embedded one has no keys. List keys and products here, with source: config")
	}
	for _, key := range []string{"products", "developers", "apps"} {
		if o.Has(key) {
			o.Errorf(key, "must not be here: with source: companion it comes from the companion")
		}
	}
}

// readIdentity reads who may call. Something has to tell it.
func (f *Filter) readIdentity(o *conf.Object, r *bookReader) {
	f.places = defaultPlaces()
	n := 0
	keys := o.Object("keys", func(o *conf.Object) {
		f.places.read(o)
		listed := o.List("list", func(v *conf.Value) {
			n++
			v.Object(r.addKey)
		})
		switch {
		case listed && f.sourced:
			o.Errorf("list", "must not be here: with source: companion it comes from the companion")
		case listed && n == 0:
			o.Errorf("list", "needs at least one key; otherwise every request is refused")
		case !listed && !f.sourced:
			o.Errorf("", "missing key %q", "list")
		}
	})
	f.places.keyed = keys || f.sourced
	trusted := o.Object("identity", func(o *conf.Object) { f.identity.read(o, &f.places) })
	var name string
	if o.String("anonymous", &name, conf.NotEmpty, shortName) && name != "" {
		if r.b.listed && r.b.apps[name] == nil {
			o.Errorf("anonymous", "there is no app %q%s", name, conf.Suggest(name, names(r.b.apps)))
		}
		f.anonymous = r.appOf(name)
	}
	if !keys && !trusted && f.anonymous == nil && !f.sourced {
		o.Errorf("", "missing key %q", "keys")
	}
}

// readLimits reads the limits that do not belong to a product.
func (f *Filter) readLimits(o *conf.Object, r *bookReader) {
	taken := slices.Clone(r.products)
	o.List("limits", func(v *conf.Value) {
		v.Object(func(o *conf.Object) {
			name, limits := readLimit(o, &f.places, r)
			if name != "" && slices.Contains(taken, name) {
				o.Errorf("name", "%q is the name of a product or of another limit", name)
			}
			taken = append(taken, name)
			f.limits = append(f.limits, limits...)
		})
	})
}

// readPrices reads what models cost. A budget without prices would never be used up.
func (f *Filter) readPrices(o *conf.Object, r *bookReader) {
	o.Object("prices", func(o *conf.Object) {
		o.Each(func(model string, v *conf.Value) {
			v.Object(func(o *conf.Object) { f.prices.set(model, readPrice(o)) })
		})
	})
	isMoney := func(l *limit) bool { return l.measure == money }
	budget := slices.ContainsFunc(f.limits, isMoney) || slices.ContainsFunc(r.b.products, func(p *product) bool {
		return slices.ContainsFunc(p.limits, isMoney)
	})
	if budget && f.prices.empty() {
		o.Errorf("prices", "missing key %q: a budget needs the prices of the models", "prices")
	}
}

func (f *Filter) readUsage(o *conf.Object) {
	unread := "estimate"
	o.Object("usage", func(o *conf.Object) {
		o.Bool("ask", &f.asks)
		f.without = readPatterns(o, "without")
		o.Enum("unread", &unread, "estimate", "refuse")
	})
	f.unread = unread == "estimate"
}

func (f *Filter) readSwitches(o *conf.Object) {
	faults, scope := "openai", "shared"
	o.Bool("endStreams", &f.ends)
	o.Bool("headers", &f.headers)
	o.Bool("shadow", &f.shadow)
	o.Enum("faults", &faults, "openai", "apigee")
	o.Enum("scope", &scope, "shared", "local")
	o.Duration("hold", &f.hold, time.Second, 24*time.Hour)
	f.apigee, f.shared = faults == "apigee", scope == "shared"
}

func (f *Filter) readStoreFailure(o *conf.Object) (open bool) {
	mode := string(filter.FailOpen)
	o.Enum("onStoreFailure", &mode, string(filter.FailOpen), string(filter.FailClosed))
	return mode == string(filter.FailOpen)
}

// estimate says how many tokens a request is likely to take, before anybody knows.
type estimate struct {
	completion    int // of an answer that the client does not bound
	bytesPerToken int
	learn         bool
	max           forModel[int] // most tokens that an answer of the model may have
}

// maxAnswer is the most tokens of an answer of a model that is not listed: the context of large models.
const maxAnswer = 131072

func newEstimate() estimate { return estimate{completion: 1024, bytesPerToken: 4, learn: true} }

func (e *estimate) read(o *conf.Object) {
	o.Int("completion", &e.completion, 1, maxAnswer)
	o.Int("bytesPerToken", &e.bytesPerToken, 1, 64)
	o.Bool("learn", &e.learn)
	o.Object("max", func(o *conf.Object) {
		o.Each(func(model string, v *conf.Value) {
			n := maxAnswer
			v.Int(&n, 1, math.MaxInt32)
			e.max.set(model, n)
		})
	})
}
