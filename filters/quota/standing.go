package quota

import (
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
	t := &r.told
	*t = telling{edits: t.edits[:0], text: t.text[:0]}
	for kind := range standings[form] {
		if s, ok := f.tightest(now, r, kind == 1, binds); ok {
			s.append(t, standings[form][kind], form, now)
		}
	}
	return t.headers()
}

// telling collects headers. All values are parts of one string: that is the only allocation.
type telling struct {
	edits []filter.HeaderEdit
	text  []byte
	ends  [6]int // of the values in text
}

// add takes what was appended to text since the last time for the value of a header.
func (t *telling) add(name string) {
	t.ends[len(t.edits)] = len(t.text)
	t.edits = append(t.edits, filter.HeaderEdit{Name: name})
}

// headers returns what was added. It is good until the next time.
func (t *telling) headers() []filter.HeaderEdit {
	all, at := string(t.text), 0
	for i := range t.edits {
		t.edits[i].Value = all[at:t.ends[i]]
		at = t.ends[i]
	}
	return t.edits
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
			// Others may have given some back since, or hold a grant that they have not used.
			this.Remaining = min(this.Remaining, max(r.demands[i].Amount-1, 0))
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
func (s stands) append(t *telling, n standingNames, form llm.Form, now time.Time) {
	t.text = appendInt(t.text, s.Limit)
	t.add(n.limit)
	t.text = appendInt(t.text, s.Remaining)
	t.add(n.remaining)
	seconds := int64((s.Reset + time.Second - 1) / time.Second)
	if form == llm.AnthropicForm {
		t.text = now.Add(time.Duration(seconds)*time.Second).UTC().AppendFormat(t.text, time.RFC3339)
	} else {
		t.text = appendSeconds(t.text, seconds)
	}
	t.add(n.reset)
}

// appendSeconds appends a time as time.Duration writes it.
func appendSeconds(b []byte, n int64) []byte {
	if n >= 3600 {
		b = append(appendInt(b, n/3600), 'h')
	}
	if n >= 60 {
		b = append(appendInt(b, n/60%60), 'm')
	}
	return append(appendInt(b, n%60), 's')
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
