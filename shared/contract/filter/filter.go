// Package filter is the contract between a policy (a "filter": bbr, quota,
// guardrail, picker) and whatever runs it.
//
// A filter sees an [Exchange] (one request and its answer), answers with a
// [Verdict] and records effects on the Exchange. It never talks to Envoy: the
// chain runs the filters in order and an adapter applies their effects once.
//
// A Filter value is immutable after its Factory made it and serves many
// exchanges, in some builds from many threads. What belongs to one request
// lives in its Exchange; what outlives requests lives behind [Deps].
package filter

import (
	"errors"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Filter is one policy of the chain. Embed [Base] and write what is needed.
//
// The request hooks run in the order of the configuration, the response hooks
// in reverse. A hook that panics is caught by the chain and counts as a failure
// of its filter, which its failure mode decides. So does a verdict that the hook may
// not give: each hook lists those that it may. See [Screener] for the response's body.
type Filter interface {
	// Needs says what must be read before the hooks of this filter can work.
	// It is asked once, after the configuration was read.
	Needs() Needs

	// OnRequestHeaders runs before a byte of the body is buffered.
	// Verdicts: Next, Deny, Respond, Fail.
	OnRequestHeaders(x *Exchange) Verdict

	// OnRequest runs once, when the facts that the chain's filters need are
	// there (x.Request). The rest of the body may still turn out to be one that is
	// refused, of which OnDone tells. Verdicts: Next, Deny, Respond, Wait, Beside, Fail.
	OnRequest(x *Exchange) Verdict

	// OnReply runs with the reply to a call of this filter, once for each call that is
	// answered while the exchange still waits for it. Verdicts: those of the hook that made the
	// call; a call beside is followed by another one with Wait, not with Beside. See Wait and Beside.
	OnReply(x *Exchange, r *Reply) Verdict

	// OnResponseHeaders runs when the replica's response headers are there
	// (x.Response). Verdicts: Next, Deny, Respond, Fail. Not run for responses that
	// Inlet gave itself.
	OnResponseHeaders(x *Exchange) Verdict

	// OnDone runs exactly once on every ending (finished, client gone, reset,
	// refused by anybody) for every filter of which a request hook ran.
	// Only here is x.Usage final. Effects recorded here are ignored.
	OnDone(x *Exchange, end End)
}

// Ticker is a Filter that has something to do from time to time. Where workers
// share nothing but [Deps.Store], OnTick runs in each of them once a tick (20 ms),
// between exchanges; elsewhere it is not called.
type Ticker interface {
	OnTick()
}

// FieldReader is a Filter that reads top-level members of the request body by
// name, as x.Request.Field in OnRequest and later. It implies NeedModel. A member that
// stands twice is refused by the chain.
type FieldReader interface {
	// Fields lists the names. It is asked once, after the configuration was
	// read. All filters together may read llm.MaxFields, besides llm.Partitions.
	Fields() []string
}

// FactReader is a Filter of which it depends on its configuration what facts of other filters it uses, besides
// Factory.Reads.
type FactReader interface {
	// Reads lists them. It is asked once, after the configuration was read.
	Reads() Facts
}

// MetadataReader is a Filter that reads a value of the dynamic metadata, which filters before
// Inlet write and no client can: x.Metadata, from the first hook on.
type MetadataReader interface {
	// Metadata names the value: a namespace, and a key in it. It is asked once, after the
	// configuration was read; an empty key reads nothing. One filter of a chain may read one.
	Metadata() (namespace, key string)
}

// FirstByter is a Filter that has something to do when the first byte of the
// answer's body comes. From an engine that streams it comes when the prompt has
// been computed; headers may come long before. Not run for answers that Inlet
// gave itself. Effects recorded here are ignored.
type FirstByter interface {
	OnFirstByte(x *Exchange)
}

// Base has a hook for everything that does nothing.
type Base struct{}

// Needs asks for nothing.
func (Base) Needs() Needs { return 0 }

// OnRequestHeaders lets the request pass.
func (Base) OnRequestHeaders(*Exchange) Verdict { return Next }

// OnRequest lets the request pass.
func (Base) OnRequest(*Exchange) Verdict { return Next }

// OnReply lets the request pass; a filter that never waits never sees it.
func (Base) OnReply(*Exchange, *Reply) Verdict { return Next }

// OnResponseHeaders lets the answer pass.
func (Base) OnResponseHeaders(*Exchange) Verdict { return Next }

// OnDone has nothing to release.
func (Base) OnDone(*Exchange, End) {}

// Needs are the readings that a filter asks for. What no filter asks for is
// neither buffered nor copied nor parsed.
type Needs uint8

const (
	// NeedRequest: OnRequest waits for the scanned request body (x.Request).
	NeedRequest Needs = 1 << iota
	// NeedPrompt: x.Request.Prompt holds the prompt's text. Implies NeedRequest.
	NeedPrompt
	// NeedUsage: the answer is scanned for token usage (x.Usage).
	NeedUsage
	// NeedPrefix: x.Request.Prefix holds hashes of the prompt's blocks. Implies NeedRequest.
	NeedPrefix
	// NeedModel: OnRequest waits for the model and what FieldReaders asked for. As
	// long as no filter has NeedRequest it may run before the rest of the body has
	// come: what else x.Request says is then not complete.
	NeedModel
	// NeedSubset: x.Subset holds the subset hint. A request with one never goes on
	// without the filter, whatever its failure mode.
	NeedSubset
	// NeedClient: x.Client holds the client's address.
	NeedClient
	// NeedStrings, with NeedPrompt: x.Request.Strings says where in the body the strings of the prompt stand.
	NeedStrings
)

// Has reports whether all bits of want are set.
func (n Needs) Has(want Needs) bool { return n&want == want }

// Facts are the groups of Exchange fields that one filter writes for later ones.
type Facts uint8

const (
	// FactRoute is x.Route, written by bbr.
	FactRoute Facts = 1 << iota
	// FactTenant is x.Tenant, written by quota.
	FactTenant
	// FactTarget is x.Target, written by picker.
	FactTarget
)

// FailureMode says what happens to a request when a filter itself fails
// (panics, or cannot get what it needs). The words are those of Gateway API's
// payload processing proposal.
type FailureMode string

const (
	// FailOpen goes on as if the filter were not there.
	FailOpen FailureMode = "FailOpen"
	// FailClosed refuses the request.
	FailClosed FailureMode = "FailClosed"
)

// Factory makes one kind of filter. filters.All lists them.
type Factory struct {
	// Name is the key under "filters:" in the configuration.
	Name string
	// Reads are facts of other filters that this one uses: every filter of the
	// chain that writes one of them must stand before it.
	Reads Facts
	// Writes are the facts that this filter alone writes.
	Writes Facts
	// Strict filters protect something: with one in the chain a path that is
	// not recognised is refused, since an unread request would go around it.
	Strict bool
	// FailureMode is the default; "failureMode" in the filter's configuration
	// overrides it.
	FailureMode FailureMode
	// New reads the filter's configuration object and makes the filter. It
	// reports mistakes through o and may then return nil. It does no I/O.
	New func(o *conf.Object, d *Deps) Filter
	// Metrics defines all metrics that New may define, and nothing else. In the native module Envoy has metrics
	// defined with the listener's configuration alone, which then counts for the documents of its routes, too.
	// Nil if there are none.
	Metrics func(Metrics)
	// Help says of each key that New reads what it is for. Key tables and the
	// JSON Schema have it; type, default and bounds come from New itself.
	Help []conf.Help
}

// Verdict is what a hook decides. The zero value is [Next].
type Verdict struct {
	refusal *Refusal
	answer  *Answer
	asked   *asked
	failure string
}

// asked are the calls of a Wait or a Beside.
type asked struct {
	calls  []Call
	beside bool
}

// Next goes on with the next filter.
var Next = Verdict{}

// Deny ends the request with a refusal.
func Deny(r Refusal) Verdict { return Verdict{refusal: &r} }

// Respond ends the request with an answer that needs no replica.
func Respond(a *Answer) Verdict { return Verdict{answer: a} }

// MaxCalls is how many calls a filter may have open at once: those that it waits for, and those beside, counted apart.
const MaxCalls = 8

// Wait holds the request, in OnResponse the unit, until all these calls were answered or their timeouts are over. OnReply of the
// same filter runs with each reply as it arrives, and Reply.Tag says to which call. There
//
//	Next     waits for the calls that are still open, and goes on after the last
//	Wait     adds calls to those that are open: one again, or one to another service
//	Deny     and Respond decide at once: replies to calls that are still open are ignored
//	Fail     too: the filter's failure mode decides, and FailOpen waits no longer
//
// A call that cannot be started is replied to at once, with Reply.Err. A Wait without a call is a failure of the filter, and so are
// more than MaxCalls at once.
func Wait(calls ...Call) Verdict { return Verdict{asked: &asked{calls: calls}} }

// Beside lets the request go on and makes calls beside it, from when it goes to the replica: if a later filter refuses it, they are
// not made. Until all were answered, nothing of the response goes to the client, its headers neither. OnReply of the same filter runs
// with each reply as it arrives, whether or not the response has begun to. There
//
//	Next     waits for the calls that are still open; after the last, the response goes on
//	Wait     adds a call, for which the response waits too
//	Deny     the client gets the refusal, and the replica is told to stop
//	Respond  the client gets the answer, and the replica is told to stop
//	Fail     the filter's failure mode decides: FailOpen does not wait for the filter's other calls beside
//
// The request is gone by then: of the effects only those on the response's headers count. A filter whose calls are partly to be waited
// for gives Wait first, and Beside when those were answered.
//
// A response that Envoy gives itself, because it had no replica to ask, is not held, and OnReply does not run any more.
func Beside(calls ...Call) Verdict { return Verdict{asked: &asked{calls: calls, beside: true}} }

// Fail says that the filter could not get what it needs, in a few words for
// the access log ("no-snapshot"). Its failure mode decides: FailOpen goes on,
// FailClosed refuses with 503.
func Fail(reason string) Verdict { return Verdict{failure: reason} }

// Failure returns the reason of a Fail, or "".
func (v Verdict) Failure() string { return v.failure }

// Refusal returns the refusal of a Deny, or nil.
func (v Verdict) Refusal() *Refusal { return v.refusal }

// Answer returns the answer of a Respond, or nil.
func (v Verdict) Answer() *Answer { return v.answer }

// Asks reports whether the verdict is a Wait or a Beside.
func (v Verdict) Asks() bool { return v.asked != nil }

// Calls returns the calls of a Wait or a Beside.
func (v Verdict) Calls() []Call {
	if v.asked == nil {
		return nil
	}
	return v.asked.calls
}

// IsBeside reports whether the verdict is a Beside.
func (v Verdict) IsBeside() bool { return v.asked != nil && v.asked.beside }

// Refusal is a local answer. The chain renders it in the form that the
// client's SDK understands.
type Refusal struct {
	llm.Refusal
	// Reason is the machine-readable value of the x-inlet-reason header,
	// for example "no-endpoints". Empty: Code is used.
	Reason string
	// Filtered is for a response that has begun: the stream ends as the API ends one
	// that the model's provider has stopped (finish_reason "content_filter", stop_reason
	// "refusal"), which clients take for an answer. Without it the stream ends with an
	// error event, which clients raise. The wasm build cannot end a stream cleanly: after
	// half a second it cuts the connection, which clients of Messages and Responses, who read
	// to its end, raise then.
	Filtered bool
	// RetryAfter becomes the Retry-After header, rounded up to whole seconds.
	// 429 and 503 without one get one second; a negative one says that it makes no
	// sense to send the request again, and there is no header.
	RetryAfter time.Duration
	// Headers are further headers of the response.
	Headers [][2]string
	// Body is JSON that takes the place of the usual body; nil for the usual one. A
	// stream that has begun ends as if there was none.
	Body []byte
}

// Answer is a whole answer that a filter gives in the place of a replica. It
// may be shared by many requests: nobody changes it.
type Answer struct {
	Status  int
	Headers [][2]string
	Body    []byte
}

// Call is a request to another service on behalf of a filter.
type Call struct {
	Cluster string        // Envoy cluster that serves it
	Method  string        // default POST
	Path    string        // starts with /
	Host    string        // the :authority header
	Headers [][2]string   // further headers
	Body    []byte        // kept until the reply
	Timeout time.Duration // must be positive
	Tag     int           // comes back in the Reply; for the filter alone
}

// Reply is the answer to a Call. It is valid during OnReply only.
type Reply struct {
	// Tag is that of the call.
	Tag int
	// Err is set when there is no answer: unknown cluster, timeout, reset.
	Err    error
	Status int
	Body   []byte
}

// Errors of a Reply that say more than that there is no answer.
var (
	// ErrNotStarted: nobody was called, and a call that is made again at once will not be either.
	ErrNotStarted = errors.New("the call could not be started: no healthy endpoint, or its headers are not acceptable")
	// ErrNoCluster: nor was anybody called, as Envoy does not have the cluster.
	ErrNoCluster = errors.New("no such cluster in Envoy")
	// ErrTooLong: the service has answered, with more than Envoy takes.
	ErrTooLong = errors.New("the reply is larger than Envoy's limit")
)

// End says how an exchange ended.
type End struct {
	// Complete: the whole response of the replica went through.
	Complete bool
	// Refused: Inlet refused the request, or its response before anything of it went on.
	Refused bool
	// Answered: Inlet gave the response itself. If x.Response.Status is set, a replica
	// had given another.
	Answered bool
	// Ended: Inlet ended a response that had begun.
	Ended bool
	// Partial: the replica did not get the end of the request's body.
	Partial bool
	// Broken: the replica broke off an answer that it had begun.
	Broken bool
	// Status of the answer that the client got; 0 if it got none.
	Status int
	// At is when it ended.
	At time.Time
}
