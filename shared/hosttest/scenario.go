// Package hosttest runs black-box scenarios through Inlet: what a client
// sends, what a replica gets and answers, what the client gets. One format
// serves five hosts, so that the same promise is checked on all of them: a
// native fake host ([Native]) and the compiled wasm ([Wazero]) here, both
// inside an emulated proxy with a virtual clock, and the two builds inside a
// real Envoy, which implement [Host] elsewhere.
//
// README.md describes the files; [Load] reads them, [Play] runs one, [Check]
// compares what happened with what was expected.
package hosttest

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Scenario is one gateway with its replicas and services, and the requests
// that go through it in order.
type Scenario struct {
	Name string `yaml:"name"`
	// Config is the chain's document, as in Envoy.
	Config string `yaml:"config"`
	// Pools are the replicas by pool: what Envoy's clusters hold, and what the
	// companion says about them.
	Pools map[string][]Replica `yaml:"pools"`
	// Subset is the subset hint of every request, none if absent.
	Subset *Subset `yaml:"subset"`
	// Metadata is dynamic metadata of every request, by namespace and key.
	Metadata map[string]map[string]string `yaml:"metadata"`
	// Unfollowed: the clusters do not read the ranked list that Inlet names.
	Unfollowed bool `yaml:"unfollowed"`
	// MaxRequests is how many requests a cluster lets be in progress at once, any number
	// if 0. Of more Envoy says itself that they are too many.
	MaxRequests int `yaml:"maxRequests"`
	// Services are the answers to callouts by cluster, in order; the last one
	// repeats. A cluster that is not listed does not exist.
	Services map[string][]Answer `yaml:"services"`
	// Workers is the number of worker threads, 1 if absent. Requests go to
	// them in turn.
	Workers int `yaml:"workers"`
	// Hosts are the names of the hosts that can play the scenario, all if empty.
	Hosts []string `yaml:"hosts"`
	// Because says why the other hosts cannot; goes with Hosts.
	Because string `yaml:"because"`
	// Rejected: the configuration is refused with a message that contains this.
	Rejected string `yaml:"rejected"`
	Steps    []Step `yaml:"steps"`

	// File is where the scenario was read from.
	File string `yaml:"-"`
}

// CompanionCluster is the cluster by which every host serves the companion's
// snapshot of the scenario's pools.
const CompanionCluster = "inlet-companion"

// Replica is one model server of a pool. Its name is unique in the scenario.
type Replica struct {
	Name    string  `yaml:"name"`
	Waiting int     `yaml:"waiting"` // requests in its queue
	Running int     `yaml:"running"` // requests it works on
	KV      float64 `yaml:"kv"`      // share of its KV cache in use, 0..1
	Ready   *bool   `yaml:"ready"`   // true if absent
	Known   *bool   `yaml:"known"`   // its gauges could be scraped; true if absent

	Models   []string          `yaml:"models"`   // that it lists; it is not asked if there are neither these nor adapters
	Adapters map[string]string `yaml:"adapters"` // LoRA adapters that it lists, and for which model each is made
	LoRA     *LoRA             `yaml:"lora"`     // the adapters at work, as its metrics say; nothing if absent

	Unknown bool `yaml:"unknown"` // the companion tells it, and the cluster does not have it yet

	Priority uint16 `yaml:"priority"` // its rank by its source; 0 is first
	Started  int64  `yaml:"started"`  // when its process started, in seconds since 1970; not told if absent
}

// LoRA are the adapters at work on a replica, sorted by name.
type LoRA struct {
	Running []string `yaml:"running"`
	Waiting []string `yaml:"waiting"`
	Max     int      `yaml:"max"` // that it can work on at a time
}

// Endpoint returns what the companion says about the replica.
func (r *Replica) Endpoint(address string) endpoint.Endpoint {
	e := endpoint.Endpoint{Address: address, Ready: r.IsReady(), Priority: r.Priority, Started: r.Started}
	if r.IsKnown() {
		e.Gauges = endpoint.Gauges{Known: true, Waiting: r.Waiting, Running: r.Running, KVUse: r.KV}
	}
	if r.LoRA != nil {
		e.LoRA = &endpoint.LoRA{Running: r.LoRA.Running, Waiting: r.LoRA.Waiting, Max: r.LoRA.Max}
	}
	if r.Models != nil || r.Adapters != nil {
		e.Models = &endpoint.Models{Names: slices.Sorted(slices.Values(r.Models))}
		for _, name := range slices.Sorted(maps.Keys(r.Adapters)) {
			e.Models.Adapters = append(e.Models.Adapters, endpoint.Adapter{Name: name, Parent: r.Adapters[name]})
		}
	}
	return e
}

// IsReady reports whether the replica takes requests.
func (r *Replica) IsReady() bool { return r.Ready == nil || *r.Ready }

// IsKnown reports whether the replica's gauges could be scraped.
func (r *Replica) IsKnown() bool { return r.Known == nil || *r.Known }

// Subset is a subset hint: what a gateway before Inlet says, as dynamic metadata,
// about who may serve.
type Subset struct {
	Replicas []string // names; what is no replica's name is said as it stands
	Text     bool     // said as one string with commas, not as a list
}

// With is the hint with addresses, by name, in the place of names.
func (s *Subset) With(addresses map[string]string) *Subset {
	if s == nil {
		return nil
	}
	said := &Subset{Text: s.Text, Replicas: make([]string, len(s.Replicas))}
	for i, name := range s.Replicas {
		said.Replicas[i] = cmp.Or(addresses[name], name)
	}
	return said
}

// Answer is what a called service says.
type Answer struct {
	Status  int               `yaml:"status"` // 200 if absent
	Headers map[string]string `yaml:"headers"`
	Body    string            `yaml:"body"`
	Delay   time.Duration     `yaml:"delay"`
	// Fail: "timeout" never answers, "reset" cuts the connection before the
	// answer, "cut" in the middle of it.
	Fail string `yaml:"fail"`
}

// Step is one request, or (Finish) the rest of an earlier one.
type Step struct {
	Name string `yaml:"name"`
	// After is how much time passes before the step.
	After time.Duration `yaml:"after"`
	// Pools replaces the facts about replicas from this step on. The replicas
	// must be those of the scenario.
	Pools map[string][]Replica `yaml:"pools"`
	// Companion changes the companion from this step on, once if the step is repeated.
	Companion *CompanionState `yaml:"companion"`
	Request   *Request        `yaml:"request"`
	Upstream  *Upstream       `yaml:"upstream"`
	// Hold leaves the request with its replica, which does not answer before
	// a later step names it in Finish.
	Hold   string `yaml:"hold"`
	Finish string `yaml:"finish"`
	Expect Expect `yaml:"expect"`
	// Repeat runs the step that often, once if absent; Expect holds each time.
	Repeat int `yaml:"repeat"`
	// Spread bounds how many of the repeated requests each replica gets: [min, max].
	Spread map[string][]int `yaml:"spread"`
}

// CompanionState is how the companion does.
type CompanionState struct {
	// Quota: "up"; "down" breaks off every call; "restarted" is up, and has forgotten everything.
	Quota string `yaml:"quota"`
}

// Request is what the client sends.
type Request struct {
	Method  string            `yaml:"method"` // POST if absent
	Path    string            `yaml:"path"`   // /v1/chat/completions if absent
	Headers map[string]string `yaml:"headers"`
	// Repeated are headers that stand several times, each value on a line of
	// its own.
	Repeated map[string][]string `yaml:"repeated"`
	// Body is sent as it is. $repeat in it stands for BodyRepeat.
	Body       string  `yaml:"body"`
	BodyRepeat *Repeat `yaml:"bodyRepeat"`
	// Encode sends the body in a content coding (gzip, br or zstd) and says so
	// in content-encoding.
	Encode string `yaml:"encode"`
	// Chunks are the sizes in which the body is sent; the rest goes in one.
	// With [0] it is sent byte by byte.
	Chunks []int `yaml:"chunks"`
	// Chunked sends no content-length.
	Chunked  bool              `yaml:"chunked"`
	Trailers map[string]string `yaml:"trailers"`
	// Unreadable is the number of the chunk, from 1, that the proxy does not hand
	// over to the filter. Only a wasm host can fail so.
	Unreadable int `yaml:"unreadable"`
	// Cancel is the point at which the client goes away: afterHeaders;
	// duringCall, while a callout is in progress; afterBody, when the replica has
	// the whole request and has not answered; duringResponse, after the
	// answer's first chunk; afterResponseHeaders, of which no chunk follows.
	Cancel string `yaml:"cancel"`
	// Patience is how long the client waits at that point, if it is afterBody or
	// afterResponseHeaders.
	Patience time.Duration `yaml:"patience"`
}

// Repeat is a text many times over.
type Repeat struct {
	Text  string `yaml:"text"`
	Times int    `yaml:"times"`
}

// Points at which a client goes away.
const (
	CancelAfterHeaders   = "afterHeaders"
	CancelDuringCall     = "duringCall"
	CancelAfterBody      = "afterBody"
	CancelDuringResponse = "duringResponse"

	CancelAfterResponseHeaders = "afterResponseHeaders"
)

// Upstream is what the replica answers when it has the whole request.
type Upstream struct {
	Status  int               `yaml:"status"` // 200 if absent
	Headers map[string]string `yaml:"headers"`
	Body    string            `yaml:"body"`
	// BodyRepeat is what $repeat in Body stands for.
	BodyRepeat *Repeat `yaml:"bodyRepeat"`
	Chunks     []int   `yaml:"chunks"` // as in Request
	// Events makes the body a stream of server-sent events with these data.
	Events   []string          `yaml:"events"`
	Trailers map[string]string `yaml:"trailers"`
	Delay    time.Duration     `yaml:"delay"`
	// Gap is the time between chunks.
	Gap time.Duration `yaml:"gap"`
	// Awaited is how many chunks the client must have got something of before the
	// next is sent, so that none of them comes together with the next.
	Awaited int `yaml:"awaited"`
	// Endless: after the last chunk nothing comes, and the end neither.
	Endless bool `yaml:"endless"`
	// Reset cuts the connection: beforeHeaders, or duringBody (after the first
	// chunk).
	Reset string `yaml:"reset"`
}

// Points at which a replica cuts the connection.
const (
	ResetBeforeHeaders = "beforeHeaders"
	ResetDuringBody    = "duringBody"
)

// Expect is what must have happened. What is absent is not looked at; a step
// that expects nothing at all is an error.
type Expect struct {
	// Status that the client got; 0 for none, because it or the gateway cut
	// the connection before.
	Status *int `yaml:"status"`
	// Cut: the client got the beginning of an answer and not its end.
	Cut *bool `yaml:"cut"`
	// Headers of the answer. null: absent; "*": there, with any value.
	Headers map[string]*string `yaml:"headers"`
	// Body of the answer, exactly.
	Body *string `yaml:"body"`
	// Events is the body as a stream of server-sent events with these data.
	Events []string `yaml:"events"`
	// Cancelled: the replica was told to stop before it had said all.
	Cancelled *bool `yaml:"cancelled"`
	// JSON is a subset of the answer's body: members that are not named are
	// not looked at, null also stands for an absent one.
	JSON any `yaml:"json"`
	// Pool that was chosen by the route; "none": no replica got the request.
	Pool string `yaml:"pool"`
	// Replica that got the request, or the list of those that may have.
	Replica OneOf   `yaml:"replica"`
	Arrived *Arrive `yaml:"arrived"`
	// Calls are the callouts of this request in order, without the companion's.
	Calls *[]ExpectedCall `yaml:"calls"`
	// Metrics is by how much series grew in this step: "name{label="v"}" of a
	// counter or gauge, "name_count{...}" and "name_sum{...}" of a histogram.
	Metrics map[string]int64 `yaml:"metrics"`
	// Trap: a wasm VM died. Else that is a failure of the step.
	Trap bool `yaml:"trap"`
}

// Arrive is what the replica must have got.
type Arrive struct {
	Headers map[string]*string `yaml:"headers"` // as in Expect
	// Body: "same" for what the client sent, "decoded" for that without its
	// content coding, else the body itself.
	Body *string `yaml:"body"`
	// Edited is the body that the client sent, without its content coding and
	// with these replacements: each key must stand in it exactly once.
	Edited   map[string]string `yaml:"edited"`
	Trailers map[string]string `yaml:"trailers"`
}

// ExpectedCall is a callout that must have been made.
type ExpectedCall struct {
	Cluster string             `yaml:"cluster"`
	Method  string             `yaml:"method"`
	Path    string             `yaml:"path"`
	Headers map[string]*string `yaml:"headers"`
	Body    *string            `yaml:"body"`
	JSON    any                `yaml:"json"`
}

// OneOf is one string, or the list of those that will do.
type OneOf []string

// NeedsProbe reports whether the scenario can be played only by a build that
// has the probe among its filters.
func (s *Scenario) NeedsProbe() bool { return strings.Contains(s.Config, "probe:") }

// Payload returns the body as it goes over the wire.
func (r *Request) Payload() []byte { return encode(r.Encode, r.Text()) }

// Text returns the body without its content coding.
func (r *Request) Text() []byte {
	return r.BodyRepeat.in(r.Body)
}

// in puts the repeated text into a body.
func (r *Repeat) in(body string) []byte {
	if r != nil {
		body = strings.ReplaceAll(body, "$repeat", strings.Repeat(r.Text, r.Times))
	}
	return []byte(body)
}

// Pieces cuts the request's payload as Chunks says. None if there is no body.
func (r *Request) Pieces() [][]byte { return cut(r.Payload(), r.Chunks) }

// Payload returns the answer's body as it goes over the wire.
func (u *Upstream) Payload() []byte {
	if u.Events == nil {
		return u.BodyRepeat.in(u.Body)
	}
	return bytes.Join(u.events(), nil)
}

// Pieces cuts the answer's payload as Chunks says; without Chunks each event
// is one piece.
func (u *Upstream) Pieces() [][]byte {
	if u.Chunks == nil && u.Events != nil {
		return u.events()
	}
	return cut(u.Payload(), u.Chunks)
}

func (u *Upstream) events() [][]byte { return asEvents(u.Events) }

// asEvents writes server-sent events.
func asEvents(all []string) [][]byte {
	events := make([][]byte, len(all))
	for i, data := range all {
		events[i] = []byte("data: " + data + "\n\n")
	}
	return events
}

// cut splits b into pieces of the given sizes, the last one as long as it is;
// [0] is one byte each.
func cut(b []byte, sizes []int) [][]byte {
	var pieces [][]byte
	if len(sizes) == 1 && sizes[0] == 0 {
		for i := range b {
			pieces = append(pieces, b[i:i+1])
		}
		return pieces
	}
	for _, n := range sizes {
		n = min(n, len(b))
		if n > 0 {
			pieces = append(pieces, b[:n])
		}
		b = b[n:]
	}
	if len(b) > 0 {
		pieces = append(pieces, b)
	}
	return pieces
}
