package llm

import (
	"errors"
	"fmt"

	"github.com/inlet-proxy/inlet/shared/jsonscan"
	"github.com/inlet-proxy/inlet/shared/sse"
)

// Usage is what an answer says of the tokens that it took. Counts are never negative.
type Usage struct {
	Known      bool // the answer said anything of it
	Prompt     int  // tokens of the prompt, cached ones included
	Completion int  // tokens of the answer
	Total      int
	Cached     int // tokens of the prompt that came from a prefix cache, as far as the server tells
}

// ResponseScanner reads the usage and the model's name from an answer, JSON or server-sent events, in chunks. It never
// fails: an answer that it cannot read is still the client's answer, and Broken says what was wrong with it. The zero value
// is ready after Reset, and a scanner that is used again allocates nothing for answers it has seen the like of.
type ResponseScanner struct {
	stream bool
	json   jsonscan.Scanner
	reader responseReader
	events sse.Splitter
	emit   func(*sse.Event)
	offset int64 // of the next event's first byte in the stream
	n      int   // events with data
	broken error
}

// Reset makes the scanner ready for an answer of api: server-sent events if stream is true, else one JSON document.
func (r *ResponseScanner) Reset(api API, stream bool) {
	if r.emit == nil {
		r.emit = r.event // bound once: a method value allocates
	}
	r.stream = stream
	r.offset = 0
	r.n = 0
	r.broken = nil
	r.reader = responseReader{
		json:    &r.json,
		api:     api,
		inPlace: true,
		name:    r.reader.name[:0],
		spans:   r.reader.spans[:0],
		models:  r.reader.models,
	}
	r.events.Reset()
	r.json.Reset(&r.reader, jsonscan.Limits{})
}

// Feed reads the next bytes of the answer.
func (r *ResponseScanner) Feed(chunk []byte) {
	r.reader.spans = r.reader.spans[:0]
	if r.stream {
		r.fail(r.events.Feed(chunk, r.emit))
	} else {
		r.fail(r.json.Feed(chunk))
	}
}

// End says that the answer is complete. It is called once.
func (r *ResponseScanner) End() {
	r.reader.spans = r.reader.spans[:0]
	if r.stream {
		r.fail(r.events.End(r.emit))
	} else {
		r.fail(r.json.End())
	}
}

// Usage returns what has been read of the usage so far. In a stream it may grow with every event.
func (r *ResponseScanner) Usage() Usage { return r.reader.usage() }

// Model returns the name of the model that answered, as the answer gives it, or "".
func (r *ResponseScanner) Model() string { return r.reader.model }

// ModelSpans returns where the model's name stood, quotes included, in what the last Feed (or End) completed: offsets
// from the start of the answer, in order. A stream names the model in each of its events. A span may begin in an
// earlier chunk. Valid until the next call.
func (r *ResponseScanner) ModelSpans() []Span { return r.reader.spans }

// Events returns the number of events with data so far, the closing "[DONE]" not counted.
func (r *ResponseScanner) Events() int { return r.n }

// Broken returns the first thing that was wrong with the answer, or nil.
func (r *ResponseScanner) Broken() error { return r.broken }

// fail keeps the first error, if err is one.
func (r *ResponseScanner) fail(err error) {
	if r.broken == nil {
		r.broken = err
	}
}

// errCut says that the last event has no empty line after it: the stream was cut. (After "[DONE]" it does not matter.)
var errCut = errors.New("the stream ended within an event")

// event reads one event of a stream.
func (r *ResponseScanner) event(e *sse.Event) {
	start := r.offset
	r.offset += int64(len(e.Raw))
	if !e.HasData || string(e.Data) == "[DONE]" {
		return
	}
	if e.Incomplete {
		r.fail(errCut)
	}
	r.n++
	r.json.Reset(&r.reader, jsonscan.Limits{})
	r.reader.begin(start+int64(e.DataAt), e.DataAt >= 0)
	err := r.json.Feed(e.Data)
	if err == nil {
		err = r.json.End()
	}
	if err != nil && r.broken == nil {
		r.fail(fmt.Errorf("event %d: %w", r.n, err))
	}
}

// place is what a container or a member's value means.
type place uint8

const (
	nowhere      place = iota
	inAnswer           // the answer, or an event's data
	inWrapper          // "response" of events of Responses, "message" of the first event of Messages: an answer within
	inUsage            // "usage"
	inDetails          // "prompt_tokens_details", "input_tokens_details"
	atModel            // "model"
	atPrompt           // "prompt_tokens", "input_tokens"
	atCompletion       // "completion_tokens", "output_tokens"
	atTotal            // "total_tokens"
	atCached           // "cached_tokens", "cache_read_input_tokens"
	atCacheWrite       // "cache_creation_input_tokens"
	places
)

// responseReader takes the tokens of an answer, or of the data of one event after the other.
type responseReader struct {
	json *jsonscan.Scanner
	api  API

	at   [4]place // of the open containers, by depth from 1: none that is read lies deeper than usage details in a wrapper
	next place    // of the value that follows

	counts [places]int
	known  bool

	name    []byte // the model's, as far as it has been read
	model   string
	models  interner
	base    int64 // of the document in the answer
	inPlace bool  // the document stands there in one piece
	spans   []Span
}

// begin makes ready for the data of an event. What the events before said stays.
func (r *responseReader) begin(base int64, inPlace bool) {
	r.next = nowhere
	r.base, r.inPlace = base, inPlace
}

func (r *responseReader) Open(array bool) {
	depth := r.json.Depth()
	p := r.next
	if depth == 1 {
		p = inAnswer
	}
	r.next = nowhere
	if array || p < inAnswer || p > inDetails {
		r.json.Skip()
		return
	}
	r.at[depth-1] = p
}

func (r *responseReader) Close(bool) {}

func (r *responseReader) Key(name []byte) {
	r.next = nowhere
	switch r.at[r.json.Depth()-1] {
	case inAnswer:
		r.next = r.answerMember(name, true)
	case inWrapper:
		r.next = r.answerMember(name, false)
	case inUsage:
		r.next = usageMember(name, r.api == Messages)
	case inDetails:
		if string(name) == "cached_tokens" {
			r.next = atCached
		}
	}
	switch r.next {
	case nowhere:
		r.json.Skip()
	case atModel:
		r.name = r.name[:0]
	}
}

// answerMember returns what a member of an answer means; outermost is false within a wrapper.
func (r *responseReader) answerMember(name []byte, outermost bool) place {
	switch string(name) {
	case "model":
		return atModel
	case "usage":
		return inUsage
	case "response":
		if outermost && r.api == Responses {
			return inWrapper
		}
	case "message":
		if outermost && r.api == Messages {
			return inWrapper
		}
	}
	return nowhere
}

// usageMember returns what a member of "usage" means. Only Anthropic tells of its cache beside the prompt's tokens; other
// servers that use the same names in addition to their details would be counted twice.
func usageMember(name []byte, anthropic bool) place {
	switch string(name) {
	case "prompt_tokens", "input_tokens":
		return atPrompt
	case "completion_tokens", "output_tokens":
		return atCompletion
	case "total_tokens":
		return atTotal
	case "prompt_tokens_details", "input_tokens_details":
		return inDetails
	case "cache_read_input_tokens":
		if anthropic {
			return atCached
		}
	case "cache_creation_input_tokens":
		if anthropic {
			return atCacheWrite
		}
	}
	return nowhere
}

func (r *responseReader) Text(piece []byte) {
	if r.next == atModel && len(r.name) <= MaxModelBytes {
		r.name = append(r.name, piece...)
	}
}

func (r *responseReader) TextEnd() {
	if r.next == atModel && len(r.name) <= MaxModelBytes {
		r.model = r.models.string(r.name)
		if r.inPlace {
			r.spans = append(r.spans, Span{r.base + r.json.Start(), r.base + r.json.Offset()})
		}
	}
	r.next = nowhere
}

func (r *responseReader) Scalar(raw []byte) {
	if r.next >= atPrompt && raw[0] <= '9' {
		// The counts of a stream are cumulative, but some servers leave out or zero in one event what another told.
		r.counts[r.next] = max(r.counts[r.next], count(raw))
		r.known = true
	}
	r.next = nowhere
}

// usage adds up what has been read.
func (r *responseReader) usage() Usage {
	u := Usage{
		Known:      r.known,
		Prompt:     r.counts[atPrompt],
		Completion: r.counts[atCompletion],
		Total:      r.counts[atTotal],
		Cached:     r.counts[atCached],
	}
	if r.api == Messages {
		// Anthropic's input_tokens are those that are neither read from the cache nor written to it.
		u.Prompt += u.Cached + r.counts[atCacheWrite]
	}
	if u.Total == 0 {
		u.Total = u.Prompt + u.Completion
	}
	return u
}
