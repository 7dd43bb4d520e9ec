package llm

import (
	"github.com/inlet-proxy/inlet/shared/reading/formscan"
	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// keepPrompt is the size up to which a scanner keeps the buffer of one prompt for the next.
const keepPrompt = 2 << 20

// RequestScanner reads the facts of one request from its body, in chunks. The zero value is ready after Reset, and a
// scanner that is used again allocates nothing once it has seen the models and the prompt sizes that it gets.
type RequestScanner struct {
	json   jsonscan.Scanner
	form   formscan.Scanner
	reader requestReader
	prefix prefixer
	fields formReader
}

// Reset makes the scanner ready for the JSON body of a request to api. It invalidates the last Request.
func (r *RequestScanner) Reset(api API, want Want, lim jsonscan.Limits) {
	r.reset(api, want)
	r.json.Reset(&r.reader, lim)
}

// ResetForm makes the scanner ready for a form with this boundary, see [formscan.Boundary]. Of the limits, Members bounds
// the parts.
func (r *RequestScanner) ResetForm(api API, want Want, lim jsonscan.Limits, boundary string) {
	r.reset(api, want)
	r.reader.facts.Form = true
	r.fields.requestReader, r.fields.form = &r.reader, &r.form
	r.form.Reset(&r.fields, boundary, lim.Members)
}

func (r *RequestScanner) reset(api API, want Want) {
	want.Fields = want.Fields[:min(len(want.Fields), allFields)]
	reader := &r.reader
	facts, fields, model, models, name := &reader.facts, reader.facts.fields, reader.model, reader.models, reader.name
	prompt, joined := reuse(facts.Prompt), reuse(facts.Joined)
	strings, sources := facts.Strings[:0], reuseSources(facts.sources)
	*reader = requestReader{} // at once, and then what is not zero: the reader is large
	reader.json, reader.members, reader.want = &r.json, members[min(int(api), len(members)-1)], want
	reader.field, reader.model, reader.models, reader.name = noField, model[:0], models, name[:0]
	facts.API, facts.ModelSpan, facts.Prompt, facts.Joined, facts.names = api, absent, prompt, joined, want.Fields
	facts.Strings, facts.sources = strings, sources
	for i := range want.Fields {
		facts.fields[i].Value = fields[i].Value[:0]
	}
	if want.PrefixBlocks > 0 && int(api) < len(hasPrefixes) && hasPrefixes[api] {
		r.prefix.reset(want.PrefixBlocks)
		r.reader.prefix = &r.prefix
	}
}

// reuse returns the buffer of a prompt for the next one, unless it is huge.
func reuse(buffer []byte) []byte {
	if cap(buffer) > keepPrompt {
		return nil
	}
	return buffer[:0]
}

// Feed reads the next bytes of the body. It returns nil, a *jsonscan.Error or a *formscan.Error, and the same error ever
// after.
func (r *RequestScanner) Feed(chunk []byte) error {
	if r.reader.facts.Form {
		return r.form.Feed(chunk)
	}
	if r.reader.err != nil {
		return r.reader.err
	}
	if err := r.json.Feed(chunk); err != nil && r.reader.err == nil {
		return err
	}
	return r.reader.failure()
}

// End says that the body is complete. It returns nil or an error as Feed does.
func (r *RequestScanner) End() error {
	if facts := &r.reader.facts; facts.PromptCut {
		facts.Joined = facts.Joined[:0]
	}
	if r.reader.facts.Form {
		return r.form.End()
	}
	if r.reader.err != nil {
		return r.reader.err
	}
	if r.reader.prefix != nil {
		r.reader.facts.Prefix = r.prefix.finish()
	}
	return r.json.End()
}

// Within returns the top-level member in whose value the scanner is: after an error the one that is at fault. It is "" in no
// member's value, and cut if the name is long.
func (r *RequestScanner) Within() string {
	if r.reader.err != nil {
		return memberNames[memberModel] // it is too long; the document may be sound
	}
	if r.reader.facts.Form || r.json.Depth() > 1 || r.json.InValue() {
		return string(r.reader.name)
	}
	return ""
}

// Decided reports whether the model and all of Want.Fields have been read. Nothing that follows changes them, but a member
// that stands twice: see Request.Repeated.
func (r *RequestScanner) Decided() bool {
	facts := &r.reader.facts
	if !facts.ModelIsString || r.reader.field != noField {
		return false // a field's value is complete when the next member begins
	}
	for i := range facts.names {
		if facts.fields[i].Kind == FieldAbsent {
			return false
		}
	}
	return true
}

// Request returns the facts read so far: all of them after End returned nil.
func (r *RequestScanner) Request() *Request { return &r.reader.facts }
