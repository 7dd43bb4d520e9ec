package quota

import (
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// measure is what a limit counts.
type measure uint8

const (
	requests measure = iota
	promptTokens
	completionTokens
	totalTokens
	concurrency
	spike
	money // in nano units
)

// measures in the names of accounts, in metrics and in messages.
var measures = [...]struct{ name, one, said string }{
	requests:         {"requests", "request", "requests"},
	promptTokens:     {"prompt-tokens", "prompt token", "prompt tokens"},
	completionTokens: {"completion-tokens", "completion token", "completion tokens"},
	totalTokens:      {"total-tokens", "token", "tokens"},
	concurrency:      {"concurrency", "request in progress", "requests in progress"},
	spike:            {"spike", "request", "requests"},
	money:            {"budget", "budget", "budget"},
}

// in says how much of a measure a window has: "tokens per minute", "monthly budget".
func (m measure) in(amount int64, w account.Window) string {
	said := measures[m].said
	if amount == 1 {
		said = measures[m].one
	}
	switch {
	case m == concurrency:
		return said
	case m == money && w.N <= 1 && adverbs[w.Unit] != "":
		return adverbs[w.Unit] + " " + said
	}
	return said + " " + per(w)
}

func (m measure) String() string { return measures[m].name }

// tokens reports whether it counts tokens.
func (m measure) tokens() bool { return promptTokens <= m && m <= totalTokens }

// needsUsage reports whether it depends on what the response says.
func (m measure) needsUsage() bool { return m.tokens() || m == money }

// dimension is by what a limit keeps accounts apart.
type dimension uint8

const (
	byProduct dimension = iota
	byApp
	byDeveloper
	byTenant
	byModel
	byPool
	byIP
)

var dimensions = [...]string{
	byProduct: "product", byApp: "app", byDeveloper: "developer", byTenant: "tenant", byModel: "model", byPool: "pool", byIP: "ip",
}

// limit is one rule: so much of a measure in a window, for each combination of its
// dimensions. It is immutable.
type limit struct {
	name    string // of the product or entry
	prefix  []byte // beginning of the names of its accounts
	said    string // in messages: "requests per minute"
	measure measure
	amount  int64
	window  account.Window
	per     []dimension
	header  string // whose value is the tenant
	match   match
	local   bool // of this Envoy alone, whether there is a companion or not
	// cached is what a cached token of the prompt counts, in thousandths.
	cached int64
}

// match says which requests a limit is for. What is empty fits all.
type match struct {
	products, apps, developers, models, pools patterns
	header, value                             string
}

// fits reports whether a request is one of those.
func (m *match) fits(x *filter.Exchange, r *request) bool {
	if m.header != "" {
		if value, ok := x.RequestHeaders.Get(m.header); !ok || !pattern(m.value).match(value) {
			return false
		}
	}
	return m.products.match(x.Tenant.Product) && m.apps.match(x.Tenant.App) && m.developers.match(x.Tenant.Developer) &&
		m.models.match(r.model) && m.pools.match(x.Route.Pool)
}

// appendName appends the name of the account that a request is counted in.
func (l *limit) appendName(dst []byte, x *filter.Exchange, r *request) []byte {
	start := len(dst)
	dst = append(dst, l.prefix...)
	for i, d := range l.per {
		dst = append(dst, "/,"[min(i, 1)])
		dst = append(dst, dimensions[d]...)
		dst = append(dst, '=')
		if d == byIP {
			dst = appendAddress(dst, x.Client)
			continue
		}
		dst = account.AppendValue(dst, valueOf(d, l, x, r))
	}
	if len(dst)-start <= account.MaxName {
		return dst
	}
	return shorten(dst, start)
}

// shorten puts a hash in the place of the end of a name that is too long: a client
// may choose it.
func shorten(dst []byte, start int) []byte {
	const kept = account.MaxName - 33
	const hex = "0123456789abcdef"
	k := account.KeyOf(dst[start:])
	dst = append(dst[:start+kept], '#')
	for _, half := range [...]uint64{k.Hi, k.Lo} {
		for shift := 60; shift >= 0; shift -= 4 {
			dst = append(dst, hex[half>>shift&15])
		}
	}
	return dst
}

func valueOf(d dimension, l *limit, x *filter.Exchange, r *request) string {
	switch d {
	case byProduct:
		return x.Tenant.Product
	case byApp:
		return x.Tenant.App
	case byDeveloper:
		return x.Tenant.Developer
	case byTenant:
		value, _ := x.RequestHeaders.Get(l.header)
		return value
	case byModel:
		return r.model
	}
	return x.Route.Pool
}
