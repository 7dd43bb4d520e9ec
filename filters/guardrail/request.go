package guardrail

import (
	"cmp"
	"slices"
	"sort"

	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

const (
	promptBlocked = "Your request was rejected by the content policy of this gateway."
	signedBlocked = "Your request was rejected by the content policy of this gateway: earlier reasoning has content that must be redacted, and is signed. " +
		"Remove that block from the conversation."
)

// screenPrompt screens the prompt.
func (f *Filter) screenPrompt(x *filter.Exchange, s *state) filter.Verdict {
	on, r := s.plan.request, x.Request
	s.large = len(r.Prompt) > kept
	actions := s.actionsNow(on)
	if v := unscreened(r); v != filter.Next {
		if actions.has(block) || actions.has(redact) {
			return v
		}
		x.Explain("guardrail", "unscreened")
		s.audits[0].less(partial)
	}
	if r.Unread {
		s.audits[0].less(partial)
	}
	if r.Earlier {
		if s.refusesStored(on) {
			return refuse(400, "conversation_stored", "What is stored on the server cannot be screened. Send all of the conversation, without references to it.")
		}
		s.audits[0].less(partial) // what the server has of the conversation is not here
	}
	if on.choosy || s.plan.calls() {
		s.answered = lastAnswered(r.Strings)
	}
	if on.detector == nil {
		return filter.Next
	}
	if actions.has(block) || actions.has(report) {
		if v := f.findInPrompt(x, s); v != filter.Next {
			return v
		}
	}
	if actions.has(redact) {
		return f.redactPrompt(x, s)
	}
	return filter.Next
}

// refusesStored reports whether a policy that holds wants all of a conversation.
func (s *state) refusesStored(on *side) bool {
	return slices.ContainsFunc(on.policies, func(p *policy) bool { return p.whole && s.active&p.bit != 0 })
}

// findInPrompt looks at all strings together, and at the parts of messages joined.
func (f *Filter) findInPrompt(x *filter.Exchange, s *state) filter.Verdict {
	on, r := s.plan.request, x.Request
	if on.choosy {
		return f.findByString(x, s)
	}
	for _, text := range [...][]byte{r.Prompt, r.Joined} {
		s.hits = s.hits[:0]
		on.detector.Scan(&s.scanner, nil, text, true)
		s.take(on)
		if h := f.note(x, s, on, s.hits); h != nil {
			return h.rule.policy.refuse(promptBlocked)
		}
	}
	return filter.Next
}

// findByString is findInPrompt where it matters who speaks. What is found in all strings together is a finding in each that it touches.
// It may hide one that some policy is for, behind which it begins, so what neighbours say that the same policies are for is looked at
// by itself too.
func (f *Filter) findByString(x *filter.Exchange, s *state) filter.Verdict {
	on, r := s.plan.request, x.Request
	s.hits = s.hits[:0]
	on.detector.Scan(&s.scanner, nil, r.Prompt, true)
	for _, found := range s.scanner.Found() {
		for i := max(0, stringAt(r.Strings, found.From)); i < len(r.Strings) && r.Strings[i].From < found.To; i++ {
			s.speaks(&r.Strings[i])
			if rule := s.of(on, found); rule != nil {
				s.hits = append(s.hits, hit{Finding: found, rule: rule})
			}
		}
	}
	for i := 0; i < len(r.Strings); {
		first, scope, end := i, s.scopeOf(on, &r.Strings[i]), len(r.Prompt)
		for i++; i < len(r.Strings) && s.scopeOf(on, &r.Strings[i]) == scope; i++ {
		}
		if i < len(r.Strings) {
			end = r.Strings[i].From
		} else if first == 0 {
			break // that was looked at
		}
		if scope != 0 {
			s.speaks(&r.Strings[first])
			on.detector.Scan(&s.scanner, nil, r.Prompt[r.Strings[first].From:end], true)
			s.take(on)
		}
	}
	s.findJoined(on, r)
	if h := f.note(x, s, on, s.hits); h != nil {
		return h.rule.policy.refuse(promptBlocked)
	}
	return filter.Next
}

// scopeOf returns the policies that hold for a string.
func (s *state) scopeOf(on *side, str *llm.String) (all uint64) {
	for _, p := range on.policies {
		if s.active&p.bit != 0 && s.concerns(p, 1<<str.Role, str.Turn) {
			all |= p.bit
		}
	}
	return all
}

// stringAt returns the index of the string in which, or behind which, a byte of the prompt stands; -1 if there is none.
func stringAt(all []llm.String, at int) int {
	return sort.Search(len(all), func(i int) bool { return all[i].From > at }) - 1
}

// speaks notes whose text is looked at.
func (s *state) speaks(str *llm.String) { s.who, s.turn = 1<<str.Role, str.Turn }

// lastAnswered returns the last turn in which the model spoke and after which the user did. What comes after it is the latest turn:
// what the user says, calls and their results, and the beginning of an answer that the model is to go on with.
func lastAnswered(all []llm.String) (answered int) {
	spoke := 0
	for i := range all {
		switch s := &all[i]; {
		case s.Turn == 0:
		case s.Role == llm.AssistantRole || s.Role == llm.CallRole:
			spoke = s.Turn
		case s.Role == llm.UserRole && s.Turn > spoke:
			answered = spoke
		}
	}
	return answered
}

// unscreened refuses a prompt of which not all can be read: text that was not read was not screened, and must not pass as
// screened.
func unscreened(r *llm.Request) filter.Verdict {
	switch {
	case r.Template:
		return refuse(400, "template_not_allowed", "A request with its own chat template cannot be screened. Remove chat_template from the request.")
	case r.PromptCut:
		return refuse(413, "prompt_too_large", "The prompt is too long to be screened. Please reduce its length.")
	case r.PromptTokens > 0 || r.PromptEmbeds:
		return refuse(400, "prompt_not_text", "Token IDs and embeddings cannot be screened. Send the prompt as text.")
	}
	return filter.Next
}

func refuse(status int, code, message string) filter.Verdict {
	return filter.Deny(refusal(status, code, message))
}

// redactPrompt puts labels in the place of findings, in the body: every other byte stays.
func (f *Filter) redactPrompt(x *filter.Exchange, s *state) filter.Verdict {
	on, r := s.plan.request, x.Request
	s.hits = s.hits[:0]
	for i := range r.Strings {
		str := &r.Strings[i]
		first := len(s.hits)
		s.speaks(str)
		s.findInString(on, r.Prompt[str.From:str.To], str.Role)
		for k := first; k < len(s.hits); k++ {
			h := &s.hits[k]
			h.From, h.To = h.From+str.From, h.To+str.From
			if str.Signed && h.rule.action == redact {
				f.note(x, s, on, s.hits[k:k+1])
				return h.rule.policy.refuse(signedBlocked)
			}
		}
	}
	s.findJoined(on, r)
	if h := f.note(x, s, on, s.hits); h != nil {
		return h.rule.policy.refuse(promptBlocked)
	}
	s.hits = slices.DeleteFunc(s.hits, func(h hit) bool { return h.rule.action != redact })
	slices.SortFunc(s.hits, func(a, b hit) int { return cmp.Or(a.From-b.From, b.To-a.To) })
	for i := 0; i < len(s.hits); {
		h := s.hits[i]
		for i++; i < len(s.hits) && s.hits[i].From < h.To; i++ {
			h.To = max(h.To, s.hits[i].To)
		}
		label := labels[h.Kind]
		if h.rest {
			label = nil
		}
		s.replaceInPrompt(x, h.From, h.To, label)
	}
	return filter.Next
}

// findInString adds what is found in a string to the hits. Of what a tool is called with, if that is JSON, only the strings can be edited;
// in any other text all of it, and what is written with escapes in it is found too.
func (s *state) findInString(on *side, text []byte, role llm.Role) {
	if role != llm.CallRole {
		on.detector.Scan(&s.scanner, nil, text, true)
		s.take(on)
		if !s.isJSON(text) {
			return
		}
	}
	s.find(on, text, nil, 0)
}

// replaceInPrompt puts a label in the place of a part of the prompt, for services too if they are to judge it.
func (s *state) replaceInPrompt(x *filter.Exchange, from, to int, label []byte) {
	r := x.Request
	if !s.plan.calls() {
		x.ReplaceInBody(r.Source(from, to), label)
		return
	}
	se := &s.sessions[0]
	se.ofPrompt(r)
	i := stringAt(r.Strings, from)
	at := r.Strings[i].From
	t := &se.texts[i]
	t.edits = append(t.edits, edit{from - at, to - at, string(label)})
	t.now = applied(nil, t.body, t.edits)
}

// labels are what stands in the place of findings.
var labels = func() (all [detect.Pattern + 1][]byte) {
	for k := range all {
		all[k] = []byte(detect.Kind(k).Label())
	}
	return all
}()

// findJoined finds what is split over the parts of one message, which some servers join without anything between them. Each part
// that has some of it gets a hit of its own.
func (s *state) findJoined(on *side, r *llm.Request) {
	for i := 0; i < len(r.Strings); {
		id, first := r.Strings[i].Parts, i
		s.joined = s.joined[:0]
		s.who, s.turn = 0, r.Strings[i].Turn
		for ; i < len(r.Strings) && (r.Strings[i].Parts == id || r.Strings[i].Parts == 0 && id != 0); i++ {
			if str := &r.Strings[i]; str.Parts != 0 {
				s.joined = append(s.joined, r.Prompt[str.From:str.To]...)
				s.who |= 1 << str.Role
			}
		}
		if id == 0 || i-first < 2 {
			continue
		}
		begin := len(s.hits)
		on.detector.Scan(&s.scanner, nil, s.joined, true)
		s.take(on)
		s.divide(r.Strings[first:i], begin)
	}
}

// divide turns hits in joined texts into hits in those texts.
func (s *state) divide(all []llm.String, begin int) {
	end := len(s.hits)
	for i := begin; i < end; i++ {
		h := s.hits[i]
		at := 0
		for k := range all {
			str := &all[k]
			if str.Parts == 0 {
				continue
			}
			n := str.To - str.From
			if from, to := max(h.From, at), min(h.To, at+n); from < to {
				part := h
				part.From, part.To = str.From+from-at, str.From+to-at
				part.rest = from > h.From && to-from < n // a part may not become empty: Anthropic refuses those
				s.hits = append(s.hits, part)
			}
			at += n
		}
	}
	s.hits = slices.Delete(s.hits, begin, end)
}
