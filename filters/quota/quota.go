// Package quota decides who may call, how often, and for how many tokens. It reserves before
// a request goes on what it is likely to take, and settles at its end with what the response
// says that it took.
package quota

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// Filter checks identities and limits. It writes x.Tenant.
type Filter struct {
	filter.Base
	settings
	fixed   *book  // from the configuration; nil if it comes from the companion
	shelf   *shelf // of the book that comes from the companion
	table   account.Table
	crowd   *crowd
	learned *learned
	link    *link // to the companion; nil without one
	now     func() time.Time
	needs   filter.Needs
	metrics metrics
}

// Needs depends on what the limits count.
func (f *Filter) Needs() filter.Needs { return f.needs }

// Metadata names where a filter before Inlet says who calls.
func (f *Filter) Metadata() (namespace, key string) { return f.identity.namespace, f.identity.key }

// request is what the filter keeps of one request. It is used again for later ones.
type request struct {
	app      *app
	product  *product
	choices  []*product // approved, and with the operation
	model    string     // its one name, whatever the client calls it
	price    price
	metered  bool   // a limit counts what the response says
	expected tokens // estimated
	bounded  bool   // the client bounds the answer

	limits  []*limit // of each demand
	demands []account.Demand
	used    []int64
	names   []byte // memory for the names of the demands

	state state
	asked int       // how often the companion was asked
	until time.Time // no longer than that
	body  []byte
	grown grown
	told  telling
}

// state is how far the accounting of a request is.
type state uint8

const (
	uncounted state = iota // nothing is taken
	asking                 // the companion is asked
	taken                  // something is reserved, to be settled
)

// tokens are numbers of tokens.
type tokens struct{ prompt, completion int }

// begin returns the state for a new request.
func begin(x *filter.Exchange) *request {
	r, _ := x.State().(*request)
	if r == nil {
		r = &request{}
	}
	*r = request{
		choices: r.choices[:0], limits: r.limits[:0], demands: r.demands[:0], used: r.used[:0],
		names: r.names[:0], body: r.body[:0], grown: r.grown.reset(), told: r.told,
	}
	x.SetState(r)
	return r
}

// OnRequestHeaders refuses callers that nobody knows, and operations that their products do
// not include, before a byte of the body is buffered. It removes the key before the replica
// gets the request, wherever the client put it.
func (f *Filter) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	r := begin(x)
	b := f.book()
	if b == nil {
		f.metrics.failed(noDocument)
		x.Explain("quota", "no-document")
		return f.storeFailed()
	}
	var who caller
	a, v := f.find(b, x, &who)
	if a == nil {
		return v
	}
	f.places.hide(b, x, who.known[:who.distinct])
	r.app = a
	x.Tenant = filter.Tenant{Name: a.name, App: a.name, Developer: a.developer}
	if who.key != nil {
		x.Tenant.Name = who.key.name
	}
	x.Explain("quota", x.Tenant.Name)
	if len(b.products) == 0 {
		return filter.Next
	}
	subscriptions := a.products
	if who.key != nil {
		subscriptions = who.key.subscriptions()
	}
	return f.choose(x, r, subscriptions)
}

// choose finds the products that include the operation.
func (f *Filter) choose(x *filter.Exchange, r *request, all []subscription) filter.Verdict {
	some := false
	for _, s := range all {
		if !s.approved {
			continue
		}
		some = true
		if s.product.permits(x.Method, x.Path) {
			r.choices = append(r.choices, s.product)
		}
	}
	switch {
	case !some:
		return f.refuse(noProduct)
	case len(r.choices) == 0:
		return f.refuse(notPermitted)
	}
	return filter.Next
}

// OnRequest reserves what the request is likely to take, of all accounts or of none.
func (f *Filter) OnRequest(x *filter.Exchange) filter.Verdict {
	r, ok := x.State().(*request)
	if !ok || r.app == nil {
		return filter.Next // the filter has failed open
	}
	if r.model = x.Route.Model; r.model == "" {
		r.model = x.Request.Model
	}
	if v := f.chooseProduct(x, r); v != filter.Next {
		return v
	}
	if v := f.plan(x, r); v != filter.Next || len(r.demands) == 0 {
		return v
	}
	if r.metered && f.asks && (len(f.without) == 0 || !f.without.match(r.model)) {
		x.AskUsage()
	}
	if f.ends {
		f.watch(x, r)
	}
	return f.take(x, r)
}

// chooseProduct takes the first product that includes the model. A request without a body has no model.
func (f *Filter) chooseProduct(x *filter.Exchange, r *request) filter.Verdict {
	if len(r.choices) == 0 {
		return filter.Next // there are no products
	}
	for _, p := range r.choices {
		if r.model == "" && !x.API.HasUsage() || p.models.match(r.model) {
			r.product, x.Tenant.Product = p, p.name
			return filter.Next
		}
	}
	return f.refuse(noModel)
}

// take takes from all accounts, and asks the companion if it may have more.
func (f *Filter) take(x *filter.Exchange, r *request) filter.Verdict {
	result := f.table.Take(f.now(), r.demands, f.hold)
	switch result.Outcome {
	case account.Admitted:
		r.state = taken
		f.metrics.decided(x, admitted)
		if result.Local {
			f.metrics.failed(localShare)
			x.Explain("quota-store", localShare)
		}
		return filter.Next
	case account.Dry:
		if f.mayAsk(r) {
			return f.ask(r)
		}
		return f.undecided(x, r, contended) // others were quicker each time, and nobody has said that nothing is left
	case account.Busy, account.Full:
		return f.undecided(x, r, causes[result.Outcome]) // not the store's failure: a client can cause it
	case account.Unreachable, account.Failed:
		cause := f.cause(result.Outcome)
		f.metrics.failed(cause)
		x.Explain("quota", cause)
		if f.shadow || f.open {
			return f.goUncounted(r)
		}
		return f.giveUp(r, f.storeFailed())
	}
	if f.shadow {
		f.metrics.decided(x, shadowed)
		x.Explain("quota-shadow", r.limits[result.At].reason())
		return f.goUncounted(r)
	}
	f.metrics.refused(x, r.limits[result.At])
	x.Explain("limit", string(r.limits[result.At].prefix))
	return f.giveUp(r, f.overLimit(x, r, result))
}

// cause is why the accounts say nothing.
func (f *Filter) cause(o account.Outcome) string {
	if o == account.Unreachable && f.link != nil {
		return f.link.absence.cause()
	}
	return causes[o]
}

// undecided refuses a request that may come again at once, whatever onStoreFailure says.
func (f *Filter) undecided(x *filter.Exchange, r *request, cause string) filter.Verdict {
	f.metrics.failed(cause)
	x.Explain("quota", cause)
	if f.shadow {
		return f.goUncounted(r)
	}
	return f.giveUp(r, f.busy())
}

// goUncounted admits a request without counting it.
func (f *Filter) goUncounted(r *request) filter.Verdict { return f.giveUp(r, filter.Next) }

// giveUp ends the wait for the companion, if there is one, and gives back what the request holds.
func (f *Filter) giveUp(r *request, v filter.Verdict) filter.Verdict {
	if r.state == asking {
		f.refund(r)
	}
	r.state = uncounted
	return v
}
