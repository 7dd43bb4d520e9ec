package quota

import (
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// names of the headers that tell how a limit stands, as the clients of each API read them.
type standingNames struct{ limit, remaining, reset string }

var standings = [2][2]standingNames{
	llm.OpenAIForm: {
		{"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"},
		{"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"},
	},
	llm.AnthropicForm: {
		{"anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"},
		{"anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"},
	},
}

// standing returns the headers that tell how the limits of a request stand: of those that count requests the
// tightest, and of those that count tokens. The one that binds, if there is one, goes before others.
func (f *Filter) standing(x *filter.Exchange, r *request, binds int) []filter.HeaderEdit {
	form := x.API.Form()
	now := f.now()
	edits := make([]filter.HeaderEdit, 0, 6)
	for kind := range standings[form] {
		if s, ok := f.tightest(now, r, kind == 1, binds); ok {
			edits = s.append(edits, standings[form][kind], form, now)
		}
	}
	return edits
}

// stands is how an account stands.
type stands account.Standing

// tightest returns how the account stands that has the least left, of those that count tokens or requests; or the one that
// binds, if it is one of these.
func (f *Filter) tightest(now time.Time, r *request, tokens bool, binds int) (s stands, ok bool) {
	for i, l := range r.limits {
		if tokens && !l.measure.tokens() || !tokens && l.measure != requests {
			continue
		}
		this := stands(f.table.Standing(now, &r.demands[i]))
		if i == binds {
			return this, true
		}
		if !ok || this.tighter(s) {
			s, ok = this, true
		}
	}
	return s, ok
}

func (s stands) tighter(other stands) bool {
	if s.Remaining != other.Remaining {
		return s.Remaining < other.Remaining
	}
	return s.Reset > other.Reset
}

// append adds the headers.
func (s stands) append(edits []filter.HeaderEdit, n standingNames, form llm.Form, now time.Time) []filter.HeaderEdit {
	seconds := (s.Reset + time.Second - 1).Truncate(time.Second)
	reset := seconds.String()
	if form == llm.AnthropicForm {
		reset = now.Add(seconds).UTC().Format(time.RFC3339)
	}
	return append(edits,
		filter.HeaderEdit{Name: n.limit, Value: strconv.FormatInt(s.Limit, 10)},
		filter.HeaderEdit{Name: n.remaining, Value: strconv.FormatInt(s.Remaining, 10)},
		filter.HeaderEdit{Name: n.reset, Value: reset})
}

// OnResponseHeaders says how the limits stand, in place of what the replica or the provider behind
// Inlet says of its own.
func (f *Filter) OnResponseHeaders(x *filter.Exchange) filter.Verdict {
	r, ok := x.State().(*request)
	if !ok || r.state != taken || !f.headers {
		return filter.Next
	}
	for n := 0; ; n++ {
		name, _, ok := x.Response.Headers.Line(n)
		if !ok {
			break
		}
		if strings.HasPrefix(name, "x-ratelimit-") || strings.HasPrefix(name, "anthropic-ratelimit-") {
			x.RemoveResponseHeader(name)
		}
	}
	for _, e := range f.standing(x, r, -1) {
		x.SetResponseHeader(e.Name, e.Value)
	}
	return filter.Next
}
