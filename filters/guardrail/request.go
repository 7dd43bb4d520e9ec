package guardrail

import (
	"cmp"
	"slices"

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
	if v := unscreened(r); v != filter.Next {
		if on.actions.has(block) || on.actions.has(redact) {
			return v
		}
		x.Explain("guardrail", "unscreened")
	}
	if on.actions.has(block) || on.actions.has(report) {
		for _, text := range [...][]byte{r.Prompt, r.Joined} {
			s.hits = s.hits[:0]
			on.detector.Scan(&s.scanner, nil, text, true)
			s.take(on)
			if h := f.note(x, s, on, s.hits); h != nil {
				return h.rule.policy.refuse(promptBlocked)
			}
		}
	}
	if on.actions.has(redact) {
		return f.redactPrompt(x, s)
	}
	return filter.Next
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
	return filter.Deny(filter.Refusal{Refusal: llm.Refusal{
		Status: status, Type: "invalid_request_error", Code: code, Message: message,
	}})
}

// redactPrompt puts labels in the place of findings, in the body: every other byte stays.
func (f *Filter) redactPrompt(x *filter.Exchange, s *state) filter.Verdict {
	on, r := s.plan.request, x.Request
	s.hits = s.hits[:0]
	for i := range r.Strings {
		str := &r.Strings[i]
		first := len(s.hits)
		s.find(on, r.Prompt[str.From:str.To], nil, 0)
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
		x.ReplaceInBody(r.Source(h.From, h.To), label)
	}
	return filter.Next
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
		for ; i < len(r.Strings) && (r.Strings[i].Parts == id || r.Strings[i].Parts == 0 && id != 0); i++ {
			if str := &r.Strings[i]; str.Parts != 0 {
				s.joined = append(s.joined, r.Prompt[str.From:str.To]...)
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
