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
	chargeCounted                  // the response ended early: by what it said and what went through
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
	u := f.usage(x, r, how)
	r.used = r.used[:0]
	for i, l := range r.limits {
		r.used = append(r.used, f.cost(r, l, u, r.reserved(i), how))
	}
	f.write(func() error { return f.table.Settle(f.now(), r.demands, r.used) })
	f.settleGrown(r)
	if !r.metered {
		return
	}
	f.metrics.charged(x, r, u, how)
	if how == chargeReported && end.Complete && !r.bounded {
		f.learned.add(r.model, u.Completion/max(x.Request.Answers, 1))
	}
}

// refund gives everything back.
func (f *Filter) refund(r *request) {
	f.settleGrown(r)
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
		return early(x) // in place of what a replica had begun
	case x.Response.Origin == filter.OfProxy:
		return chargeNothing // Envoy had nobody to ask, or did not
	case x.Response.Status >= 400 && !believable(x.Usage):
		return chargeRequest
	case end.Complete && (believable(x.Usage) || !x.API.HasUsage()):
		return chargeReported
	case end.Complete:
		return chargeEstimate
	}
	return early(x)
}

// believable reports whether a usage is known and possible: no model has a context of that many tokens.
func believable(u llm.Usage) bool {
	return u.Known && u.Prompt <= maxTokens && u.Completion <= maxTokens
}

// unanswered is for a request to which neither a replica nor Envoy has responded.
func unanswered(x *filter.Exchange, end filter.End) charging {
	switch {
	case end.Answered:
		return chargeRequest // another filter gave the response
	case end.Refused || x.Response.Served == "":
		return chargeNothing
	case end.Complete:
		return chargeEstimate // it comes again, since Envoy follows a redirect, and no filter sees it then
	}
	return early(x) // the client left while the replica computed the prompt
}

// early is for a response that did not come to its end, or did not begin.
func early(x *filter.Exchange) charging {
	if !x.API.HasUsage() {
		return chargeReported
	}
	return chargeCounted
}

// usage is what the request took, as far as anybody knows.
func (f *Filter) usage(x *filter.Exchange, r *request, how charging) llm.Usage {
	u := x.Usage
	if u.Known && !believable(u) {
		u = llm.Usage{}
	}
	switch how {
	case chargeRequest:
		return llm.Usage{}
	case chargeCounted:
		// What was told first is what had been computed by then: the rest is counted. Each event of a stream
		// has a token, at least.
		if u.Prompt == 0 {
			u.Prompt = r.expected.prompt
		}
		if x.API.Completes() {
			u.Completion = max(u.Completion, min(x.Response.Events, r.expected.completion), r.grown.seen)
		}
	case chargeEstimate:
		u.Prompt = max(u.Prompt, r.expected.prompt)
		u.Completion = max(u.Completion, r.expected.completion)
	}
	u.Total = u.Prompt + u.Completion
	return u
}

// cost is what a limit is charged. What nobody has told never costs more than was reserved.
func (f *Filter) cost(r *request, l *limit, u llm.Usage, reserved int64, how charging) int64 {
	n := l.of(r, u)
	if how == chargeEstimate && l.measure.needsUsage() {
		return reserved
	}
	if how == chargeCounted && l.measure.needsUsage() && !u.Known {
		return min(n, reserved)
	}
	return n
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
