package guardrail

import (
	"slices"
	"unicode/utf8"

	"github.com/inlet-proxy/inlet/filters/guardrail/valid"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

const responseInvalid = "The response was rejected by this gateway: it does not have the form that is required."

// validation is what the text of responses must be, for one policy.
type validation struct {
	rule
	rules *valid.Rules
}

// invalidKinds are kinds of findings, by what is wrong.
var invalidKinds = [...]string{valid.Size: "invalid_size", valid.Syntax: "invalid_json", valid.Member: "invalid_required", valid.Shape: "invalid_schema"}

// readValidate reads what the text of responses must be.
func (p *source) readValidate(o *conf.Object) {
	r := &valid.Rules{}
	most := int64(1 << 20)
	o.Bool("json", &r.JSON)
	o.Strings("required", &r.Required, conf.NotEmpty)
	notEmpty(o, "required", len(r.Required))
	var schema string
	if o.String("schema", &schema, conf.NotEmpty) && schema != "" {
		var err error
		if r.Schema, err = valid.Compile([]byte(schema)); err != nil {
			o.Errorf("schema", "%s", err)
		}
	}
	o.Size("maxBytes", &most, 1, 64<<20)
	r.MaxBytes = int(most)
	if !r.NeedJSON() && !o.Has("maxBytes") && !o.Has("required") && !o.Has("schema") {
		o.Errorf("", "validates nothing: needs json, required, schema or maxBytes")
	}
	p.valid = r
}

// checkValidated refuses what cannot be done with providers that validate.
func (p *policy) checkValidated(o *conf.Object) {
	for _, used := range p.use {
		switch {
		case used.valid == nil:
		case p.action == redact:
			o.Errorf("action", "provider %q validates whole texts, of which nothing can be redacted (want block or report)", used.name)
		case p.request:
			o.Errorf("on", "provider %q validates responses (want response)", used.name)
		}
	}
}

// mostValidations is how many there may be of one model: sets of them are bits.
const mostValidations = 64

// fewValidations refuses more than there may be.
func fewValidations(o *conf.Object, policies []*policy) bool {
	n := 0
	for _, p := range policies {
		for _, used := range p.use {
			if used.valid != nil {
				n++
			}
		}
	}
	if n > mostValidations {
		o.Errorf("policies", "use providers that validate %d times (want %d or less)", n, mostValidations)
	}
	return n <= mostValidations
}

// whole is a text of the response that comes in pieces, as the model has written it.
type whole struct {
	llm.Channel
	text []byte
}

// validate judges texts that are complete, and holds back those that are not: all of them if they may be blocked, else the last
// character, so that it is seen where the text ends.
func (f *Filter) validate(x *filter.Exchange, s *state, u *filter.Unit) filter.Verdict {
	if s.openValidations() == 0 {
		return filter.Next
	}
	for i := range u.Pieces {
		p := &u.Pieces[i]
		if p.Kind != llm.AnswerText || p.JSON {
			continue
		}
		if v := f.validatePiece(x, s, u, p); v != filter.Next {
			return v
		}
	}
	return filter.Next
}

func (f *Filter) validatePiece(x *filter.Exchange, s *state, u *filter.Unit, p *filter.Piece) filter.Verdict {
	if p.Whole && p.Seen > 0 {
		return filter.Next // it was judged before anything was redacted in it
	}
	if p.Whole || !u.Stream {
		return f.validateText(x, s, p.Text, true)
	}
	w := s.wholeOf(p)
	w.text = append(w.text, p.Text[p.Seen:]...)
	s.large = s.large || len(w.text) > kept
	v := f.validateText(x, s, w.text, p.Last)
	if p.Last {
		w.text = w.text[:0]
		return v
	}
	p.Keep = max(p.Keep, s.holdBack(p.Text))
	return v
}

// openValidations is the set of validations that hold and have not failed.
func (s *state) openValidations() (open uint64) {
	for i := range s.plan.response.validations {
		if s.active&s.plan.response.validations[i].policy.bit != 0 {
			open |= 1 << i
		}
	}
	return open &^ s.invalid
}

// holdBack is how much of a text waits that has not ended.
func (s *state) holdBack(text []byte) int {
	open := s.openValidations()
	for i := range s.plan.response.validations {
		if open>>i&1 == 1 && s.plan.response.validations[i].action == block {
			return len(text)
		}
	}
	_, n := utf8.DecodeLastRune(text)
	return n
}

// wholeOf returns what has come of the text of a piece.
func (s *state) wholeOf(p *filter.Piece) *whole {
	i := slices.IndexFunc(s.wholes, func(w whole) bool { return w.Channel == p.Channel })
	if i < 0 {
		i = slices.IndexFunc(s.wholes, func(w whole) bool { return len(w.text) == 0 }) // one that is over
	}
	if i < 0 {
		s.wholes = append(s.wholes, whole{})
		i = len(s.wholes) - 1
	}
	w := &s.wholes[i]
	w.Channel = p.Channel
	if p.Seen == 0 {
		w.text = w.text[:0]
	}
	return w
}

// validateText judges a text, of which more may come.
func (f *Filter) validateText(x *filter.Exchange, s *state, text []byte, all bool) filter.Verdict {
	if len(text) == 0 {
		return filter.Next // such as that beside a call
	}
	open := s.openValidations()
	for i := range s.plan.response.validations {
		r := &s.plan.response.validations[i]
		if open>>i&1 == 0 {
			continue
		}
		wrong := valid.Nothing
		switch {
		case all:
			wrong = r.rules.Check(&s.document, text)
		case r.rules.Long(len(text)):
			wrong = valid.Size
		}
		if wrong == valid.Nothing {
			continue
		}
		s.invalid |= 1 << i
		f.metrics.findings.Record(1, filter.Values{"response", invalidKinds[wrong], actionNames[r.action]})
		x.Explain("guardrail", r.provider+"/"+invalidKinds[wrong]+"/"+actionNames[r.action])
		if r.action == block {
			return r.policy.refuse(responseInvalid)
		}
	}
	return filter.Next
}
