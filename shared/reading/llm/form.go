package llm

import (
	"unicode/utf8"

	"github.com/inlet-proxy/inlet/shared/reading/formscan"
)

// maxFormText bounds the text fields of a form that are read. A transcription's prompt has some hundred tokens.
const maxFormText = 64 << 10

// formReader takes the parts of a form. Text fields that are read are short and collected whole; files and other fields pass.
type formReader struct {
	*requestReader
	form    *formscan.Scanner
	content []byte // of the current field
	file    bool   // the current field is a file
}

// Part begins a field.
func (r *formReader) Part(name []byte, file bool) {
	r.enter(name)
	if r.member >= memberTokens && !r.want.Prompt {
		r.member = memberOther // what these say is for screening only
	}
	r.content, r.file = r.content[:0], file
	if file && r.field != noField {
		r.facts.fields[r.field].Kind = FieldOther
	}
}

// reads reports whether the content of the field is looked at. A file in place of a text is not.
func (r *formReader) reads() bool { return !r.file && (r.member != memberOther || r.field != noField) }

// Data collects the field.
func (r *formReader) Data(piece []byte) {
	if !r.reads() {
		return
	}
	limit := maxFormText
	if r.member == memberModel {
		limit = MaxModelBytes
	}
	if len(r.content)+len(piece) > limit {
		r.form.Fail(formscan.ContentTooLong)
		return
	}
	r.content = append(r.content, piece...)
}

// PartEnd reads the field.
func (r *formReader) PartEnd() {
	if !r.reads() {
		return
	}
	if !utf8.Valid(r.content) {
		r.form.Fail(formscan.ContentEncoding)
		return
	}
	if r.field != noField {
		r.keepField(r.content)
	}
	switch {
	case r.member == memberModel:
		r.facts.ModelIsString = true
		r.facts.Model = r.models.string(r.content)
		r.facts.ModelSpan = Span{r.form.Start(), r.form.Offset()}
	case settings.has(r.member):
		r.setting.add(r.content)
		r.set(r.setting.take(), true)
	case prompts.has(r.member):
		r.prompt.key = keyText
		if len(r.content) > 0 {
			r.piece = piece{from: r.form.Start(), to: r.form.Offset()}
			r.addText(r.content)
			r.text = false
		}
	}
}
