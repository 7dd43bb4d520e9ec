package llm

// optionsKind is what "stream_options" of a request is.
type optionsKind uint8

const (
	optionsAbsent optionsKind = iota
	optionsOdd                // what servers refuse
	optionsNull               // null
	optionsEmpty              // an object without members
	optionsOther              // an object without include_usage
	optionsTold               // an object with include_usage
)

// streamOptions are the stream_options of a request.
type streamOptions struct {
	kind  optionsKind
	begin int64 // behind the bracket of the body's object
	at    Span  // of what is to be replaced, or a place to insert at
}

var (
	withOptions = []byte(`"stream_options":{"include_usage":true},`)
	asOptions   = []byte(`{"include_usage":true}`)
	aloneUsage  = []byte(`"include_usage":true`)
	moreUsage   = []byte(`"include_usage":true,`)
	trueUsage   = []byte(`true`)
)

// AskUsage returns the edit of the body by which the request asks for the tokens used, when all of the body was read. There is none
// if it asks already, or cannot: only streams of chat and completions do, servers refuse stream_options elsewhere. Nor is there one if its
// stream_options are none, which is the server's to refuse.
func (r *Request) AskUsage() (span Span, with []byte, ok bool) {
	if !r.Stream || r.IncludeUsage || r.API != Chat && r.API != Completions {
		return absent, nil, false
	}
	switch r.options.kind {
	case optionsAbsent:
		// In front: the edit of a prefix is cheap.
		return Span{r.options.begin, r.options.begin}, withOptions, true
	case optionsNull:
		return r.options.at, asOptions, true
	case optionsEmpty:
		return r.options.at, aloneUsage, true
	case optionsOther:
		return r.options.at, moreUsage, true
	case optionsTold:
		return r.options.at, trueUsage, true
	}
	return absent, nil, false
}

// openOptions takes a container that opens within the member.
func (r *requestReader) openOptions(array bool, depth int) {
	o := &r.facts.options
	switch {
	case depth > 2:
		if r.usageNext {
			o.kind = optionsOdd
		}
	case !array:
		o.kind, o.at = optionsEmpty, Span{r.json.Start() + 1, r.json.Start() + 1}
		return
	}
	r.json.Skip()
}

// keyOptions takes a name within the member.
func (r *requestReader) keyOptions(name []byte) {
	if o := &r.facts.options; o.kind == optionsEmpty {
		o.kind = optionsOther
	}
	if r.usageNext = string(name) == "include_usage"; !r.usageNext {
		r.json.Skip()
	}
}

// valueOptions takes a string, a number or a literal that ends at an offset: the member's, or that of include_usage.
func (r *requestReader) valueOptions(end int64, null bool) {
	at := Span{r.json.Start(), end}
	switch o := &r.facts.options; {
	case r.usageNext:
		o.kind, o.at = optionsTold, at
	case null:
		o.kind, o.at = optionsNull, at
	}
}
