// Package guardrail screens prompts and responses for personal data, secrets and unwanted text, and blocks, redacts or
// reports what it finds. All of it happens here; package detect does the finding.
package guardrail

import (
	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
	"github.com/inlet-proxy/inlet/filters/guardrail/valid"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Filter screens requests and responses.
type Filter struct {
	filter.Base
	deps     *filter.Deps
	policies []*policy
	byModel  map[string]*plan // of the models that policies name
	other    *plan            // of all others
	needs    filter.Needs
	reads    filter.Facts
	metrics  metrics
	key      [32]byte // of sums
}

// plan is what holds for a model. A side is nil if nothing is screened there.
type plan struct{ request, response *side }

// calls reports whether services are asked about prompts or responses.
func (p *plan) calls() bool {
	return p.request != nil && p.request.calls || p.response != nil && p.response.calls
}

// side is how prompts, or responses, are screened: one detector finds what any policy wants.
type side struct {
	detector *detect.Detector // nil: nothing is looked for here
	policies []*policy
	kinds    [detect.Denied][]rule // the larger action first
	denied   []rule
	patterns []rule
	actions  actions // all that there are
	choosy   bool    // not all policies hold for all requests and all texts
	calls    bool    // policies use services
	phase    string

	validations []validation
}

// rule is what happens on a finding.
type rule struct {
	action   action
	provider string
	policy   *policy
}

// action is what happens on a finding: the largest one where several policies find the same.
type action uint8

const (
	pass action = iota
	report
	redact
	block
)

var actionNames = [...]string{pass: "pass", report: "report", redact: "redact", block: "block"}

// actions is a set of them.
type actions uint8

func (a actions) has(what action) bool { return a>>what&1 == 1 }

// of returns the rule for a finding in a text that is of the speakers and the turn in s, nil if there is none.
func (s *state) of(on *side, f detect.Finding) *rule {
	switch f.Kind {
	case detect.Denied:
		return s.holding(on.denied[f.Rule : f.Rule+1])
	case detect.Pattern:
		return s.holding(on.patterns[f.Rule : f.Rule+1])
	}
	return s.holding(on.kinds[f.Kind])
}

// holding returns the first of some rules that holds, nil if none does.
func (s *state) holding(all []rule) *rule {
	for i := range all {
		if r := &all[i]; s.active&r.policy.bit != 0 && s.concerns(r.policy, s.who, s.turn) {
			return r
		}
	}
	return nil
}

// concerns reports whether a policy is for a text of some speakers in a turn; turn 0 stands outside of the conversation.
func (s *state) concerns(p *policy, who roles, turn int) bool {
	if p.roles != 0 && p.roles&who == 0 {
		return false
	}
	return !p.latest || turn == 0 || turn > s.answered || who.has(llm.SystemRole)
}

// state is the memory of one exchange.
type state struct {
	plan     *plan
	active   uint64 // policies that hold
	scanner  detect.Scanner
	hits     []hit
	values   [maxNested]*llm.Values
	before   []byte
	joined   []byte
	channels []channel
	large    bool // a text was, so that the memory is not kept
	wholes   []whole
	document valid.Document
	invalid  uint64        // validations that have failed
	noted    [2]detect.Set // kinds that were counted and explained, of the request and of the response
	who      roles         // who speaks in the text that is looked at
	turn     int           // ... and in which
	answered int           // the last turn of the model's that the user has answered
	audits   [2]audit      // of the request and of the response

	sessions [2]session // what services judge, of both
	tags     int        // of calls so far
	told     []string   // what services have found, once it was counted and explained
}

// kept is the size of a text up to which an exchange's memory is kept for the next one.
const kept = 1 << 20

// maxNested is how deep JSON within strings of JSON is followed.
const maxNested = 3

// hit is a finding in a text, bytes [from, to) of it.
type hit struct {
	detect.Finding
	rule *rule
	rest bool // of one that begins in the text before, where its label stands
}

// Needs says what the policies need.
func (f *Filter) Needs() filter.Needs { return f.needs }

// OnRequest screens the prompt, and asks for the response if that is to be screened.
func (f *Filter) OnRequest(x *filter.Exchange) filter.Verdict {
	p := f.planOf(x)
	if p.request == nil && p.response == nil {
		return filter.Next
	}
	s, _ := x.State().(*state)
	if s == nil || s.large {
		s = &state{}
	}
	x.SetState(s)
	s.begin(p)
	request, response := s.choose(x, p.request), s.choose(x, p.response)
	if response {
		x.Screen(filter.Screening{Window: p.response.window(s.active)})
	}
	if request {
		s.audits[0] = skipped
		s.tell(x)
		if v := f.screenPrompt(x, s); v != filter.Next {
			return s.decided(x, 0, v)
		}
	}
	if p.calls() {
		return s.decided(x, 0, f.askOfPrompt(x, s, request))
	}
	s.audits[0].screened()
	s.tell(x)
	return filter.Next
}

// begin makes the state ready for a request.
func (s *state) begin(p *plan) {
	s.plan, s.channels, s.noted = p, s.channels[:0], [2]detect.Set{}
	s.active, s.who, s.turn, s.answered, s.tags = 0, 0, 0, 0, 0
	s.invalid = 0
	for i := range s.wholes {
		s.wholes[i].text = s.wholes[i].text[:0]
	}
	s.audits, s.told = [2]audit{}, s.told[:0]
	s.sessions[0].reset()
	s.sessions[1].reset()
}

// choose notes which policies of a side hold for a request, and reports whether any does.
func (s *state) choose(x *filter.Exchange, on *side) bool {
	if on == nil {
		return false
	}
	any := false
	for _, p := range on.policies {
		if s.active&p.bit != 0 || p.holds(x) {
			s.active |= p.bit
			any = true
		}
	}
	return any
}

// window is how much text of a stream is looked at at a time: what the services of the policies that hold want.
func (on *side) window(active uint64) int {
	n := 0
	for _, p := range on.policies {
		if active&p.bit != 0 && p.calls() && (n == 0 || p.window < n) {
			n = p.window
		}
	}
	return max(1, n)
}

// actionsNow are the actions of the policies that hold.
func (s *state) actionsNow(on *side) actions {
	if !on.choosy {
		return on.actions
	}
	var a actions
	for _, p := range on.policies {
		if s.active&p.bit != 0 {
			a |= 1 << p.action
		}
	}
	return a
}

// OnResponseHeaders notes that the response has not been judged.
func (f *Filter) OnResponseHeaders(x *filter.Exchange) filter.Verdict {
	if s, _ := x.State().(*state); s != nil && s.plan != nil && s.plan.response != nil && s.active&s.plan.response.bits() != 0 {
		s.audits[1] = skipped
		s.tell(x)
	}
	return filter.Next
}

// bits is the set of the side's policies.
func (on *side) bits() (all uint64) {
	for _, p := range on.policies {
		all |= p.bit
	}
	return all
}

// OnDone counts what was screened, and lets go of calls that nobody waits for any more.
func (f *Filter) OnDone(x *filter.Exchange, _ filter.End) {
	s, _ := x.State().(*state)
	if s == nil {
		return
	}
	f.recordAudits(s)
	for i := range s.sessions {
		s.sessions[i].leave()
	}
	s.begin(nil) // the state comes back with another request, which may be refused before this filter sees it
}

// planOf returns the plan for the model that is asked for, by its public name.
func (f *Filter) planOf(x *filter.Exchange) *plan {
	if len(f.byModel) > 0 {
		if p := f.byModel[modelOf(x)]; p != nil {
			return p
		}
	}
	return f.other
}

func modelOf(x *filter.Exchange) string {
	if x.Route.Model != "" {
		return x.Route.Model
	}
	return x.Request.Model
}

// find adds what is found in a text to the hits. In JSON that is in the text only the strings are looked at, each with the name of its
// member before it. key is the name of the member that the text is of, if any.
func (s *state) find(on *side, text, key []byte, level int) {
	if level < maxNested {
		if s.values[level] == nil {
			s.values[level] = &llm.Values{}
		}
		if v := s.values[level]; v.Read(text) {
			for _, value := range v.Each {
				first := len(s.hits)
				s.find(on, v.Text[value.From:value.To], value.Key, level+1)
				for i := first; i < len(s.hits); i++ {
					h := &s.hits[i]
					h.From, h.To = v.Source(value.From+h.From, value.From+h.To)
				}
			}
			return
		}
	}
	s.before = s.before[:0]
	if len(key) > 0 {
		s.before = append(append(s.before, key...), ": "...)
	}
	on.detector.Scan(&s.scanner, s.before, text, true)
	s.take(on)
}

// take adds the findings of the last scan to the hits.
func (s *state) take(on *side) {
	for _, f := range s.scanner.Found() {
		if r := s.of(on, f); r != nil {
			s.hits = append(s.hits, hit{Finding: f, rule: r})
		}
	}
}

// note counts and explains the hits, each kind once an exchange, and returns the first that blocks.
func (f *Filter) note(x *filter.Exchange, s *state, on *side, hits []hit) *hit {
	n := &s.noted[0]
	if on == s.plan.response {
		n = &s.noted[1]
	}
	var blocks *hit
	for i := range hits {
		h := &hits[i]
		if h.rule.action == block && blocks == nil {
			blocks = h
		}
		if n.Has(h.Kind) {
			continue
		}
		*n |= detect.Of(h.Kind)
		f.metrics.findings.Record(1, filter.Values{on.phase, h.Kind.String(), actionNames[h.rule.action]})
		x.Explain("guardrail", h.rule.provider+"/"+h.Kind.String()+"/"+actionNames[h.rule.action])
	}
	return blocks
}

// blockedCode is the code of a refusal because of what was found.
const blockedCode = "content_policy_violation"

// decided notes that a phase was judged, if the verdict is that it must not go on because of what was found.
func (s *state) decided(x *filter.Exchange, phase int, v filter.Verdict) filter.Verdict {
	if r := v.Refusal(); r != nil && r.Code == blockedCode {
		s.audits[phase].screened()
		s.tell(x)
	}
	return v
}

// refuse is the end of a request or a response in which something was found that blocks.
func (p *policy) refuse(message string) filter.Verdict {
	if p.message != "" {
		message = p.message
	}
	return filter.Deny(filter.Refusal{
		Refusal:  llm.Refusal{Status: 400, Type: "invalid_request_error", Code: blockedCode, Message: message},
		Filtered: p.filtered,
	})
}
