package quota

import (
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// How a request is charged at its end.
type charging uint8

const (
	chargeNothing  charging = iota // no replica was asked: as if the request had never been
	chargeRequest                  // a replica refused it or failed before it began: a request, and no tokens
	chargeReported                 // by what the response says
	chargeCounted                  // the client left, or a filter ended the response: by what it said and what went through
	chargeBroken                   // the replica broke off: the same, but what nobody has told costs no more than was reserved
	chargeEstimate                 // the response does not say: by what was reserved
)

// OnDone settles what was reserved, on every ending, once.
func (f *Filter) OnDone(x *filter.Exchange, end filter.End) {
	r, ok := x.State().(*request)
	if !ok {
		return
	}
	switch r.state {
	case asking:
		f.refund(r) // it waited for the companion when it ended
	case taken:
		f.settle(x, r, end)
	}
	r.state = uncounted
}

func (f *Filter) settle(x *filter.Exchange, r *request, end filter.End) {
	f.crowd.count(f.table, &f.metrics)
	how := howToCharge(x, end)
	if how == chargeNothing {
		f.refund(r)
		f.metrics.decided(x, refunded)
		return
	}
	r.used = r.used[:0]
	for i, l := range r.limits {
		r.used = append(r.used, l.of(r, f.usage(x, r, how, r.covers(i))))
	}
	f.settleGrown(r)
	f.write(func() error { return f.table.Settle(f.now(), r.demands, r.used) })
	if !r.metered {
		return
	}
	u := f.usage(x, r, how, r.coversMost())
	f.metrics.charged(x, r, u, how)
	if how == chargeReported && end.Complete && !r.bounded {
		f.learned.add(r.model, u.Completion/max(x.Request.Answers, 1))
	}
}

// refund gives everything back.
func (f *Filter) refund(r *request) {
	if g := &r.grown; len(g.demands) > 0 {
		f.write(func() error { return f.table.Refund(f.now(), g.demands) })
	}
	f.write(func() error { return f.table.Refund(f.now(), r.demands) })
}

// write writes to the accounts, once more if it fails: what was written before is not written twice. What cannot be
// expires by itself.
func (f *Filter) write(change func() error) {
	if change() == nil {
		return
	}
	if change() != nil {
		f.metrics.failed(notSettled)
	}
}

// howToCharge reads the ending.
func howToCharge(x *filter.Exchange, end filter.End) charging {
	if x.Response.Headers == nil {
		return unanswered(x, end)
	}
	switch {
	case end.Refused || end.Answered:
		return early(x, end) // in place of what a replica had begun
	case x.Response.Origin == filter.OfProxy:
		return chargeNothing // Envoy had nobody to ask, or did not
	case x.Response.Status >= 400 && !believable(x.Usage):
		return chargeRequest
	case end.Complete && (believable(x.Usage) || !computes(x.API)):
		return chargeReported
	case end.Complete:
		return chargeEstimate
	}
	return early(x, end)
}

// believable reports whether a usage is known and possible: no model has a context of that many tokens.
func believable(u llm.Usage) bool {
	return u.Known && u.Prompt <= maxTokens && u.Completion <= maxTokens
}

// unanswered is for a request to which neither a replica nor Envoy has responded.
func unanswered(x *filter.Exchange, end filter.End) charging {
	switch {
	case x.Response.Served != "" && end.Complete:
		return chargeEstimate // it comes again, since Envoy follows a redirect, and no filter sees it then
	case x.Response.Served != "":
		return early(x, end) // the client left, or a call beside the request decided, while the replica computed the prompt
	case end.Answered:
		return chargeRequest // another filter gave the response
	}
	return chargeNothing
}

// early is for a response that did not come to its end, or did not begin.
func early(x *filter.Exchange, end filter.End) charging {
	switch {
	case !computes(x.API):
		return chargeReported
	case end.Broken:
		return chargeBroken
	}
	return chargeCounted
}

// usage is what the request took, as far as anybody knows. reserved is for how many tokens of the answer there is a
// reservation.
func (f *Filter) usage(x *filter.Exchange, r *request, how charging, reserved int) llm.Usage {
	u := x.Usage
	if u.Known && !believable(u) {
		u = llm.Usage{}
	}
	switch how {
	case chargeRequest:
		return llm.Usage{}
	case chargeCounted:
		u.Completion = r.seen(x, u.Completion)
	case chargeBroken:
		seen := r.seen(x, u.Completion)
		if !u.Known {
			seen = max(u.Completion, min(seen, reserved))
		}
		u.Completion = seen
	case chargeEstimate:
		u.Prompt = max(u.Prompt, r.expected.prompt)
		u.Completion = max(u.Completion, reserved)
	}
	if how != chargeReported && u.Prompt == 0 {
		u.Prompt = r.expected.prompt
	}
	u.Total = u.Prompt + u.Completion
	return u
}

// seen is how many tokens of an answer went through that was cut: those that the response has told, and one at least
// for each event after that. So who leaves before the end is told pays no less than who waits for it.
func (r *request) seen(x *filter.Exchange, told int) int {
	since := x.Response.SinceUsage
	switch {
	case !completes(x.API) || told > 0 && since == 0:
		return told
	case told == 0:
		since = x.Response.Events
	}
	return max(told+since, r.grown.seen)
}

// of is how much of the limit's measure a usage is.
func (l *limit) of(r *request, u llm.Usage) int64 {
	switch l.measure {
	case promptTokens:
		return l.weighted(u)
	case completionTokens:
		return int64(u.Completion)
	case totalTokens:
		return l.weighted(u) + int64(u.Completion)
	case money:
		return r.price.of(u)
	}
	return 1 // of requests; accounts of requests in progress do not look at it
}

// weighted are the prompt's tokens, of which the cached ones count by their weight; rounded up.
func (l *limit) weighted(u llm.Usage) int64 {
	cached := int64(min(u.Cached, u.Prompt))
	return int64(u.Prompt) - cached + (cached*l.cached+999)/1000
}
