package filter

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Headers reads one header map. Names are lower case; the strings stay valid
// until the exchange ends.
type Headers interface {
	// Get returns the first value of a header and whether it is there.
	Get(name string) (string, bool)
	// At returns the value of a header that stands several times, counted from 0,
	// and whether it stands there that often.
	At(name string, n int) (string, bool)
	// Line returns the nth line of the whole map, pseudo headers too, counted from
	// 0, and whether there are that many.
	Line(n int) (name, value string, ok bool)
}

// Exchange is one request and its answer. Every group of fields has one
// writer; everybody later in the chain may read it.
type Exchange struct {
	// Set by the chain before the first hook.

	Start          time.Time
	Method         string
	Path           string // with the query string
	API            llm.API
	RequestHeaders Headers

	// Metadata is the value that a filter reads from the dynamic metadata: a string;
	// "" if there is none. Written by the chain before the first hook.
	// See MetadataReader.
	Metadata string

	// Client is the client's IP address as Envoy has found it out, without a port; "" if
	// Envoy does not tell. Written by the chain before the first hook. See NeedClient.
	Client string

	// Request holds the facts of the request body; written by the chain,
	// complete in OnRequest and later. See NeedRequest.
	Request *llm.Request

	// Subset restricts who may serve; written by the chain before OnRequest. See
	// NeedSubset.
	Subset Subset

	Route  Route  // written by bbr
	Tenant Tenant // written by quota
	Target Target // written by picker

	// Response is written by the chain at the response headers.
	Response Response

	// Usage counts the tokens of the answer; written by the chain, final in
	// OnDone. See NeedUsage.
	Usage llm.Usage

	effects Effects
	why     []byte
	news    bool // why has changed
	states  []any
	screens []screen
	unit    *Unit
	slot    int
}

// Route is where body-based routing sends the request.
type Route struct {
	// Model is the public name of the model. What the client wrote, x.Request.Model,
	// may be an alias of it.
	Model  string
	Target string // name that the replica is asked for; Model when not rewritten
	Base   string // base model of Target, for LoRA adapters; "" if unknown
	Pool   string // pool of replicas; "" if no pool is configured
	// External: Pool is somebody else's service. It has no replicas to choose
	// from and no gauges.
	External bool
	// Fallback are the pools to use, in this order, when all replicas of Pool are saturated. The slice must not be changed.
	Fallback []Pool
}

// Subset are the replicas to which a gateway before Inlet restricts the request: the subset hint of
// the endpoint picker protocol (Gateway API Inference Extension, proposal 004). It comes as dynamic
// metadata, which no client can set.
type Subset struct {
	Given     bool     // else there is no restriction
	Addresses []string // ip:port; may be empty, then nobody may serve
}

// Pool is a pool that a request may go to.
type Pool struct {
	Name     string
	External bool // as in Route
}

// Tenant is who pays for the request.
type Tenant struct {
	Name      string // application or developer the key belongs to; "" if unknown
	App       string // application; "" if unknown
	Developer string // owner of the application; "" if unknown
	Product   string // what the application has subscribed to; "" if no products are configured
}

// Target is the replica that the picker chose.
type Target struct {
	Address string // ip:port; "" if nothing was picked
	Pool    string // pool that it belongs to, which may be one of Route.Fallback; "" if nothing was decided
}

// Response holds the facts of the answer's headers; if there was no answer, in OnDone
// those of Envoy's attempt.
type Response struct {
	Status      int
	Headers     Headers
	EventStream bool          // text/event-stream
	Served      string        // ip:port of the replica that Envoy turned to last; "" if unknown
	FirstByte   time.Duration // from Start to the first body byte of the replica's; 0 before it
	Events      int           // of a stream that is read: events with data, final in OnDone
	SinceUsage  int           // those of Events after the last one that told how many tokens the answer has
	Origin      Origin        // whose answer it is
	// Asked only where another replica served than x.Target names.
	Attempts int    // how often Envoy has sent the request; 0 if unknown
	Cluster  string // Envoy's cluster that served; "" if unknown
}

// Origin is whose answer it is, and so what it says about the replica.
type Origin uint8

const (
	// OfReplica: the replica's, or nobody can tell.
	OfReplica Origin = iota
	// OfFailure: Envoy's, because the replica could not be reached, broke off or took
	// too long.
	OfFailure
	// OfProxy: Envoy's or another filter's. It says nothing about a replica.
	OfProxy
)

// SetRequestHeader sets a header towards the replica and for route matching.
func (x *Exchange) SetRequestHeader(name, value string) {
	x.effects.Request = append(x.effects.Request, HeaderEdit{Name: name, Value: value})
}

// RemoveRequestHeader removes a header before routes are matched.
func (x *Exchange) RemoveRequestHeader(name string) {
	x.effects.Request = append(x.effects.Request, HeaderEdit{Name: name, Remove: true})
}

// SetResponseHeader sets a header towards the client.
func (x *Exchange) SetResponseHeader(name, value string) {
	x.effects.Response = append(x.effects.Response, HeaderEdit{Name: name, Value: value})
}

// RemoveResponseHeader removes a header towards the client.
func (x *Exchange) RemoveResponseHeader(name string) {
	x.effects.Response = append(x.effects.Response, HeaderEdit{Name: name, Remove: true})
}

// ReplaceInBody replaces the bytes of span in the request body. Spans of one
// request must not overlap; every other byte stays as it came.
func (x *Exchange) ReplaceInBody(span llm.Span, with []byte) {
	x.effects.Body = append(x.effects.Body, BodyEdit{Span: span, With: with})
}

// RestoreModel has the replica's answer name its model as name, whatever the
// replica calls it; every other byte stays as it came. Said while the request
// is still here (OnRequest or earlier), so that the replica can be asked for an
// answer that can be read.
func (x *Exchange) RestoreModel(name string) { x.effects.Model = name }

// AskUsage has the replica asked for the tokens that it used, if the request is a stream of chat or completions whose client
// did not ask. The chain sets include_usage in the stream_options of the body, and leaves out of the response the event that only has
// the usage: x.Usage has it. Some servers then also send "usage":null in all other events, which stays: it says nothing.
//
// Said in OnRequest or earlier, by a filter that has NeedRequest: who asks is only known when the whole body was read. A server that is
// too old for stream_options refuses the request with 400 or 422, which is the client's response: do not ask where that may be. A server
// that is set up to send the event to everybody seems to send it to nobody. A response that comes compressed although no client may ask
// for that cannot be read, and keeps the event.
func (x *Exchange) AskUsage() { x.effects.Usage = true }

// Explain adds "name=value" to the one-line reason that the access log shows.
// Never put prompt text or keys there.
func (x *Exchange) Explain(name, value string) {
	x.news = true
	if len(x.why) > 0 {
		x.why = append(x.why, ' ')
	}
	x.why = append(x.why, name...)
	x.why = append(x.why, '=')
	for i := range len(value) {
		c := value[i]
		if c <= ' ' || c == '=' || c == 0x7f {
			c = '_' // a model name of a client's must not pose as another entry
		}
		x.why = append(x.why, c)
	}
}

// Amend is Explain for what may change: the value takes the place of an earlier one of the same name.
func (x *Exchange) Amend(name, value string) {
	for at := 0; at < len(x.why); {
		end := at
		for end < len(x.why) && x.why[end] != ' ' {
			end++
		}
		if len(name) < end-at && string(x.why[at:at+len(name)]) == name && x.why[at+len(name)] == '=' {
			x.why = append(x.why[:at], x.why[min(end+1, len(x.why)):]...)
			break
		}
		at = end + 1
	}
	if n := len(x.why); n > 0 && x.why[n-1] == ' ' {
		x.why = x.why[:n-1]
	}
	x.Explain(name, value)
}

// State returns what the running filter kept with SetState, or nil.
//
// Exchanges are used again: a state kept for an earlier request comes back, so
// that a filter can reuse its memory. A filter that keeps state sets it again in its first hook.
func (x *Exchange) State() any { return x.states[x.slot] }

// SetState keeps v for the running filter until OnDone.
func (x *Exchange) SetState(v any) { x.states[x.slot] = v }

// Reset makes the Exchange ready for a new request through a chain of n
// filters. For the chain only.
func (x *Exchange) Reset(n int) {
	states := x.states
	screens := x.screens
	if len(states) != n {
		states, screens = make([]any, n), make([]screen, n)
	}
	clear(screens)
	e := x.effects
	clear(e.Request) // what they point to is not to be kept for them
	clear(e.Response)
	clear(e.Body)
	clear(x.Subset.Addresses)
	*x = Exchange{states: states, screens: screens, why: x.why[:0], Subset: Subset{Addresses: x.Subset.Addresses[:0]}}
	x.effects = Effects{Request: e.Request[:0], Response: e.Response[:0], Body: e.Body[:0]}
}

// Enter names the filter whose hook runs next. For the chain only.
func (x *Exchange) Enter(slot int) { x.slot = slot }

// Effects returns what the filters have recorded. For the chain only.
func (x *Exchange) Effects() *Effects { return &x.effects }

// Why returns the explanations so far. For the chain only; valid until the
// next Explain.
func (x *Exchange) Why() []byte { return x.why }

// News returns the explanations if they have changed since it was asked last, else nil. For the chain only; valid as Why has it.
func (x *Exchange) News() []byte {
	if !x.news {
		return nil
	}
	x.news = false
	return x.why
}

// Effects is what the filters want changed, in the order they said it. An
// adapter applies request effects once when the request is released, response
// effects once at the response headers. The model's name is restored as the response's bytes pass.
type Effects struct {
	Request  []HeaderEdit
	Response []HeaderEdit
	Body     []BodyEdit
	Model    string // name of the model in the answer; "" leaves what the replica says
	Usage    bool   // see AskUsage
}

// HeaderEdit sets or removes one header.
type HeaderEdit struct {
	Name   string
	Value  string
	Remove bool
}

// BodyEdit replaces the bytes of a span.
type BodyEdit struct {
	Span llm.Span
	With []byte
}

// Splice appends body with the edits made to dst. They are sorted and do not overlap.
func Splice(dst, body []byte, edits []BodyEdit) []byte {
	var at int64
	for i := range edits {
		dst = append(dst, body[at:edits[i].Span.Start]...)
		dst = append(dst, edits[i].With...)
		at = edits[i].Span.End
	}
	return append(dst, body[at:]...)
}

// Mark remembers how far the effects have come. For the chain only.
type Mark struct {
	request, response, body int
	model                   string
	usage                   bool
}

// Mark returns the present state of the effects.
func (x *Exchange) Mark() Mark {
	e := &x.effects
	return Mark{len(e.Request), len(e.Response), len(e.Body), e.Model, e.Usage}
}

// Undo forgets the effects recorded since m.
func (x *Exchange) Undo(m Mark) {
	e := &x.effects
	e.Request, e.Response, e.Body = e.Request[:m.request], e.Response[:m.response], e.Body[:m.body]
	e.Model, e.Usage = m.model, m.usage
}
