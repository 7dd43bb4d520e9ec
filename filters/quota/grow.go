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

// grown is what was reserved beyond the first reservation. Each part is settled in the window in which it was taken.
type grown struct {
	seen    int // tokens of the answer that went through
	covered int // ... up to which something is reserved
	next    int // ... and up to which it is asked for
	more    int // tokens that are reserved in the demands that were taken
	demands []account.Demand
	used    []int64
	limits  []*limit
	taken   int  // how many of the demands were taken
	over    bool // nothing is reserved any more
}

func (g grown) reset() grown {
	return grown{demands: g.demands[:0], used: g.used[:0], limits: g.limits[:0]}
}

// watch has the stream's texts shown, each as it arrives.
func (f *Filter) watch(x *filter.Exchange, r *request) {
	if x.Request == nil || !x.Request.Stream || !x.API.Completes() {
		return
	}
	for _, l := range r.limits {
		if l.measure.lengthens() {
			r.grown.covered = r.covered()
			x.Screen(filter.Screening{Window: 1})
			return
		}
	}
}

// lengthens reports whether it counts the tokens of answers.
func (m measure) lengthens() bool { return m == completionTokens || m == totalTokens || m == money }

// covered is how many tokens of an answer all limits have a reservation for.
func (r *request) covered() int {
	n := r.expected.completion
	for i, l := range r.limits {
		if l.measure.lengthens() {
			n = min(n, r.covers(i))
		}
	}
	return n
}

// coversMost is the most that a limit has a reservation for.
func (r *request) coversMost() int {
	n, some := 0, false
	for i, l := range r.limits {
		if l.measure.lengthens() {
			n, some = max(n, r.covers(i)), true
		}
	}
	if !some {
		return r.expected.completion
	}
	return n
}

// covers is how many tokens of an answer the reservation of a limit is for.
func (r *request) covers(i int) int {
	n, reserved := r.expected.completion, r.demands[i].Amount
	if !r.bounded {
		switch r.limits[i].measure {
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
	return n + r.grown.more
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
		g.taken, g.covered, g.more = len(g.demands), g.next, g.more+g.next-g.covered
		return filter.Next
	case account.Dry:
		if f.mayAsk(r) {
			return f.call(r, more)
		}
		f.metrics.failed(contended)
		return filter.Next
	case account.Unreachable, account.Busy, account.Full, account.Failed:
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

// settleGrown settles what was reserved later, each part in its own window: what went through before a window began
// takes nothing of it. The first reservation is used first, and what nothing was reserved for counts with the last part.
func (f *Filter) settleGrown(r *request) {
	g := &r.grown
	if len(g.demands) == 0 {
		return
	}
	g.used = append(g.used[:0], make([]int64, len(g.demands))...)
	for i := range r.demands {
		first, last := &r.demands[i], -1
		rest := r.used[i] - first.Amount
		for j := range g.demands[:g.taken] {
			if part := &g.demands[j]; part.Key == first.Key {
				last = j
				g.used[j] = max(min(rest, part.Amount), 0)
				rest -= g.used[j]
			}
		}
		if last >= 0 {
			r.used[i] = min(r.used[i], first.Amount)
			g.used[last] += max(rest, 0)
		}
	}
	f.write(func() error { return f.table.Settle(f.now(), g.demands, g.used) })
}
