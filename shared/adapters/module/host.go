package module

import (
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Where the reason is shown: as dynamic metadata for sinks that take structures,
// and as filter state under the key that the wasm build has, so that one access
// log format serves both.
const (
	whyNamespace = "inlet"
	whyKey       = "why"
	whyState     = "wasm.inlet.why"
	passedState  = "inlet.passed"
)

var _ chain.Host = (*stream)(nil)

// RequestHeaders are the headers as they came.
func (s *stream) RequestHeaders() filter.Headers { return &s.request }

// ResponseHeaders are the headers as they came from the replica.
func (s *stream) ResponseHeaders() filter.Headers { return &s.response }

// ApplyRequest edits the request and has its route selected again.
func (s *stream) ApplyRequest(headers []filter.HeaderEdit, body []filter.BodyEdit) error {
	if len(body) > 0 {
		if err := s.body.edit(s.handle.BufferedRequestBody(), body); err != nil {
			return err
		}
	}
	if len(headers) > 0 {
		apply(s.handle.RequestHeaders(), headers)
		s.handle.ClearRouteCache()
	}
	return nil
}

// ApplyResponse edits the answer's headers.
func (s *stream) ApplyResponse(headers []filter.HeaderEdit) {
	apply(s.handle.ResponseHeaders(), headers)
}

func apply(to shared.HeaderMap, edits []filter.HeaderEdit) {
	for i := range edits {
		if e := &edits[i]; e.Remove {
			to.Remove(e.Name)
		} else {
			to.Set(e.Name, e.Value)
		}
	}
}

// Reply answers the client.
func (s *stream) Reply(r *chain.LocalReply) {
	s.handle.SendLocalResponse(uint32(r.Status), r.Headers, r.Body, r.Detail)
}

// ResumeRequest lets a held request go on.
func (s *stream) ResumeRequest() { s.handle.ContinueRequest() }

// ResumeResponse lets a held response go on.
func (s *stream) ResumeResponse(body []byte) {
	s.putBefore(body)
	s.handle.ContinueResponse()
}

// EndResponse ends the client's response when what goes on now has done so. With it
// Envoy ends the request to the replica.
func (s *stream) EndResponse() {
	turn := s.turn
	s.handle.GetScheduler().Schedule(func() {
		if s.turn != turn {
			return // as in OnHttpCalloutDone: the stream may serve another exchange, on another thread
		}
		s.enter()
		defer s.leave()
		if !s.over && !s.gone {
			s.handle.SendResponseData(nil, true)
		}
	})
}

// Subset reads the hint from the dynamic metadata.
func (s *stream) Subset(dst []string) (addresses []string, given bool) {
	const from, ns, key = shared.MetadataSourceTypeDynamic, filter.SubsetNamespace, filter.SubsetKey
	if !s.hasMetadata(ns, key) {
		return dst, false
	}
	if text, ok := s.handle.GetMetadataString(from, ns, key); ok {
		return chain.AppendAddresses(dst, s.arena.copy(text)), true
	}
	n, _ := s.handle.GetMetadataListSize(from, ns, key)
	for i := range n {
		if address, ok := s.handle.GetMetadataListString(from, ns, key, i); ok {
			dst = append(dst, s.arena.copy(address))
		}
	}
	return dst, true
}

// hasMetadata reports whether there is a key in the dynamic metadata. Envoy logs a question for what is not there.
func (s *stream) hasMetadata(namespace, key string) bool {
	return slices.ContainsFunc(s.handle.GetMetadataKeys(shared.MetadataSourceTypeDynamic, namespace), func(k shared.UnsafeEnvoyBuffer) bool {
		return string(k.ToUnsafeBytes()) == key
	})
}

// Metadata reads a string from the dynamic metadata.
func (s *stream) Metadata(namespace, key string) string {
	if !s.hasMetadata(namespace, key) {
		return ""
	}
	value, ok := s.handle.GetMetadataString(shared.MetadataSourceTypeDynamic, namespace, key)
	if !ok {
		return ""
	}
	return s.arena.copy(value)
}

// Client is the address of the client.
func (s *stream) Client() string { return s.text(shared.AttributeIDSourceAddress) }

// Mark puts the document's number into the filter state of the stream, which
// no client can write; only if the document is in use twice, so that there may be
// somebody who reads it.
func (s *stream) Mark(document uint64) {
	if s.document().Twice() {
		s.handle.SetFilterState(passedState, binary.LittleEndian.AppendUint64(s.number[:0], document))
	}
}

// Marked looks for the number of a chain before this one.
func (s *stream) Marked(document uint64) bool {
	mark, ok := s.handle.GetFilterState(passedState)
	return ok && mark.Len == 8 && binary.LittleEndian.Uint64(mark.ToUnsafeBytes()) == document
}

// RequestNow reads the headers again: what the exchange has of them stays valid.
func (s *stream) RequestNow() filter.Headers {
	if s.gone {
		return nil
	}
	now := &headers{arena: new(arena)}
	now.reset(s.handle.RequestHeaders())
	return now
}

// Stamp is the number of the client's connection: the time of the request is not told
// to modules.
func (s *stream) Stamp() (uint64, bool) {
	if !s.tells() {
		return 0, false
	}
	id, ok := s.handle.GetAttributeNumber(shared.AttributeIDConnectionId)
	return uint64(id), ok
}

// Served is the address of the host that the router chose last.
func (s *stream) Served() string { return s.text(shared.AttributeIDUpstreamAddress) }

// Details are Envoy's response code details.
func (s *stream) Details() string {
	if !s.tells() {
		return ""
	}
	return s.text(shared.AttributeIDResponseCodeDetails)
}

// Cluster is the name of the cluster, which Envoy tells modules from 1.40 on.
func (s *stream) Cluster() string {
	if !s.tells() {
		return ""
	}
	return s.text(shared.AttributeIDXdsClusterName)
}

func (s *stream) text(id shared.AttributeID) string {
	if s.gone {
		return ""
	}
	value, ok := s.handle.GetAttributeString(id)
	if !ok {
		return ""
	}
	return s.arena.copy(value)
}

// attemptsHeader is how the router shows the attempts in the request, if the virtual host
// has include_request_attempt_count.
const attemptsHeader = "x-envoy-attempt-count"

// Attempts counts the attempts. Envoy 1.38 shows them in the request alone.
func (s *stream) Attempts() int {
	if s.tells() {
		n, _ := s.handle.GetAttributeNumber(shared.AttributeIDUpstreamRequestAttemptCount)
		return int(n)
	}
	n, err := strconv.Atoi(string(s.handle.RequestHeaders().GetOne(attemptsHeader).ToUnsafeBytes()))
	if err != nil {
		return 0
	}
	return n
}

// tells reports whether this Envoy tells modules how an exchange went, which all from
// 1.39 on do. 1.38 would log an error for every question: it is asked once.
func (s *stream) tells() bool {
	if s.gone {
		return false
	}
	told := &s.config.told
	if told.Load() == unasked {
		known := int32(silent)
		if _, ok := s.handle.GetAttributeNumber(shared.AttributeIDUpstreamRequestAttemptCount); ok {
			known = telling
		}
		told.Store(known)
	}
	return told.Load() == telling
}

// What is known of an Envoy, as tells has it.
const (
	unasked = iota
	silent
	telling
)

// Explain keeps the reason until the exchange is over: filter state can be
// written only once.
func (s *stream) Explain(why []byte) { s.why = append(s.why[:0], why...) }

func (s *stream) showWhy() {
	if len(s.why) == 0 {
		return
	}
	s.handle.SetMetadata(whyNamespace, whyKey, string(s.why))
	s.handle.SetFilterState(whyState, s.why)
}
