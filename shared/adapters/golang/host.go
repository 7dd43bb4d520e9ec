package golang

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Where the reason is shown: as dynamic metadata for sinks that take structures,
// and as filter state under the key that the other builds have, so that one access
// log format serves all.
const (
	whyNamespace = "inlet"
	whyKey       = "why"
	whyState     = "wasm.inlet.why"
	passedState  = "inlet.passed"
)

// unknownCode is the gRPC status of refusals: a gRPC client must not take one for a success.
const unknownCode = 2

// endedStatus is that of a reply which nobody gets, since it comes after a response's headers: it cuts the connection.
const endedStatus = 502

var errShortBody = errors.New("an edit lies beyond the body")

var _ chain.Host = (*stream)(nil)

// RequestHeaders are the headers as they came.
func (s *stream) RequestHeaders() filter.Headers { return &s.request.headers }

// ResponseHeaders are the headers as they came from the replica.
func (s *stream) ResponseHeaders() filter.Headers { return &s.response.headers }

// ApplyRequest edits the request and has its route selected again.
func (s *stream) ApplyRequest(headers []filter.HeaderEdit, body []filter.BodyEdit) error {
	if len(body) > 0 {
		if err := s.request.edit(body); err != nil {
			return err
		}
	}
	if len(headers) > 0 {
		apply(s.request.headers.source, headers)
		s.envoy.ClearRouteCache()
	}
	return nil
}

// ApplyResponse edits the answer's headers.
func (s *stream) ApplyResponse(headers []filter.HeaderEdit) {
	apply(s.response.headers.source, headers)
}

func apply(to api.HeaderMap, edits []filter.HeaderEdit) {
	for i := range edits {
		if e := &edits[i]; e.Remove {
			to.Del(e.Name)
		} else {
			to.Set(e.Name, e.Value)
		}
	}
}

// Reply answers the client. Envoy takes that from a half of which it has shown something and that does not go on yet: if there is
// none, the reply waits for the next callback, which mostly brings the replica's response.
func (s *stream) Reply(r *chain.LocalReply) {
	from := s.current
	switch {
	case from != nil:
	case s.request.waits:
		from = &s.request
	case s.response.waits:
		from = &s.response
	default:
		s.pending = r
		return
	}
	s.replied, s.request.waits, s.response.waits = true, false, false
	sendReply(from.envoy, r)
}

func sendReply(envoy api.FilterProcessCallbacks, r *chain.LocalReply) {
	headers := make(map[string][]string, len(r.Headers))
	for _, h := range r.Headers {
		headers[h[0]] = append(headers[h[0]], h[1])
	}
	envoy.SendLocalReply(r.Status, string(r.Body), headers, unknownCode, r.Detail)
}

// ResumeRequest lets a held request go on.
func (s *stream) ResumeRequest() { s.request.resume() }

// ResumeResponse lets a held response go on.
func (s *stream) ResumeResponse(body []byte) {
	r := &s.response
	switch {
	case len(body) == 0:
	case r.chunk != nil:
		_ = r.chunk.Append(body)
	default:
		r.kept = append(r.kept, append([]byte(nil), body...))
	}
	if s.ending && r.phase == inData && !r.ended {
		s.end()
		return
	}
	r.resume()
}

// EndResponse has the response end when what goes on now has done so.
func (s *stream) EndResponse() { s.ending = true }

// Subset reads the hint from the dynamic metadata.
func (s *stream) Subset(dst []string) (addresses []string, given bool) {
	hint, given := s.envoy.StreamInfo().DynamicMetadata().Get(filter.SubsetNamespace)[filter.SubsetKey]
	switch hint := hint.(type) {
	case string:
		return chain.AppendAddresses(dst, hint), true
	case []any:
		for _, one := range hint {
			if address, ok := one.(string); ok {
				dst = append(dst, address)
			}
		}
	}
	return dst, given
}

// Metadata reads a string from the dynamic metadata.
func (s *stream) Metadata(namespace, key string) string {
	text, _ := s.envoy.StreamInfo().DynamicMetadata().Get(namespace)[key].(string)
	return text
}

// Client is the address of the client.
func (s *stream) Client() string { return s.envoy.StreamInfo().DownstreamRemoteAddress() }

// Mark puts the document's number into the filter state of the stream, which
// no client can write; only if the document is in use twice, so that there may be
// somebody who reads it.
func (s *stream) Mark(document uint64) {
	if s.config.Twice() {
		s.envoy.StreamInfo().FilterState().SetString(passedState, number(document), api.StateTypeMutable, api.LifeSpanFilterChain, api.None)
	}
}

// Marked looks for the number of a chain before this one.
func (s *stream) Marked(document uint64) bool {
	return s.envoy.StreamInfo().FilterState().GetString(passedState) == number(document)
}

func number(document uint64) string {
	return string(binary.LittleEndian.AppendUint64(nil, document))
}

// RequestNow reads the headers again. At the end of an exchange the API has them as attributes only.
func (s *stream) RequestNow() filter.Headers {
	if s.gone {
		return nil
	}
	return &attributes{s.envoy}
}

// attributes are headers that Envoy tells one by one, lines of the same name as one line.
type attributes struct{ envoy api.FilterCallbackHandler }

// Get returns a header.
func (a *attributes) Get(name string) (string, bool) {
	value, err := a.envoy.GetProperty("request.headers." + name)
	return value, err == nil
}

// At returns a header as its first value.
func (a *attributes) At(name string, n int) (string, bool) {
	if n > 0 {
		return "", false
	}
	return a.Get(name)
}

// Line finds none: nobody asks for them at the end.
func (a *attributes) Line(int) (name, value string, ok bool) { return "", "", false }

// Stamp is the time at which Envoy began to read the request, in nanoseconds.
func (s *stream) Stamp() (uint64, bool) {
	value, err := s.envoy.GetProperty("request.time")
	if err != nil {
		return 0, false
	}
	at, err := time.Parse(time.RFC3339Nano, value)
	return uint64(at.UnixNano()), err == nil
}

// Served is the address of the host that the router chose last.
func (s *stream) Served() string { return s.ask(api.StreamInfo.UpstreamRemoteAddress) }

// Details are Envoy's response code details.
func (s *stream) Details() string { return s.ask(api.StreamInfo.ResponseCodeDetails) }

// Cluster is the name of the cluster.
func (s *stream) Cluster() string { return s.ask(api.StreamInfo.UpstreamClusterName) }

// ask asks Envoy for a fact, which it does not tell while it has shown nothing of this exchange and waits: the API panics.
func (s *stream) ask(what func(api.StreamInfo) (string, bool)) (value string) {
	defer func() { _ = recover() }()
	if !s.gone {
		value, _ = what(s.envoy.StreamInfo())
	}
	return value
}

// Attempts counts the attempts.
func (s *stream) Attempts() (n int) {
	s.ask(func(info api.StreamInfo) (string, bool) {
		n = int(info.AttemptCount())
		return "", true
	})
	return n
}

// Explain keeps the reason until the exchange is over.
func (s *stream) Explain(why []byte) { s.why = append(s.why[:0], why...) }

func (s *stream) showWhy() {
	if len(s.why) == 0 || s.gone {
		return
	}
	info, why := s.envoy.StreamInfo(), string(s.why)
	info.DynamicMetadata().Set(whyNamespace, whyKey, why)
	info.FilterState().SetString(whyState, why, api.StateTypeMutable, api.LifeSpanFilterChain, api.None)
}
