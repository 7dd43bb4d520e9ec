package guardrail

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// mostCalls bounds how often a service is asked for one prompt or one unit of a response.
const mostCalls = 64

// proceed asks what is to be asked now, of the checks beside the model call or of the others. Nothing is pending when all are done.
func (f *Filter) proceed(x *filter.Exchange, s *state, se *session, beside bool) filter.Verdict {
	var calls []filter.Call
	for i := range se.checks {
		c := &se.checks[i]
		if c.beside != beside || c.done {
			continue
		}
		if v := f.pursue(x, s, se, i, &calls); v != filter.Next {
			return v
		}
		if next := i + 1; !c.done && !beside && (!c.policy.parallel || next < len(se.checks) && se.checks[next].policy != c.policy) {
			break
		}
	}
	switch {
	case len(calls) == 0:
		return filter.Next
	case beside && !se.beside:
		se.beside = true
		return filter.Beside(calls...)
	}
	return filter.Wait(calls...)
}

// pursue asks what is to be asked for one check, and notes if it is done. What is known is not asked.
func (f *Filter) pursue(x *filter.Exchange, s *state, se *session, i int, calls *[]filter.Call) filter.Verdict {
	c := &se.checks[i]
	now := f.deps.Now()
	if c.deadline.IsZero() {
		c.deadline = now.Add(c.by.timeout)
	}
	f.prepare(s, se, c)
	if len(c.pieces) > mostCalls && !c.forgives() {
		return f.tooMuch(x, s, se, c, c.pieces[0].sum)
	}
	open := false
	for k := range c.pieces {
		p := &c.pieces[k]
		if slices.Contains(c.judged, p.sum) {
			continue
		}
		if verdict, ok := c.by.cache.get(p.sum, now); ok { // never a redaction, so the pieces stay
			f.count(se, c, "cached")
			if v := f.judge(x, s, se, c, p, verdict); v != filter.Next {
				return v
			}
			continue
		}
		if !se.asked(i, p.sum) {
			if v := f.ask(x, s, se, i, p, calls); v != filter.Next {
				return v
			}
		}
		open = open || !slices.Contains(c.judged, p.sum)
	}
	c.done = !open
	return filter.Next
}

// ask asks about a piece, if there is room for another call and the breaker lets it.
func (f *Filter) ask(x *filter.Exchange, s *state, se *session, i int, p *piece, calls *[]filter.Call) filter.Verdict {
	c := &se.checks[i]
	if len(se.flights) >= filter.MaxCalls {
		return filter.Next
	}
	if c.calls++; c.calls > mostCalls {
		return f.tooMuch(x, s, se, c, p.sum)
	}
	return f.call(x, s, se, flight{check: i, sum: p.sum, question: s.question(se, c, p)}, calls)
}

// call makes the call of a flight.
func (f *Filter) call(x *filter.Exchange, s *state, se *session, fl flight, calls *[]filter.Call) filter.Verdict {
	c := &se.checks[fl.check]
	now := f.deps.Now()
	left := c.deadline.Sub(now)
	switch {
	case left <= 0:
		return f.fail(x, s, se, c, fl.sum, string(timedOut), 0)
	case slices.Contains(se.down, c.by.cluster):
		return f.fail(x, s, se, c, fl.sum, string(unreachable), 0)
	}
	trial, wait, ok := c.by.breaker.lets(now, left)
	if !ok {
		if se.asking(c.by) {
			return filter.Next // half open, and a question of this very request tries: it is asked after that
		}
		return f.fail(x, s, se, c, fl.sum, "breaker_open", wait)
	}
	fl.tag, fl.began, fl.trial = s.tags, now, trial
	s.tags++
	se.flights = append(se.flights, fl)
	request := c.by.protocol.Ask(&fl.question)
	*calls = append(*calls, filter.Call{
		Cluster: c.by.cluster, Host: c.by.host, Path: request.Path, Body: request.Body, Timeout: left, Tag: fl.tag,
		Headers: append([][2]string{{"content-type", "application/json"}}, request.Headers...),
	})
	return filter.Next
}

// OnReply takes what a service has said.
func (f *Filter) OnReply(x *filter.Exchange, r *filter.Reply) filter.Verdict {
	s := x.State().(*state)
	for i := range s.sessions {
		se := &s.sessions[i]
		if fl, ok := se.take(r.Tag); ok {
			return s.decided(x, i, f.replied(x, s, se, fl, r))
		}
	}
	return filter.Next
}

// replied takes the reply to a flight, and goes on with what is left to be asked.
func (f *Filter) replied(x *filter.Exchange, s *state, se *session, fl flight, r *filter.Reply) filter.Verdict {
	beside := se.checks[fl.check].beside
	if se.response {
		se.refresh(x.Unit())
	}
	if v := f.heard(x, s, se, fl, r); v != filter.Next {
		return v
	}
	v := f.proceed(x, s, se, beside)
	if v != filter.Next || len(se.flights) > 0 || se.pending(beside) {
		return v
	}
	if se.response {
		return f.finishUnit(x, s, x.Unit())
	}
	return f.finishPrompt(x, s, beside)
}

// heard judges by a reply, or asks again. The verdict is Next if what follows is for proceed to say.
func (f *Filter) heard(x *filter.Exchange, s *state, se *session, fl flight, r *filter.Reply) filter.Verdict {
	c := &se.checks[fl.check]
	now := f.deps.Now()
	f.metrics.took.Record(now.Sub(fl.began).Milliseconds(), filter.Values{c.by.name, phases[se.phase()]})
	verdict, failed := f.read(c, &fl, r, now)
	if failed == nil {
		f.count(se, c, outcome(&fl, &verdict))
		c.by.cache.put(fl.sum, verdict, now)
	} else {
		f.count(se, c, string(failed.Cause))
	}
	if c.done {
		return filter.Next
	}
	if errors.Is(r.Err, filter.ErrNotStarted) {
		se.down = append(se.down, c.by.cluster)
	} else if c.again(&fl, r, failed, now) {
		fl.try++
		var calls []filter.Call
		if v := f.call(x, s, se, fl, &calls); v != filter.Next || len(calls) == 0 {
			return v
		}
		return filter.Wait(calls...)
	}
	f.prepare(s, se, c)
	i := slices.IndexFunc(c.pieces, func(p piece) bool { return p.sum == fl.sum })
	if i < 0 {
		return filter.Next // the text has been edited since, and what it is now is asked about
	}
	if failed == nil || verdict.Redacted {
		if v := f.judge(x, s, se, c, &c.pieces[i], verdict); v != filter.Next {
			return v
		}
	}
	if failed != nil {
		return f.fail(x, s, se, c, fl.sum, strings.Join(append([]string{string(failed.Cause)}, failed.Which...), "/"), 0)
	}
	return filter.Next
}

// Causes of a failed check besides those of package provider.
const (
	timedOut    provider.Cause = "timeout"
	unreachable provider.Cause = "unreachable"
)

// almost is how much before a deadline a call may be given up for it: a worker's clock stands still while it works, and timers are
// rounded.
const almost = 20 * time.Millisecond

// read reads a reply, and tells the breaker. Only what says something of the service counts there, not what may depend on the text:
// a client that finds a text which a service cannot judge must not have the check of all other texts fail.
func (f *Filter) read(c *check, fl *flight, r *filter.Reply, now time.Time) (verdict provider.Verdict, failed *provider.Failed) {
	switch {
	case errors.Is(r.Err, filter.ErrTooLong):
		failed = &provider.Failed{Cause: provider.Unreadable}
	case r.Err != nil && !errors.Is(r.Err, filter.ErrNotStarted) && !now.Add(almost).Before(c.deadline):
		failed = &provider.Failed{Cause: timedOut}
	case r.Err != nil:
		failed = &provider.Failed{Cause: unreachable}
	default:
		var err error
		verdict, err = c.by.protocol.Read(&fl.question, r.Status, r.Body)
		if err != nil && !errors.As(err, &failed) {
			failed = &provider.Failed{Cause: provider.Unreadable}
		}
	}
	if c.again(fl, r, failed, now) {
		return verdict, failed // the breaker learns of the last try: however often one question is repeated, it fails once
	}
	b := c.by.breaker
	switch {
	case failed != nil && (failed.Cause == timedOut || passing(failed)):
		if n := b.failed(now, c.by.failures, c.by.open); n > 0 {
			f.transition(c.by, "open", filter.Error, fmt.Sprintf("circuit breaker open for %s after %d failed checks, failureMode %s applies; last error: %s",
				c.by.open, n, c.by.mode(), said(failed, r)))
		}
	case b.succeeded():
		f.transition(c.by, "closed", filter.Info, "circuit breaker closed: the service answers")
	}
	f.alarm(c.by, failed, r)
	return verdict, failed
}

// transition notes that a breaker has changed.
func (f *Filter) transition(by *remote, state string, level filter.Level, what string) {
	f.metrics.breakers.Record(1, filter.Values{by.name, state})
	f.deps.Log(level, fmt.Sprintf("guardrail: provider %q: %s", by.name, what))
}

// alarm logs, once until the service answers, what stays wrong until somebody does something.
func (f *Filter) alarm(by *remote, failed *provider.Failed, r *filter.Reply) {
	missing := errors.Is(r.Err, filter.ErrNoCluster)
	lasting := missing || failed != nil && failed.Lasting
	if failed != nil && !lasting || !by.breaker.alarm(lasting) {
		return
	}
	what := fmt.Sprintf("rejects Inlet's requests (%s): check its credentials and configuration; failureMode %s applies until then", said(failed, r), by.mode())
	if missing {
		what = fmt.Sprintf("cannot be called: %v; failureMode %s applies until there is", r.Err, by.mode())
	}
	f.deps.Log(filter.Error, fmt.Sprintf("guardrail: provider %q %s", by.name, what))
}

// said is a failure in the words of a log. It has none of the text.
func said(failed *provider.Failed, r *filter.Reply) string {
	if r.Err != nil {
		return r.Err.Error()
	}
	return strings.TrimPrefix(failed.Error(), "guardrail provider: ")
}

// again reports whether a question is repeated, which is done at once. So a service that says that it gets too many is not asked again,
// and the one question that tries whether a service is well neither.
func (c *check) again(fl *flight, r *filter.Reply, failed *provider.Failed, now time.Time) bool {
	return failed != nil && passing(failed) && failed.Status != 429 && !errors.Is(r.Err, filter.ErrNotStarted) &&
		!c.done && fl.trial == 0 && fl.try < c.by.retries && now.Before(c.deadline)
}

// passing reports whether it is the service that has failed, not the text, so that the same question may be answered another time.
func passing(failed *provider.Failed) bool {
	switch failed.Cause {
	case unreachable:
		return true
	case provider.Status:
		return failed.Status >= 500 || failed.Status == 429
	}
	return false
}

// outcome is what a verdict is called in metrics.
func outcome(fl *flight, v *provider.Verdict) string {
	switch {
	case v.Blocked:
		return "blocked"
	case v.Redacted && v.Text != string(fl.question.Text):
		return "redacted"
	}
	return "clean"
}

func (f *Filter) count(se *session, c *check, outcome string) {
	f.metrics.checks.Record(1, filter.Values{c.by.name, phases[se.phase()], outcome})
}

// phases are the names of phases, by their index in state.
var phases = [...]string{"request", "response"}

// phase is the index of the session's phase.
func (se *session) phase() int {
	if se.response {
		return 1
	}
	return 0
}

// judge does what the verdict on a piece calls for. A piece is done if there is nothing to do.
func (f *Filter) judge(x *filter.Exchange, s *state, se *session, c *check, p *piece, v provider.Verdict) filter.Verdict {
	text := string(c.groups[p.group].text[p.from:p.to])
	if !v.Blocked && !(v.Redacted && v.Text != text) {
		c.judged = append(c.judged, p.sum)
		return filter.Next
	}
	does := c.action
	if v.Blocked && does == redact {
		does = block
	}
	var done placed
	if does == redact {
		if done = s.place(se, &c.groups[p.group], moved(diff(text, v.Text), p.from)); done == inNames {
			does = block // a tool would not know the member under another name
		}
	}
	f.noteVerdict(x, s, se, c, does, v.Why)
	switch does {
	case block:
		return c.policy.refuse(blockedBy(se))
	case report:
		c.judged = append(c.judged, p.sum)
		return filter.Next
	}
	switch {
	case done == inSigned && se.response:
		return c.policy.refuse(responseBlocked)
	case done == inSigned:
		return c.policy.refuse(signedBlocked)
	case done == nowhere:
		c.judged = append(c.judged, p.sum)
		return filter.Next
	}
	se.version++
	at := slices.IndexFunc(c.pieces, func(other piece) bool { return other == *p })
	f.prepare(s, se, c)
	if at < len(c.pieces) {
		if now := &c.pieces[at]; string(c.groups[now.group].text[now.from:now.to]) == v.Text {
			c.judged = append(c.judged, now.sum) // it is what the service has made of it
		}
	}
	return filter.Next
}

func blockedBy(se *session) string {
	if se.response {
		return responseBlocked
	}
	return promptBlocked
}

// noteVerdict counts and explains what a service has found, each once an exchange.
func (f *Filter) noteVerdict(x *filter.Exchange, s *state, se *session, c *check, does action, why []string) {
	if len(why) == 0 {
		why = []string{"other"}
	}
	for _, kind := range why {
		what := c.by.name + "/" + kind + "/" + actionNames[does]
		if key := phases[se.phase()] + what; !slices.Contains(s.told, key) {
			s.told = append(s.told, key)
			f.metrics.findings.Record(1, filter.Values{phases[se.phase()], kind, actionNames[does]})
			x.Explain("guardrail", what)
		}
	}
}

// forgives reports whether a text goes on that could not be judged: the provider's failure mode decides, but a policy that only reports
// stops nothing.
func (c *check) forgives() bool { return c.by.failOpen || c.action == report }

// fail is for a question that has not been answered. If that is forgiven, it is of this text alone: the others are asked about, and judged.
func (f *Filter) fail(x *filter.Exchange, s *state, se *session, c *check, about sum, cause string, wait time.Duration) filter.Verdict {
	if cause == "breaker_open" {
		f.count(se, c, cause)
	}
	c.judged = append(c.judged, about)
	if key := phases[se.phase()] + c.by.name + cause; !slices.Contains(s.told, key) {
		s.told = append(s.told, key)
		x.Explain("guardrail", c.by.name+"/"+cause)
	}
	if !c.forgives() {
		return unavailable(wait)
	}
	state := failOpen
	if cause == tooLong {
		state = partial
	}
	s.audits[se.phase()].less(state)
	s.tell(x)
	return filter.Next
}

// tooLong is the cause of a failed check of a text that would take too many calls.
const tooLong = "too_long"

func (f *Filter) tooMuch(x *filter.Exchange, s *state, se *session, c *check, about sum) filter.Verdict {
	v := f.fail(x, s, se, c, about, tooLong, 0)
	if v != filter.Next && !se.response {
		return filter.Deny(refusal(413, "prompt_too_large", "The prompt is too long to be screened. Please reduce its length."))
	}
	return v
}

func refusal(status int, code, message string) filter.Refusal {
	return filter.Refusal{Refusal: llm.Refusal{Status: status, Type: "invalid_request_error", Code: code, Message: message}}
}
