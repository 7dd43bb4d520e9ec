package quota

import (
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // Envoy's image, and a wasm VM, may have no time zones

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// nano is the scale of money: budgets are sums of integers.
const nano = 1_000_000_000

// limitReader reads the amounts of a product or of an entry of "limits", each of which is a limit.
type limitReader struct {
	name   string // of the product or entry
	per    []dimension
	header string
	match  match

	zone   *time.Location
	flexi  bool
	from   time.Time
	local  bool
	cached int64
	all    []*limit
	wrong  bool // an amount is there and cannot be read
}

// read reads all amounts.
func (r *limitReader) read(o *conf.Object) []*limit {
	r.readWindow(o)
	r.cached = 1000
	r.rates(o, "requests", requests, 1)
	o.Object("tokens", func(o *conf.Object) {
		weight := 1.0
		o.Float("cachedWeight", &weight, 0, 1)
		r.cached = int64(weight*1000 + 0.5)
		r.rates(o, "total", totalTokens, 1)
		r.rates(o, "prompt", promptTokens, 1)
		r.rates(o, "completion", completionTokens, 1)
	})
	open := 0
	if o.Int("concurrency", &open, 1, 1<<31-1) {
		r.add(o, "concurrency", concurrency, int64(open), account.Window{})
	} else if o.Has("concurrency") {
		r.wrong = true
	}
	r.rates(o, "spike", spike, 1)
	r.rates(o, "budget", money, nano)
	return r.all
}

// readWindow reads how the amounts' time is cut.
func (r *limitReader) readWindow(o *conf.Object) {
	zone, start, scope := "UTC", "calendar", ""
	if o.String("zone", &zone, isZone) {
		r.zone, _ = time.LoadLocation(zone) // checked
	}
	o.String("start", &start, isStart)
	switch start {
	case "calendar":
	case "flexi":
		r.flexi = true
	default:
		r.from, _ = time.Parse(time.RFC3339, start) // checked
	}
	o.Enum("scope", &scope, "shared", "local")
	r.local = scope == "local"
}

func isZone(s string) string {
	if _, err := time.LoadLocation(s); err != nil || s == "" || s == "Local" {
		return "is not a time zone such as Europe/Berlin"
	}
	return ""
}

func isStart(s string) string {
	if s == "calendar" || s == "flexi" {
		return ""
	}
	switch at, err := time.Parse(time.RFC3339, s); {
	case err != nil:
		return "is neither calendar, flexi, nor a time such as 2027-01-01T00:00:00Z"
	case !account.StartFits(at):
		return "is not in the years 1970 to 2248"
	}
	return ""
}

// rates reads one or several amounts per time: "5/min, 1000/day".
func (r *limitReader) rates(o *conf.Object, key string, m measure, scale int64) {
	var list string
	check := func(s string) string {
		for rate := range strings.SplitSeq(s, ",") {
			if _, _, problem := account.ParseDecimalRate(strings.TrimSpace(rate), scale); problem != "" {
				return problem
			}
		}
		return ""
	}
	read := o.Value(key, func(v *conf.Value) {
		if v.IsNumber() {
			v.Errorf(`is an amount without a time; want both, such as "10/min"`)
			return
		}
		v.String(&list, check)
	})
	if list == "" {
		r.wrong = r.wrong || read
		return
	}
	for rate := range strings.SplitSeq(list, ",") {
		amount, w, _ := account.ParseDecimalRate(strings.TrimSpace(rate), scale) // checked
		w.Zone, w.Flexi, w.From = r.zone, r.flexi, r.from
		if m == spike {
			w.Zone, w.Flexi, w.From = nil, false, time.Time{}
		}
		r.add(o, key, m, amount, w)
	}
}

// add makes a limit.
func (r *limitReader) add(o *conf.Object, key string, m measure, amount int64, w account.Window) {
	l := &limit{
		name:    r.name,
		measure: m, amount: amount, window: w, per: r.per, header: r.header, match: r.match, cached: r.cached,
		local: r.local || m == spike, // requests are spaced in each Envoy
	}
	l.prefix = account.AppendValue(nil, r.name)
	l.prefix = append(append(l.prefix, '/'), m.String()...)
	l.said = m.in(amount, w)
	if m != concurrency {
		l.prefix = w.Append(append(l.prefix, ':'))
	}
	if slices.ContainsFunc(r.all, func(other *limit) bool { return string(other.prefix) == string(l.prefix) }) {
		o.Errorf(key, "has two limits for the same period")
		return
	}
	r.all = append(r.all, l)
}

var units = [...]string{
	account.Second: "second", account.Minute: "minute", account.Hour: "hour", account.Day: "day", account.Week: "week", account.Month: "month",
}

// adverbs are what a budget of one unit of time is called.
var adverbs = [...]string{account.Hour: "hourly", account.Day: "daily", account.Week: "weekly", account.Month: "monthly"}

// per is a window in words.
func per(w account.Window) string {
	if w.N <= 1 {
		return "per " + units[w.Unit]
	}
	return "per " + string(appendInt(nil, int64(w.N))) + " " + units[w.Unit] + "s"
}

// readLimit reads an entry of "limits".
func readLimit(o *conf.Object, p *places, known *bookReader) (name string, limits []*limit) {
	var r limitReader
	o.String("name", &r.name, conf.NotEmpty, shortName)
	o.Required("name")
	o.List("per", func(v *conf.Value) {
		var word string
		if !v.Enum(&word, dimensions[:]...) {
			return
		}
		d := dimension(slices.Index(dimensions[:], word))
		if slices.Contains(r.per, d) {
			v.Errorf("%q is listed twice", word)
		}
		r.per = append(r.per, d)
	})
	o.String("header", &r.header, conf.HeaderName)
	switch tenant := slices.Contains(r.per, byTenant); {
	case tenant && !o.Has("header"):
		o.Errorf("", "missing key %q: %q needs the request header whose value is the tenant", "header", "per: [tenant]")
	case !tenant && r.header != "":
		o.Errorf("header", "is used only with %q", "per: [tenant]")
	}
	if p.mayCarryKey(r.header) {
		o.Errorf("header", "%q may carry a key, which would become part of the name of an account", r.header)
	}
	o.Object("match", func(o *conf.Object) {
		r.match = readMatch(o)
		known.warnOfMatch(o, &r.match)
	})
	limits = r.read(o)
	if len(limits) == 0 && !r.wrong {
		o.Errorf("", "limits nothing: it needs requests, tokens, concurrency, spike or budget")
	}
	return r.name, limits
}

func readMatch(o *conf.Object) (m match) {
	m.products = readPatterns(o, "products")
	m.apps = readPatterns(o, "apps")
	m.developers = readPatterns(o, "developers")
	m.models = readPatterns(o, "models")
	m.pools = readPatterns(o, "pools")
	o.Object("header", func(o *conf.Object) {
		m.value = "*"
		o.String("name", &m.header, conf.HeaderName)
		o.String("value", &m.value, conf.NotEmpty)
		o.Required("name")
	})
	return m
}

// warnOfMatch warns of names that nothing in the document has. Those that come from elsewhere are not known here.
func (r *bookReader) warnOfMatch(o *conf.Object, m *match) {
	if r.elsewhere {
		return
	}
	warn := func(key, what string, all patterns, among []string) {
		for _, p := range all {
			if !slices.ContainsFunc(among, p.match) {
				o.Warnf(key, "there is no %s %q%s, so this never fits", what, string(p), conf.Suggest(string(p), among))
			}
		}
	}
	warn("products", "product", m.products, r.products)
	warn("developers", "developer", m.developers, r.developers)
	if r.b.listed {
		warn("apps", "app", m.apps, names(r.b.apps))
	}
}

// warnOfKey warns of a key with which no request would be admitted.
func (r *bookReader) warnOfKey(o *conf.Object, k *key) {
	switch {
	case r.elsewhere:
	case k.expired(r.now):
		o.Warnf("expires", "the key has expired: every request with it is refused")
	case !k.revoked && len(r.products) > 0 && len(k.subscriptions()) == 0:
		o.Warnf("", "neither the key %q nor its app %q has a product: every request with it is refused", k.name, k.app.name)
	}
}
