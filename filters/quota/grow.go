package quota

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// A stream may go on beyond what was reserved for it. With "endStreams" more is reserved as it goes on, and the
// stream is ended when there is no more.

// leastStep is how many tokens are reserved at a time: of a long answer a quarter of what it has, but no more than a
// sixteenth of a limit. Near the limit's end it is what has come.
const leastStep = 64

// grown is what was reserved beyond the first reservation. It is given back when the request is settled with all
// that it took.
type grown struct {
	seen    int // tokens of the answer that went through
	covered int // ... up to which something is reserved
	next    int // ... and up to which it is asked for
	demands []account.Demand
	limits  []*limit
	taken   int  // how many of the demands were taken
	over    bool // nothing is reserved any more
}

func (g grown) reset() grown { return grown{demands: g.demands[:0], limits: g.limits[:0]} }

// watch has the stream's texts shown, each as it arrives.
func (f *Filter) watch(x *filter.Exchange, r *request) {
	if x.Request == nil || !x.Request.Stream || !x.API.Completes() {
		return
	}
	for _, l := range r.limits {
		if l.measure == completionTokens || l.measure == totalTokens || l.measure == money {
			r.grown.covered = r.covered()
			x.Screen(filter.Screening{Window: 1})
			return
		}
	}
}

// covered is how many tokens of an answer all limits have a reservation for.
func (r *request) covered() int {
	n := r.expected.completion
	if r.bounded {
		return n
	}
	for i, l := range r.limits {
		reserved := r.demands[i].Amount
		switch l.measure {
		case completionTokens:
			n = min(n, int(reserved))
		case totalTokens:
			n = min(n, max(int(reserved)-r.expected.prompt, 0))
		case money:
			if each := r.price.completion; each > 0 {
				left := reserved - r.price.dearest().of(llm.Usage{Prompt: r.expected.prompt})
				n = min(n, int(max(left, 0)*1000/each))
			}
		}
	}
	return n
}

// OnResponse counts what goes through.
func (f *Filter) OnResponse(x *filter.Exchange, u *filter.Unit) filter.Verdict {
	r, ok := x.State().(*request)
	if !ok || r.state != taken {
		return filter.Next
	}
	for i := range u.Pieces {
		if n := len(u.Pieces[i].Text) - u.Pieces[i].Seen; n > 0 {
			r.grown.seen += max(1, n/f.estimate.bytesPerToken)
		}
	}
	if r.grown.over || r.grown.seen <= r.grown.covered {
		return filter.Next
	}
	r.asked = 0
	return f.grow(x, r)
}

// grow reserves more, or ends the stream.
func (f *Filter) grow(x *filter.Exchange, r *request) filter.Verdict {
	g := &r.grown
	if g.taken == len(g.demands) {
		f.planGrowth(r, max(g.covered+r.step(), g.seen))
	}
	more := g.demands[g.taken:]
	result := f.table.Take(f.now(), more, f.hold)
	if (result.Outcome == account.Refused || result.Outcome == account.TooLarge) && g.next > g.seen {
		_ = f.table.Refund(f.now(), more) // nobody waits for that much any more
		g.demands, g.limits = g.demands[:g.taken], g.limits[:g.taken]
		f.planGrowth(r, g.seen)
		more = g.demands[g.taken:]
		result = f.table.Take(f.now(), more, f.hold)
	}
	switch result.Outcome {
	case account.Admitted:
		g.taken, g.covered = len(g.demands), g.next
		return filter.Next
	case account.Dry:
		if f.mayAsk(r) {
			return f.call(r, more)
		}
		f.metrics.failed(contended)
		return filter.Next
	case account.Unreachable, account.Failed:
		f.metrics.failed(f.cause(result.Outcome))
		return filter.Next
	}
	_ = f.table.Refund(f.now(), more) // nobody waits any more
	f.metrics.ended.Record(1, filter.Values{x.Tenant.Product})
	if f.shadow {
		g.over = true
		return filter.Next
	}
	l := g.limits[g.taken+result.At]
	x.Explain("limit", string(l.prefix))
	return filter.Deny(filter.Refusal{
		Refusal:    llm.Refusal{Status: 429, Type: l.kind(), Code: "rate_limit_exceeded", Message: "You have reached your " + l.words() + " while this response was made."},
		Reason:     l.reason(),
		RetryAfter: max(result.Wait, time.Second),
		Headers:    [][2]string{noStore},
	})
}

// step is how many tokens are reserved at a time.
func (r *request) step() int {
	step := max(leastStep, r.grown.seen/4)
	for _, l := range r.limits {
		if l.measure == completionTokens || l.measure == totalTokens {
			step = min(step, int(max(l.amount/16, 1)))
		}
	}
	return step
}

// planGrowth says what more is wanted of which limits, for so many tokens of the answer.
func (f *Filter) planGrowth(r *request, next int) {
	g := &r.grown
	g.next = next
	more := g.next - g.covered
	for i, l := range r.limits {
		n := int64(more)
		switch l.measure {
		case completionTokens, totalTokens:
		case money:
			n = r.price.of(llm.Usage{Completion: more})
		default:
			continue
		}
		d := r.demands[i]
		g.demands = append(g.demands, account.Demand{
			Key: d.Key, Name: d.Name, Limit: d.Limit, Window: d.Window, Amount: n, Shared: d.Shared, Open: d.Open,
		})
		g.limits = append(g.limits, l)
	}
}

// reserved is what is reserved of the account of a demand.
func (r *request) reserved(demand int) int64 {
	d := &r.demands[demand]
	n := d.Amount
	for i := range r.grown.demands[:r.grown.taken] {
		if more := &r.grown.demands[i]; more.Key == d.Key {
			n += more.Amount
		}
	}
	return n
}

// settleGrown gives back what was reserved later: the first reservation is settled with all that was used.
func (f *Filter) settleGrown(r *request) {
	if g := &r.grown; len(g.demands) > 0 {
		f.write(func() error { return f.table.Refund(f.now(), g.demands) })
	}
}
