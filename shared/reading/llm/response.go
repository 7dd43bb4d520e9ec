package llm

import (
	"errors"
	"fmt"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/sse"
)

// ResponseScanner reads the usage from an answer, JSON or server-sent events, in chunks, and restores the model's name: it
// says what to put where the answer names its model. It never fails: an answer that it cannot read is still the client's
// answer, and Broken says what was wrong with it. The zero value is ready after Reset, and a scanner that is used again
// allocates nothing for answers that it can read.
type ResponseScanner struct {
	stream bool
	json   jsonscan.Scanner
	reader responseReader
	events sse.Scanner
	n      int // events with data
	told   int // the last of them that told how many tokens the answer has; 0 if none did
	broken error
	ended  bool // the last event of the stream has been read

	fed    int64 // bytes of the answer
	doc    int64 // bytes of the document: the answer, or the data of the event in progress
	marker int   // bytes of doneMarker that the event's data so far consists of; -1 if it is anything else

	at   int64 // where the event in progress begins in the response
	over bool  // End was called

	edited   choiceSet // of which a text was edited
	finished choiceSet // of which the end has gone on

	model []byte // the name to put in, a JSON string; empty to leave names as they are
	with  []byte // memory for what Feed returns

	concealed
}

// withKept bounds the memory that what one huge chunk has needed may keep.
const withKept = 64 << 10

// Reset makes the scanner ready for an answer of api: server-sent events if stream is true, else one JSON document. The
// answer is to name its model as model; if that is empty, as it does.
func (r *ResponseScanner) Reset(api API, stream bool, model string) {
	r.stream = stream
	r.n, r.told = 0, 0
	r.broken, r.ended = nil, false
	r.fed, r.at, r.over = 0, 0, false
	r.edited, r.finished = choiceSet{}, choiceSet{}
	r.model = r.model[:0]
	if model != "" {
		r.model = AppendString(r.model, model)
	}
	if cap(r.with) > withKept {
		r.with = nil
	}
	r.concealed.reset()
	r.reader = responseReader{json: &r.json, api: api, restores: model != "", names: r.reader.names[:0], texts: r.reader.texts}
	r.reader.texts.reset(false)
	r.events.Reset((*eventReader)(r))
	r.begin()
}

// begin makes ready for a document. What those before it said stays.
func (r *ResponseScanner) begin() {
	r.doc, r.marker = 0, 0
	r.reader.next, r.reader.last, r.reader.sole = nowhere, false, undecided
	if r.reader.texts.on {
		r.reader.texts.begin()
	}
	r.json.ResetLenient(&r.reader)
}

// Feed reads the next bytes of the answer. For the model's name to be restored, the first n of them must be replaced by
// with; n is 0 if they are to stay as they are. with may be empty, and is valid until the next call.
//
// The new name is put in where the old one begins, and the old one is left out as it arrives: nothing is ever held back.
// Only at its end would be known which name it was, so every name is replaced. See Conceal for what is held back.
func (r *ResponseScanner) Feed(chunk []byte) (n int, with []byte) {
	r.reader.names = r.reader.names[:0]
	base := r.fed
	r.fed += int64(len(chunk))
	if r.stream {
		r.events.Feed(chunk)
	} else {
		r.fail(r.read(chunk, base))
	}
	if r.reader.texts.full {
		r.fail(errManyTexts)
	}
	if !r.reader.restores && !r.reader.conceals || r.reader.texts.on {
		return 0, nil
	}
	if r.reader.next == atModel && r.json.InText() {
		// The chunk's end cuts a name.
		r.reader.name(r.doc)
	}
	r.with = r.with[:0]
	if r.reader.conceals {
		n = r.conceal(chunk, base)
	} else {
		n = r.restore(chunk, base, 0)
	}
	return n, r.with
}

// read reads the next piece of the document, which stands at an offset in the answer.
func (r *ResponseScanner) read(piece []byte, at int64) error {
	r.reader.base = at - r.doc
	r.doc += int64(len(piece))
	return r.json.Feed(piece)
}

// restore adds to with what is to stand in the place of chunk[from:n], where chunk, which stands at base in the answer, has names.
func (r *ResponseScanner) restore(chunk []byte, base int64, from int) (n int) {
	n = from
	for _, name := range r.reader.names {
		start, end := int(name.Start-base), int(name.End-base)
		switch {
		case end <= n:
			continue // nothing of it is here
		case start >= len(chunk):
			return n
		case start >= from:
			if string(chunk[start:end]) == string(r.model) {
				continue
			}
			r.with = append(r.with, chunk[n:start]...)
			r.with = append(r.with, r.model...)
		}
		n = end
	}
	return n
}

// End says that the answer is complete.
func (r *ResponseScanner) End() {
	if r.over {
		return
	}
	r.over = true
	if r.stream {
		r.events.End()
		r.reader.texts.ahead = choiceSet{}
		return
	}
	r.fail(r.json.End())
	r.endTexts()
	r.reader.take()
}

// Usage returns what has been read of the usage so far. In a stream it may change with every event.
func (r *ResponseScanner) Usage() Usage {
	all := r.reader.all
	all.take(&r.reader.event, r.reader.api)
	return all.usage(r.reader.api)
}

// Untold reports whether the answer lacks a usage that it ought to have: neither all that its API counts is there, nor does it
// say that it is paid by something else, such as its duration.
func (r *ResponseScanner) Untold() bool {
	return r.reader.api.TellsUsage() && !r.Usage().Known && !r.reader.all.has(atOther) && !r.reader.event.has(atOther)
}

// Events returns the number of events with data so far, the closing "[DONE]" not counted.
func (r *ResponseScanner) Events() int { return r.n }

// SinceUsage returns how many of them came after the last one that told how many tokens the answer has. Of a stream that was cut that is what
// the usage leaves out.
func (r *ResponseScanner) SinceUsage() int { return r.n - r.told }

// Ended reports whether the last event of a stream has been read: a client that leaves then has all of the answer, whether or not the
// connection's end has come.
func (r *ResponseScanner) Ended() bool { return r.ended }

// Broken returns the first thing that was wrong with the answer, or nil.
func (r *ResponseScanner) Broken() error { return r.broken }

// fail keeps the first error, if err is one.
func (r *ResponseScanner) fail(err error) {
	if r.broken == nil {
		r.broken = err
	}
}

// doneMarker is the data with which OpenAI's streams end. It is no JSON.
const doneMarker = "[DONE]"

// errCut says that the last event has no empty line after it: the stream was cut. (After "[DONE]" it does not matter.)
var errCut = errors.New("the stream ended within an event")

// eventReader takes the events of a stream, each of which holds a document.
type eventReader ResponseScanner

func (e *eventReader) Data(piece []byte) {
	r := (*ResponseScanner)(e)
	if r.doc == 0 && r.marker == 0 {
		r.at = r.events.Boundary()
	}
	if r.marker >= 0 {
		if rest := doneMarker[r.marker:]; len(piece) <= len(rest) && string(piece) == rest[:len(piece)] {
			r.marker += len(piece)
			return
		}
		r.noMarker()
	}
	_ = r.read(piece, r.events.Offset()) // End returns the error too
}

// noMarker reads as a document what might have been the closing marker.
func (r *ResponseScanner) noMarker() {
	if r.marker > 0 {
		_ = r.read([]byte(doneMarker[:r.marker]), r.fed) // End returns the error too; no name begins here
	}
	r.marker = -1
}

func (e *eventReader) End(whole bool) {
	r := (*ResponseScanner)(e)
	r.ended = r.ended || whole && (r.marker == len(doneMarker) || r.reader.last)
	switch {
	case r.doc == 0 && r.marker == 0 && whole: // no data, no text
	case r.marker != len(doneMarker):
		r.noMarker()
		if !whole {
			r.fail(errCut)
		}
		r.n++
		if r.reader.event.n[atCompletion] > 0 {
			r.told = r.n
		}
		err := r.json.End()
		if err != nil && r.broken == nil {
			r.fail(fmt.Errorf("event %d: %w", r.n, err))
		}
		if r.reader.conceals && err == nil && r.reader.onlyUsage() {
			r.leaveOut(whole)
		}
	}
	r.endTexts()
	if r.ended || !whole {
		r.reader.texts.ahead = choiceSet{} // no text comes
	}
	r.reader.take()
	r.begin()
}

// place is what a container or a member's value means.
type place uint8

const (
	nowhere      place = iota
	atPrompt           // "prompt_tokens", "input_tokens"
	atCompletion       // "completion_tokens", "output_tokens"
	atTotal            // "total_tokens"
	atCached           // "cached_tokens", "cache_read_input_tokens"
	atImages           // "image_tokens", which Cohere tells beside those of the text
	atCacheWrite       // "cache_creation_input_tokens"
	atWritten          // a member of "cache_creation"
	atOther            // what is paid by something other than tokens: "seconds", "duration", "search_units", "images"
	counted            // those up to here are numbers of a usage
	atModel            // "model"
	atType             // "type" of an event
	atChoices          // "choices" of an event that may be concealed
	inAnswer           // the answer, or an event's data
	inWrapper          // "response" of events of Responses, "message" of the first event of Messages, "delta" of Cohere's events: an answer within
	inMeta             // "meta", in Cohere's form
	inChoices          // "choices", a list
	inGroq             // "x_groq"
	inUsage            // "usage"; "tokens" and "billed_units" in it or in "meta", in Cohere's form
	inDetails          // "prompt_tokens_details", "input_tokens_details"
	inWritten          // "cache_creation": what was written to the cache, by lifetime
)

// responseReader takes the tokens of an answer, or of the data of one event after the other.
type responseReader struct {
	json     *jsonscan.Scanner
	api      API
	restores bool // the model's name is of interest
	conceals bool // events that have nothing but the usage are left out
	sole     sole // whether the event in progress is such a one

	at   [4]place // of the open containers, by depth from 1: none that is read lies deeper than usage details in a wrapper
	next place    // of the value that follows

	event counts // of the answer, or of the event in progress
	all   counts // of the events before

	kind kind
	last bool // nothing comes after the event in progress

	base  int64  // offset in the answer of the document's first byte, if what is being read stood there in one piece with it
	names []Span // of the model, in the answer, quotes included: those of which a piece was fed last, as far as they were fed

	texts textReader
}

// name notes the name that has been read up to an offset in the document. Data fields that are joined to one document
// stand apart in the answer, but no string reaches over the line break that joins them.
func (r *responseReader) name(end int64) {
	r.names = append(r.names, Span{r.base + r.json.Start(), r.base + end})
}

func (r *responseReader) Open(array bool) {
	depth := r.json.Depth()
	p := r.next
	if depth == 1 {
		p = inAnswer
	}
	r.next = nowhere
	if r.texts.on {
		r.texts.openContainer(array, r.base+r.json.Start())
	}
	if r.conceals && r.openChoices(p, array, depth) {
		return
	}
	if array || p < inAnswer || depth > len(r.at) {
		r.leaveOut(depth)
		return
	}
	if p == inWritten {
		r.event.written = 0
	}
	r.at[depth-1] = p
}

// leaveOut takes no tokens from a container that has been opened.
func (r *responseReader) leaveOut(depth int) {
	if !r.texts.on {
		r.json.Skip()
	} else if depth <= len(r.at) {
		r.at[depth-1] = nowhere
	}
}

func (r *responseReader) Close(bool) {
	if r.texts.on {
		r.texts.closeContainer(r.base + r.json.Offset())
	}
}

// take adds what the answer, or the event in progress, has told to what the events before it told.
func (r *responseReader) take() {
	if r.event.told != 0 { // of few events it has
		r.all.take(&r.event, r.api)
		r.event = counts{}
	}
}

func (r *responseReader) Key(name []byte) {
	r.next = nowhere
	switch r.place() {
	case inAnswer:
		r.next = r.answerMember(name, true)
	case inWrapper:
		r.next = r.answerMember(name, false)
	case inMeta:
		if string(name) == "tokens" || string(name) == "billed_units" {
			r.next = inUsage
		}
	case inGroq:
		if string(name) == "usage" {
			r.next = inUsage
		}
	case inUsage:
		r.next = usageMember(name, r.api)
	case inDetails:
		if string(name) == "cached_tokens" {
			r.next = atCached
		}
	case inWritten:
		r.next = atWritten
	}
	switch {
	case r.texts.on:
		r.texts.keyed(name)
	case r.next == nowhere:
		r.json.Skip()
	}
}

// place is what the innermost container means.
func (r *responseReader) place() place {
	if depth := r.json.Depth(); 0 < depth && depth <= len(r.at) {
		return r.at[depth-1]
	}
	return nowhere
}

// answerMember returns what a member of an answer means; outermost is false within a wrapper.
func (r *responseReader) answerMember(name []byte, outermost bool) place {
	switch string(name) {
	case "model":
		if r.restores {
			return atModel
		}
	case "type":
		if outermost {
			r.kind.n = 0
			return atType
		}
	case "usage":
		return inUsage
	case "choices":
		if outermost && r.conceals {
			return atChoices
		}
	case "error":
		if outermost {
			r.sole = otherwise
		}
	case "response":
		if outermost && r.api == Responses {
			return inWrapper
		}
	case "message":
		if outermost && r.api == Messages {
			return inWrapper
		}
	case "delta":
		if outermost && r.api.likeCohere() {
			return inWrapper
		}
	case "x_groq":
		if outermost && r.api.metering() == allTokens {
			return inGroq
		}
	case "duration":
		if outermost && r.api == Transcriptions {
			return atOther
		}
	case "meta":
		if r.api.likeCohere() {
			return inMeta
		}
	}
	return nowhere
}

// usageMember returns what a member of "usage" means.
func usageMember(name []byte, api API) place {
	if api == Messages {
		return anthropicMember(name)
	}
	switch string(name) {
	case "prompt_tokens", "input_tokens":
		return atPrompt
	case "completion_tokens", "output_tokens":
		return atCompletion
	case "total_tokens":
		return atTotal
	case "prompt_tokens_details", "input_tokens_details":
		return inDetails
	case "cached_tokens":
		return atCached
	case "seconds":
		if api == Transcriptions {
			return atOther
		}
	}
	if api.likeCohere() {
		return cohereMember(name)
	}
	return nowhere
}

// cohereMember does so for what only Cohere's form has.
func cohereMember(name []byte) place {
	switch string(name) {
	case "tokens", "billed_units":
		return inUsage
	case "image_tokens":
		return atImages
	case "search_units", "images":
		return atOther
	}
	return nowhere
}

// anthropicMember does so for Anthropic's. Only there the tokens of the cache are told beside the others: servers that use
// the same names in other answers, or OpenAI's details here, would be counted twice.
func anthropicMember(name []byte) place {
	switch string(name) {
	case "input_tokens":
		return atPrompt
	case "output_tokens":
		return atCompletion
	case "cache_read_input_tokens":
		return atCached
	case "cache_creation_input_tokens":
		return atCacheWrite
	case "cache_creation":
		return inWritten
	}
	return nowhere
}

func (r *responseReader) Text(piece []byte) {
	if r.next == atType {
		r.kind.add(piece)
	}
	if r.texts.on {
		r.texts.text(piece)
	}
}

func (r *responseReader) TextEnd() {
	if r.texts.on {
		r.texts.textEnd(Span{r.base + r.json.Start(), r.base + r.json.Offset()}, r.next == atModel)
	}
	switch r.next {
	case atModel:
		if !r.texts.on {
			r.name(r.json.Offset())
		}
	case atType:
		r.last = r.kind.isLast(r.api)
	case atOther:
		r.event.add(atOther, 0) // some write a duration as a string
	}
	if r.conceals {
		r.valueOfChoices()
	}
	r.next = nowhere
}

func (r *responseReader) Scalar(raw []byte) {
	if nowhere < r.next && r.next < counted && raw[0]-'0' <= 9 {
		r.event.add(r.next, count(raw))
	}
	if r.conceals {
		r.valueOfChoices()
	}
	r.next = nowhere
	if r.texts.on {
		r.texts.number(raw)
	}
}
