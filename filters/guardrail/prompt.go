package guardrail

import (
	"cmp"
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// ofPrompt makes the texts of a session the strings of a prompt.
func (se *session) ofPrompt(r *llm.Request) {
	if len(se.texts) > 0 {
		return
	}
	for i := range r.Strings {
		str := &r.Strings[i]
		body := r.Prompt[str.From:str.To:str.To]
		se.texts = append(se.texts, text{
			body: body, now: body, role: str.Role, turn: str.Turn, parts: str.Parts, json: true, call: str.Role == llm.CallRole, signed: str.Signed,
		})
	}
}

// askOfPrompt has services judge the prompt, as it is after what was found here.
func (f *Filter) askOfPrompt(x *filter.Exchange, s *state, request bool) filter.Verdict {
	se := &s.sessions[0]
	se.ofPrompt(x.Request)
	for i := range s.sessions {
		s.sessions[i].model, s.sessions[i].tenant = modelOf(x), tenant{x.Tenant.Name, x.Tenant.Product}
	}
	if request {
		s.enlist(se, s.plan.request)
	}
	if v := f.proceed(x, s, se, false); v != filter.Next {
		return v
	}
	return f.finishPrompt(x, s, false)
}

// finishPrompt makes the edits and goes on to the checks beside the model call, or is the end of those.
func (f *Filter) finishPrompt(x *filter.Exchange, s *state, beside bool) filter.Verdict {
	se := &s.sessions[0]
	if !beside {
		se.putIntoBody(x)
		s.keepPrompt(x.Request)
		if v := f.proceed(x, s, se, true); v != filter.Next {
			return v
		}
	}
	s.audits[0].screened()
	s.tell(x)
	return filter.Next
}

// putIntoBody makes the edits of the texts in the request's body.
func (se *session) putIntoBody(x *filter.Exchange) {
	r := x.Request
	var all []filter.BodyEdit
	for i := range se.texts {
		t, at := &se.texts[i], r.Strings[i].From
		for _, e := range t.edits {
			e = atLeastOne(t.body, e)
			if !r.Form {
				e.with = escaped(e.with)
			}
			all = append(all, filter.BodyEdit{Span: r.Source(at+e.from, at+e.to), With: []byte(e.with)})
		}
	}
	slices.SortFunc(all, func(a, b filter.BodyEdit) int { return cmp.Compare(a.Span.Start, b.Span.Start) })
	for i := 0; i < len(all); {
		e := all[i]
		for i++; i < len(all) && all[i].Span.Start < e.Span.End; i++ { // parts of one escape
			e.Span.End = max(e.Span.End, all[i].Span.End)
			e.With = append(e.With, all[i].With...)
		}
		x.ReplaceInBody(e.Span, e.With)
	}
}

// promptKept is how much of a prompt is told to services that judge the response.
const promptKept = 4 << 10

// keepPrompt keeps what the user has said last, for services that judge the response.
func (s *state) keepPrompt(r *llm.Request) {
	if s.plan.response == nil || !s.plan.response.calls {
		return
	}
	answered := lastAnswered(r.Strings)
	se := &s.sessions[1]
	for i := range s.sessions[0].texts {
		t := &s.sessions[0].texts[i]
		if t.role != llm.UserRole || t.turn > 0 && t.turn <= answered {
			continue
		}
		if len(se.prompt) > 0 {
			se.prompt = append(se.prompt, '\n')
		}
		se.prompt = append(se.prompt, t.now...)
	}
	if len(se.prompt) > promptKept {
		se.prompt = lastOf(se.prompt, promptKept)
	}
}
