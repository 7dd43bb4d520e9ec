package llm

import "github.com/inlet-proxy/inlet/shared/reading/jsonscan"

// requestReader takes the tokens of a body. It is told only of what it does not skip: the top-level members of interest.
type requestReader struct {
	json    *jsonscan.Scanner
	members memberSet
	want    Want
	facts   Request
	err     *jsonscan.Error

	member    member // the top-level member whose value is being read
	name      []byte // ... and its name, cut at maxName
	field     int    // ... and its index in want.Fields, or noField
	seen      memberSet
	seenNamed uint32 // of named, by index
	usageNext bool   // the value that follows is include_usage
	setting   settingText

	model  []byte
	models interner

	text   bool // the string being read has had a piece
	piece  piece
	prompt promptReader
	stored storedReader

	prefix  *prefixer // nil: not wanted
	hashing bool      // the member that is being read is part of the prefix

	maxTokens           int
	maxCompletionTokens int
	n, bestOf           int
}

const (
	noField = -1
	maxName = 64
)

// failure returns the reader's own error as an error, nil if there is none.
func (r *requestReader) failure() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

func (r *requestReader) Open(array bool) {
	switch depth := r.json.Depth(); {
	case depth == 1 && array:
		// Not an object: it has no members. Servers refuse it.
		r.json.Skip()
	case depth == 1:
		r.facts.options.begin = r.json.Start() + 1
	case depth == 2:
		r.usageNext = false
		if r.field != noField {
			r.facts.fields[r.field].Kind = FieldOther
		}
		if r.member == memberStreamOptions {
			r.openOptions(array, depth)
		} else if !prompts.has(r.member) {
			r.json.Skip()
		}
	case r.member == memberStreamOptions:
		r.openOptions(array, depth)
		r.usageNext = false
	}
	if r.inPrompt() {
		r.promptOpen(array)
		if r.hashing {
			r.prefixMark(beginOf, r.json.Depth())
		}
	}
}

func (r *requestReader) Close(array bool) {
	if r.inPrompt() {
		r.promptClose(array)
		if r.hashing {
			r.prefixMark(endOf, r.json.Depth()+1)
		}
	}
}

// inPrompt reports whether the scanner is in a member that holds prompt text.
func (r *requestReader) inPrompt() bool { return prompts.has(r.member) && r.json.Depth() > 0 }

func (r *requestReader) Key(name []byte) {
	switch {
	case r.json.Depth() == 1:
		r.topLevel(name)
	case r.member == memberStreamOptions:
		r.keyOptions(name)
	default:
		r.promptKey(name)
	}
}

// topLevel takes the name of a member of the body.
func (r *requestReader) topLevel(name []byte) {
	if r.enter(name); r.member == memberOther && r.field == noField {
		r.json.Skip()
	}
}

// enter begins the member of a name.
func (r *requestReader) enter(name []byte) {
	r.member = r.members.lookup(name)
	r.hashing = r.prefix != nil && r.prefix.begin(r.member, name)
	if !r.hashing && !r.shown() {
		r.member = memberOther
	}
	r.field = r.wanted(name)
	r.name = append(r.name[:0], name[:min(len(name), maxName)]...)
	if r.field != noField {
		f := &r.facts.fields[r.field]
		if f.Kind != FieldAbsent && r.facts.Repeated == "" {
			r.facts.Repeated = r.want.Fields[r.field]
		}
		f.Kind, f.Value = FieldText, f.Value[:0]
	}
	if r.member == memberOther {
		return
	}
	r.prompt.begin(r.member)
	r.storedKey(name)
	if r.member >= memberTokens {
		if r.member != memberText {
			r.seeNamed(name)
		}
		switch r.member {
		case memberEmbeds:
			r.prompt.key = keyEmbeds
		case memberTemplate:
			r.prompt.key = keyTemplate
		}
		return
	}
	if r.seen.has(r.member) && r.facts.Repeated == "" {
		r.facts.Repeated = memberNames[r.member]
	}
	r.seen |= set(r.member)
	// The last one counts, so what an earlier one said is forgotten.
	switch r.member {
	case memberModel:
		r.facts.HasModel, r.facts.ModelIsString, r.facts.Model, r.facts.ModelSpan = true, false, "", absent
		r.model = r.model[:0]
	case memberStream:
		r.facts.Stream = false
	case memberStreamOptions:
		r.facts.IncludeUsage, r.facts.options.kind = false, optionsOdd
	case memberStreamIncludeUsage:
		r.facts.IncludeUsage = false
	case memberMaxTokens, memberMaxOutputTokens:
		r.setMaxTokens(0, r.maxCompletionTokens)
	case memberMaxCompletionTokens:
		r.setMaxTokens(r.maxTokens, 0)
	case memberN:
		r.setAnswers(0, r.bestOf)
	case memberBestOf:
		r.setAnswers(r.n, 0)
	}
}

// seeNamed takes note of one of them.
func (r *requestReader) seeNamed(name []byte) {
	for i, known := range named {
		if string(name) != known {
			continue
		}
		if r.seenNamed>>i&1 == 1 && r.facts.Repeated == "" {
			r.facts.Repeated = known
		}
		r.seenNamed |= 1 << i
	}
}

// shown reports whether a member is read although it is not part of the prefix.
func (r *requestReader) shown() bool {
	switch r.member {
	case memberTools, memberShape, memberEffort, memberText, memberEarlier:
		return r.want.Prompt
	}
	return true
}

// wanted returns the index of a name in Want.Fields, or noField.
func (r *requestReader) wanted(name []byte) int {
	for i, want := range r.want.Fields {
		if want == string(name) {
			return i
		}
	}
	return noField
}

func (r *requestReader) Text(piece []byte) {
	if r.field != noField && r.json.Depth() == 1 {
		r.keepField(piece)
	}
	switch {
	case r.member == memberModel:
		if len(r.model)+len(piece) > MaxModelBytes {
			if r.err == nil {
				r.err = &jsonscan.Error{Code: jsonscan.StringTooLong, Offset: r.json.Start()}
			}
			return
		}
		r.model = append(r.model, piece...)
	case settings.has(r.member):
		r.setting.add(piece)
	case prompts.has(r.member):
		if r.want.Strings {
			r.piece.locate(r.json)
		}
		r.promptText(piece)
	}
}

// keepField adds a piece of text to the field that is being read.
func (r *requestReader) keepField(piece []byte) {
	f := &r.facts.fields[r.field]
	if f.Kind == FieldTooLong || len(f.Value)+len(piece) > MaxFieldBytes {
		f.Kind, f.Value = FieldTooLong, f.Value[:0]
		return
	}
	f.Value = append(f.Value, piece...)
}

func (r *requestReader) TextEnd() {
	switch {
	case prompts.has(r.member):
		r.promptTextEnd()
	case settings.has(r.member):
		if r.member == memberStreamOptions {
			r.valueOptions(r.json.Offset(), false)
		}
		r.set(r.setting.take(), true)
	}
	if r.member == memberModel && r.err == nil {
		r.facts.ModelIsString = true
		r.facts.Model = r.models.string(r.model)
		r.facts.ModelSpan = Span{r.json.Start(), r.json.Offset()}
	}
}

func (r *requestReader) Scalar(raw []byte) {
	if r.field != noField && r.json.Depth() == 1 {
		r.scalarField(raw)
	}
	switch {
	case settings.has(r.member):
		if r.member == memberStreamOptions {
			r.valueOptions(r.json.Start()+int64(len(raw)), raw[0] == 'n')
		}
		r.set(raw, false)
	case prompts.has(r.member):
		r.promptScalar(raw)
	}
}

func (r *requestReader) scalarField(raw []byte) {
	f := &r.facts.fields[r.field]
	f.Kind = FieldScalar
	if raw[0] == 'n' {
		f.Kind = FieldNull
		return
	}
	r.keepField(raw)
}
