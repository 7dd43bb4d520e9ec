package guardrail

import (
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// session is what services judge at one time: a prompt, or a unit of a response.
type session struct {
	response bool
	model    string
	tenant   tenant
	prompt   []byte // that a response answers
	texts    []text
	version  int // of the texts: how often they were edited
	checks   []check
	flights  []flight
	down     []string // clusters to which no call can be started now
	beside   bool     // the checks that run beside the model call have begun
}

// check is that one service judges the texts of a session, for one policy.
type check struct {
	by       *remote
	policy   *policy
	action   action
	beside   bool
	deadline time.Time // zero: it has not begun
	version  int       // of the session's texts that groups are made of
	groups   []group
	pieces   []piece
	judged   []sum // questions to which the answer was that there is nothing to do, or for whose failure there is not
	calls    int
	done     bool
}

// flight is a call that is not answered yet.
type flight struct {
	tag      int
	check    int
	sum      sum
	question provider.Question
	try      int
	began    time.Time
	trial    int // its number, if the breaker is half open; 0: it is not
}

func (se *session) reset() {
	clear(se.texts)
	clear(se.checks)
	clear(se.flights)
	*se = session{texts: se.texts[:0], checks: se.checks[:0], flights: se.flights[:0], down: se.down[:0]}
}

// leave is for calls whose answers nobody waits for any more.
func (se *session) leave() {
	for i := range se.flights {
		fl := &se.flights[i]
		se.checks[fl.check].by.breaker.gone(fl.trial)
	}
	se.flights = se.flights[:0]
}

// enlist adds the checks of a side's policies that hold. A service that several policies want to ask the same is asked once, for the
// one with the larger action.
func (s *state) enlist(se *session, on *side) {
	for _, p := range on.policies {
		if s.active&p.bit == 0 {
			continue
		}
		for _, used := range p.use {
			if used.remote != nil {
				se.enlist(p, used.remote)
			}
		}
	}
}

func (se *session) enlist(p *policy, by *remote) {
	beside := p.beside && !se.response
	for i := range se.checks {
		c := &se.checks[i]
		if c.by != by || !se.response && (c.policy.roles != p.roles || c.policy.latest != p.latest) {
			continue
		}
		c.beside = c.beside && beside
		if p.action > c.action {
			c.action, c.policy = p.action, p
		}
		return
	}
	se.checks = append(se.checks, check{by: by, policy: p, action: p.action, beside: beside, version: -1})
}

// pending reports whether there are checks, of those beside or of the others, that are not done.
func (se *session) pending(beside bool) bool {
	return slices.ContainsFunc(se.checks, func(c check) bool { return c.beside == beside && !c.done })
}

// asked reports whether a question of a check is on its way.
func (se *session) asked(check int, s sum) bool {
	return slices.ContainsFunc(se.flights, func(f flight) bool { return f.check == check && f.sum == s })
}

// asking reports whether a question to a service is on its way.
func (se *session) asking(by *remote) bool {
	return slices.ContainsFunc(se.flights, func(f flight) bool { return se.checks[f.check].by == by })
}

// take removes the flight of a tag, and returns it.
func (se *session) take(tag int) (f flight, ok bool) {
	i := slices.IndexFunc(se.flights, func(f flight) bool { return f.tag == tag })
	if i < 0 {
		return f, false
	}
	f = se.flights[i]
	se.flights = slices.Delete(se.flights, i, i+1)
	return f, true
}

// prepare makes the pieces of a check, if the texts have changed since.
func (f *Filter) prepare(s *state, se *session, c *check) {
	if c.version == se.version {
		return
	}
	c.version = se.version
	c.groups = s.gather(se, c)
	c.pieces = split(c.groups, c.by.protocol.Limit())
	for i := range c.pieces {
		q := s.question(se, c, &c.pieces[i])
		c.pieces[i].sum = f.sumOf(c.by.name, se.tenant, &q)
	}
}

// refusal of a check that failed.
func unavailable(wait time.Duration) filter.Verdict {
	r := refusal(503, "guardrail_unavailable", "The content check of this gateway is not available. Please try again later.")
	r.Type, r.RetryAfter = "server_error", wait
	return filter.Deny(r)
}
