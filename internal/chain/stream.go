package chain

import (
	"slices"
	"strconv"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Stream is one exchange on its way through the chain. An adapter calls the
// methods named after Envoy's callbacks, all on one thread, then Done; the
// Stream can be used again after the next Begin.
//
//	Begin → RequestHeaders → RequestBody… → RequestEnd ┐
//	            └ Hold until what is needed was read   ├ decide: OnRequest in order
//	        Reply (a held call was answered) ──────────┘   ├ Wait → Hold
//	ResponseHeaders → ResponseBody… → ResponseEnd          ├ Deny → refuse
//	Done (always, once)                                    └ Next… → release
//
// A request may be released before its body is complete. The rest is read as it passes, and a fault in it refuses the
// request before its last byte has gone on.
type Stream struct {
	c    *Chain
	host Host
	x    filter.Exchange

	request  llm.RequestScanner
	encoded  encodedBody
	response llm.ResponseScanner
	screen   screening
	calls    calls
	timing   timing

	state     state
	body      bodyUse
	reads     responseUse
	at        int   // slot whose turn it is in decide
	started   int   // slots of which a hook has run: these get OnDone
	bodyBytes int64 // request body bytes seen
	length    int64 // of the request body, as its headers say; -1 if they do not
	status    int   // status that the client gets
	complete  bool  // the response's end was seen
	asked     bool  // the replica was asked for the usage, and the client did not ask
}

// NewStream makes a Stream; Begin readies it.
func (c *Chain) NewStream() *Stream {
	s := &Stream{c: c}
	s.x.Reset(len(c.slots))
	return s
}

// Begin starts a new exchange. The one before, if any, is Done.
func (s *Stream) Begin(h Host) {
	s.host = h
	s.x.Start = s.c.deps.Now()
	s.x.RequestHeaders = h.RequestHeaders()
	s.to(reading)
	s.at, s.started, s.bodyBytes, s.status, s.complete = 0, 0, 0, 0, false
	s.body, s.reads, s.asked = bodyPasses, responsePasses, false
	s.timing = timing{}
}

// RequestHeaders runs the header phase. end: there is no body.
func (s *Stream) RequestHeaders(end bool) Action {
	x := &s.x
	x.Method, _ = x.RequestHeaders.Get(":method")
	x.Path, _ = x.RequestHeaders.Get(":path")
	if s.recall() {
		return s.release(released)
	}
	if s.dropControlHeaders() || s.c.passes(x.Path) {
		return s.bypass(bypassed)
	}
	if r := s.recognise(); r != nil {
		return s.refuse(r)
	}
	if x.API == llm.Unknown {
		return s.bypass(unmatched)
	}
	if r := s.prepareBody(); r != nil {
		return s.refuse(r)
	}
	x.Request = s.request.Request()
	if m := &s.c.metadata; m.key != "" {
		x.Metadata = s.host.Metadata(m.namespace, m.key)
	}
	if s.c.needs.Has(filter.NeedClient) {
		x.Client = withoutPort(s.host.Client())
	}
	for i := range s.c.slots {
		if s.ends(s.run(i, hookRequestHeaders, nil)) {
			return Replied
		}
	}
	switch {
	case s.body == bodyPasses:
		return s.decide()
	case end:
		return s.RequestEnd()
	}
	return Hold
}

// withoutPort returns the IP address of an ip:port.
func withoutPort(address string) string {
	if i := strings.LastIndexByte(address, ':'); i >= 0 && (strings.IndexByte(address, ']') > 0 || strings.Count(address, ":") == 1) {
		address = address[:i]
	}
	return strings.Trim(address, "[]")
}

// recognise finds out which API is called, llm.Unknown if none is and that does no harm.
func (s *Stream) recognise() *filter.Refusal {
	x := &s.x
	api, path := s.c.match(x.Path)
	if upgrades(x.RequestHeaders) && (api != llm.Unknown || llm.MatchAmong(realtime, path, s.c.pathPrefix) != llm.Unknown) {
		x.API = api
		return refuseUpgrade()
	}
	if !takes(api, x.Method) {
		api = llm.Unknown
	}
	if x.API = api; api == llm.Unknown {
		if s.c.strict {
			return refuseUnknownPath(x.Method)
		}
		return nil
	}
	if path != x.Path {
		x.Path = path
		x.SetRequestHeader(":path", path)
	}
	return nil
}

// RequestBody takes the next bytes of the body, each byte once. end: these are
// the last. With Continue, they and all that was held go on.
func (s *Stream) RequestBody(chunk []byte, end bool) Action {
	if !s.RequestPiece(chunk) {
		return Replied
	}
	switch {
	case end:
		return s.RequestEnd()
	case s.body != bodyReadPassing:
	case s.bodyBytes == s.length:
		return s.RequestEnd() // a server takes it for complete, though more callbacks may come
	case s.state == reading && s.request.Decided():
		return s.decide()
	}
	return s.standing()
}

// RequestPiece takes bytes of the body of which more have arrived: RequestBody
// follows before anything goes on. It reports whether the request goes on being
// read; if not, a reply was sent.
func (s *Stream) RequestPiece(chunk []byte) bool {
	if s.body == bodyPasses {
		return s.standing() != Replied
	}
	s.bodyBytes += int64(len(chunk))
	if s.bodyBytes > s.c.bodyLimit {
		s.refuse(refuseTooLarge(s.c.bodyLimit))
		return false
	}
	r := s.scan(chunk)
	if r == nil && s.body == bodyReadPassing {
		r = s.repeated()
	}
	if r != nil {
		s.refuse(r)
		return false
	}
	return true
}

// RequestEnd says that the body is complete; for bodies that end with trailers.
func (s *Stream) RequestEnd() Action {
	if s.body != bodyPasses {
		s.body = bodyPasses
		if r := s.endScan(); r != nil {
			return s.refuse(r)
		}
	}
	if s.state != reading {
		return s.standing()
	}
	return s.decide()
}

// RequestLost says that bytes of the body cannot be read. What nobody has read does
// not go on: the request is refused, or broken off if it had gone on already.
func (s *Stream) RequestLost() Action {
	if s.body != bodyPasses {
		s.refuse(refuseInternal())
	}
	return s.standing()
}

// WantsRequestBody reports whether RequestBody needs the bytes. When it does
// not, the adapter need not copy them.
func (s *Stream) WantsRequestBody() bool { return s.body != bodyPasses }

// Reply hands over the reply to a call. One that nobody waits for any more is ignored.
func (s *Stream) Reply(number int, r *filter.Reply) {
	c, ok := s.calls.answered(number)
	if !ok {
		return
	}
	r.Tag = c.tag
	switch {
	case c.beside:
		s.replyBeside(c.slot, r)
	case s.state == waiting:
		s.replyToRequest(r)
	default:
		s.replyToScreener(r)
	}
}

// replyToRequest is for a call for which the request is held.
func (s *Stream) replyToRequest(r *filter.Reply) {
	s.to(reading)
	if !s.settle(s.run(s.at, hookReply, r)) {
		return
	}
	if s.body != bodyPasses {
		s.body = bodyRead // what was held for a call waits for the body's end
		return
	}
	if s.decide() == Continue {
		s.host.ResumeRequest()
	}
}

// decide runs OnRequest of the filters that have not run yet, then lets the
// request go.
func (s *Stream) decide() Action {
	if s.at == 0 && s.c.needs.Has(filter.NeedSubset) {
		subset := &s.x.Subset
		subset.Addresses, subset.Given = s.host.Subset(subset.Addresses)
	}
	for s.at < len(s.c.slots) {
		if !s.settle(s.run(s.at, hookRequest, nil)) {
			return s.standing()
		}
	}
	return s.release(released)
}

// settle does what the verdict of the filter at s.at says and reports whether
// the next filter is to run.
func (s *Stream) settle(v filter.Verdict) bool {
	if s.ends(s.carryOut(s.at, hookReply, v)) {
		return false
	}
	if s.calls.held() {
		s.to(waiting)
		return false
	}
	s.at++
	return true
}

// ends replies to the client if the verdict says so.
func (s *Stream) ends(v filter.Verdict) bool {
	if r := v.Refusal(); r != nil {
		s.refuse(r)
		return true
	}
	if a := v.Answer(); a != nil {
		s.answer(a)
		return true
	}
	return false
}

// standing is what the adapter does while nothing changes.
func (s *Stream) standing() Action {
	switch s.state {
	case reading, waiting:
		return Hold
	case refused, unrouted, answered, done:
		return Replied // also when the reply ended the exchange at once
	}
	return Continue
}

// release lets the request go on; as is released, or why no filter sees it.
func (s *Stream) release(as state) Action {
	act := s.apply(as)
	if act == Continue && len(s.calls.later) > 0 {
		return s.startBeside()
	}
	return act
}

// apply applies the effects of a request that goes on.
func (s *Stream) apply(as state) Action {
	x := &s.x
	if as == released && x.Effects().Usage && s.body == bodyPasses {
		s.askUsage()
	}
	if s.wantsAnswer() {
		// One that comes compressed could not be read.
		if _, ok := x.RequestHeaders.Get("accept-encoding"); ok {
			x.RemoveRequestHeader("accept-encoding")
		}
	}
	e := x.Effects()
	start := s.clock()
	slices.SortFunc(e.Body, func(a, b filter.BodyEdit) int { return int(a.Span.Start - b.Span.Start) })
	if s.encoded.is() && as == released {
		s.sendDecoded()
	}
	if len(e.Body) > 0 {
		if _, ok := x.RequestHeaders.Get("content-length"); ok {
			length := s.bodyBytes
			if s.body != bodyPasses {
				length = s.length // which it has not reached
			}
			x.SetRequestHeader("content-length", strconv.FormatInt(length+growth(e.Body), 10))
		}
	}
	s.to(as)
	s.explainNews()
	if len(e.Request)+len(e.Body) == 0 {
		return Continue
	}
	if as == released {
		s.host.Mark(s.c.id)
	}
	err := s.host.ApplyRequest(e.Request, e.Body)
	if s.timing.edited = len(e.Body) > 0; s.timing.edited {
		s.timing.edit = s.since(start)
	}
	if err != nil {
		s.c.deps.Log(filter.Error, "the request could not be changed: "+err.Error())
		return s.refuse(refuseInternal())
	}
	return Continue
}

// explainNews shows the explanations to the access log, if there are new ones.
func (s *Stream) explainNews() {
	if why := s.x.News(); len(why) > 0 {
		s.host.Explain(why)
	}
}

// growth is by how many bytes the edits lengthen the body.
func growth(edits []filter.BodyEdit) (n int64) {
	for i := range edits {
		n += int64(len(edits[i].With)) - (edits[i].Span.End - edits[i].Span.Start)
	}
	return n
}

// bypass lets an exchange pass that no filter should see.
func (s *Stream) bypass(as state) Action {
	s.at = len(s.c.slots)
	return s.release(as)
}

// dropControlHeaders removes what a client may not say. Envoy has done so
// before; this is for bootstraps that forgot it. It reports whether the headers
// are from this document, which stands before in Envoy's filter chain, too.
func (s *Stream) dropControlHeaders() (own bool) {
	first := true
	for _, name := range s.c.control {
		if _, ok := s.x.RequestHeaders.Get(name); !ok {
			continue
		}
		if first && s.host.Marked(s.c.id) {
			return true
		}
		if first = false; s.c.trustControl {
			return false
		}
		s.x.RemoveRequestHeader(name)
	}
	return false
}
