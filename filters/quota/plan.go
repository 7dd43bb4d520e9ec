package quota

import (
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// plan says what the request wants of which accounts.
func (f *Filter) plan(x *filter.Exchange, r *request) filter.Verdict {
	r.expected, r.bounded = f.expect(x, r)
	price, priced := f.prices.get(r.model)
	r.price = price
	if r.product != nil {
		for _, l := range r.product.limits {
			if v := f.demand(x, r, l, priced); v != filter.Next {
				return v
			}
		}
	}
	for _, l := range f.limits {
		if !l.match.fits(x, r) {
			continue
		}
		if v := f.demand(x, r, l, priced); v != filter.Next {
			return v
		}
	}
	return filter.Next
}

// computes reports whether requests of an API take something that tokens are for. Videos and moderations never tell how
// many, and are not free for that.
func computes(api llm.API) bool {
	return api.HasUsage() || api == llm.Videos || api == llm.Moderations
}

// completes reports whether there is an answer that may be long.
func completes(api llm.API) bool { return api.Completes() || api == llm.Videos }

// demand adds what the request wants of one limit.
func (f *Filter) demand(x *filter.Exchange, r *request, l *limit, priced bool) filter.Verdict {
	if l.measure.needsUsage() {
		switch {
		case !computes(x.API):
			return filter.Next // nothing is computed
		case l.measure == completionTokens && !completes(x.API):
			return filter.Next // it takes none, so it does not matter whether any are left
		case l.measure == money && !priced:
			return f.refuse(noPrice)
		case l.measure == money && r.price.isFree(x.API):
			return filter.Next
		case !f.unread && !x.API.TellsUsage():
			return f.refuse(unreadUsage)
		}
	}
	r.metered = r.metered || l.measure.needsUsage()
	at := len(r.names)
	r.names = l.appendName(r.names, x, r)
	name := r.names[at:]
	r.limits = append(r.limits, l)
	r.demands = append(r.demands, account.Demand{
		Key: account.KeyOf(name), Name: name, Limit: l.amount, Window: l.window,
		Spike: l.measure == spike, Amount: f.reserve(r, l), Count: l.measure == requests || l.measure == spike,
		Shared: f.link != nil && !l.local, Open: f.open,
	})
	return filter.Next
}

// reserve is how much of a limit is reserved. An answer that the client does not bound takes at most an eighth
// of a limit with it, so that a small limit is not all taken by one request.
func (f *Filter) reserve(r *request, l *limit) int64 {
	t := r.expected
	if !r.bounded && l.measure != money {
		t.completion = min(t.completion, int(max(l.amount/8, 1)))
	}
	switch l.measure {
	case promptTokens:
		return int64(t.prompt)
	case completionTokens:
		return int64(t.completion)
	case totalTokens:
		return int64(t.prompt + t.completion)
	case money:
		cost := r.price.dearest().of(llm.Usage{Prompt: t.prompt, Completion: t.completion})
		if !r.bounded {
			cost = min(cost, max(l.amount/8, r.price.dearest().of(llm.Usage{Prompt: t.prompt})))
		}
		return cost
	}
	return 1
}

// expect estimates the tokens of a request: those of its prompt by the bytes, and of its answers the bound
// that the client sets, or what answers of the model have had.
func (f *Filter) expect(x *filter.Exchange, r *request) (t tokens, bounded bool) {
	if !computes(x.API) || x.Request == nil {
		return tokens{}, true
	}
	q, e := x.Request, &f.estimate
	t.prompt = min(q.PromptTokens+(q.PromptBytes+e.bytesPerToken-1)/e.bytesPerToken, maxTokens)
	if !completes(x.API) {
		return t, true
	}
	most, ok := e.max.get(r.model)
	if !ok {
		most = maxAnswer
	}
	each := q.MaxTokens
	if bounded = each > 0; !bounded {
		each = f.learned.typical(r.model, e.completion)
	}
	t.completion = int(min(int64(min(each, most))*int64(max(q.Answers, 1)), maxTokens))
	return t, bounded
}
