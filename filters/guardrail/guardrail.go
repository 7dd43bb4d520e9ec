// Package guardrail screens prompts and responses for personal data, secrets and unwanted text, and blocks, redacts or
// reports what it finds. All of it happens here; package detect does the finding.
package guardrail

import (
	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Filter screens requests and responses.
type Filter struct {
	filter.Base
	byModel  map[string]*plan // of the models that policies name
	other    *plan            // of all others
	needs    filter.Needs
	findings filter.Metric
}

// plan is what holds for a model. A side is nil if nothing is screened there.
type plan struct{ request, response *side }

// side is how prompts, or responses, are screened: one detector finds what any policy wants.
type side struct {
	detector *detect.Detector
	kinds    [detect.Denied]rule
	denied   []rule
	patterns []rule
	actions  actions // all that there are
	phase    string
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

// of returns the rule for a finding.
func (s *side) of(f detect.Finding) *rule {
	switch f.Kind {
	case detect.Denied:
		return &s.denied[f.Rule]
	case detect.Pattern:
		return &s.patterns[f.Rule]
	}
	return &s.kinds[f.Kind]
}

// state is the memory of one exchange.
type state struct {
	plan     *plan
	scanner  detect.Scanner
	hits     []hit
	values   [maxNested]*llm.Values
	before   []byte
	joined   []byte
	channels []channel
	large    bool          // a text was, so that the memory is not kept
	noted    [2]detect.Set // kinds that were counted and explained, of the request and of the response
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
	s.plan, s.channels, s.noted = p, s.channels[:0], [2]detect.Set{}
	if p.request != nil {
		if v := f.screenPrompt(x, s); v != filter.Next {
			return v
		}
	}
	if p.response != nil {
		x.Screen(filter.Screening{Window: 1})
	}
	return filter.Next
}

// planOf returns the plan for the model that is asked for, by its public name.
func (f *Filter) planOf(x *filter.Exchange) *plan {
	if len(f.byModel) > 0 {
		model := x.Route.Model
		if model == "" {
			model = x.Request.Model
		}
		if p := f.byModel[model]; p != nil {
			return p
		}
	}
	return f.other
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
		if r := on.of(f); r.action != pass {
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
		f.findings.Record(1, filter.Values{on.phase, h.Kind.String(), actionNames[h.rule.action]})
		x.Explain("guardrail", h.rule.provider+"/"+h.Kind.String()+"/"+actionNames[h.rule.action])
	}
	return blocks
}

// refuse is the end of a request or a response in which something was found that blocks.
func (p *policy) refuse(message string) filter.Verdict {
	if p.message != "" {
		message = p.message
	}
	return filter.Deny(filter.Refusal{
		Refusal:  llm.Refusal{Status: 400, Type: "invalid_request_error", Code: "content_policy_violation", Message: message},
		Filtered: p.filtered,
	})
}
