package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

var _ chain.Host = (*exchange)(nil)

// RequestHeaders implements chain.Host.
func (x *exchange) RequestHeaders() filter.Headers { return &x.request }

// ResponseHeaders implements chain.Host.
func (x *exchange) ResponseHeaders() filter.Headers { return &x.response }

// ApplyRequest implements chain.Host. The host itself has the route selected again
// after an edit of a request header.
func (x *exchange) ApplyRequest(edits []filter.HeaderEdit, body []filter.BodyEdit) error {
	if len(body) > 0 {
		if err := x.replaceBody(body); err != nil {
			return err
		}
	}
	return x.request.apply(edits)
}

// ApplyResponse implements chain.Host.
func (x *exchange) ApplyResponse(edits []filter.HeaderEdit) {
	if err := x.response.apply(edits); err != nil {
		proxywasm.LogError("the answer's headers cannot be changed: " + err.Error())
	}
}

// replaceBody replaces the shortest prefix of the body that holds all edits,
// which is all that the host can do. A body whose edited part came in its first
// piece is not read a second time.
func (x *exchange) replaceBody(edits []filter.BodyEdit) error {
	end := int(edits[len(edits)-1].Span.End)
	prefix := x.first
	if end > len(prefix) {
		var err error
		if prefix, err = requestBody(0, end, &x.plugin.piece); err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
	}
	if end > len(prefix) {
		return fmt.Errorf("the body has %d bytes, the edits reach to %d", len(prefix), end)
	}
	x.plugin.splice = filter.Splice(x.plugin.splice[:0], prefix[:end], edits)
	if err := setRequestBody(end, x.plugin.splice); err != nil {
		return fmt.Errorf("replace the first %d bytes of the body: %w", end, err)
	}
	return nil
}

// Reply implements chain.Host.
func (x *exchange) Reply(r *chain.LocalReply) {
	if err := sendLocalResponse(r); err != nil {
		proxywasm.LogError("the refusal cannot be sent: " + err.Error())
	}
}

// Call implements chain.Host.
func (x *exchange) Call(number int, c *filter.Call) error {
	return dispatch(c.Cluster, chain.CallHeaders(c), c.Body, c.Timeout, func(r *filter.Reply) {
		if x.kit != nil { // else the exchange ended meanwhile
			x.stream.Reply(number, r)
		}
	})
}

// dispatch makes a call; done gets the answer unless an error is returned here.
// The answer comes in the plugin's context, also when the caller's is gone; the
// SDK goes back to the caller's context and drops the answer if it is.
func dispatch(cluster string, headers [][2]string, body []byte, timeout time.Duration, done func(*filter.Reply)) error {
	_, err := proxywasm.DispatchHttpCall(cluster, headers, body, nil, uint32(chain.Milliseconds(timeout)), func(headers, size, _ int) {
		done(readReply(headers, size))
	})
	switch {
	case errors.Is(err, types.ErrorStatusBadArgument):
		return chain.ErrNoCluster(cluster)
	case errors.Is(err, types.ErrorInternalFailure):
		return filter.ErrNotStarted
	}
	return err
}

// readReply reads the answer to a call, in whose callback alone it can be read.
func readReply(headers, size int) *filter.Reply {
	if headers == 0 {
		return &filter.Reply{Err: chain.ErrReset}
	}
	list, err := proxywasm.GetHttpCallResponseHeaders()
	if err != nil {
		return &filter.Reply{Err: err}
	}
	var head chain.ReplyHead
	for _, h := range list {
		head.Add(h[0], h[1])
	}
	var body []byte
	if size > 0 {
		if body, err = proxywasm.GetHttpCallResponseBody(0, size); err != nil {
			return &filter.Reply{Err: err}
		}
	}
	r := head.Reply(body)
	return &r
}

// ResumeRequest implements chain.Host.
func (x *exchange) ResumeRequest() {
	if err := proxywasm.ResumeHttpRequest(); err != nil {
		proxywasm.LogError("the request cannot go on: " + err.Error())
	}
}

// ResumeResponse implements chain.Host.
func (x *exchange) ResumeResponse(body []byte) {
	if len(body) > 0 {
		x.putResponse(0, body)
	}
	x.held = false
	if err := proxywasm.ResumeHttpResponse(); err != nil {
		proxywasm.LogError("the response cannot go on: " + err.Error())
	}
}

// EndResponse implements chain.Host.
func (x *exchange) EndResponse() { x.plugin.ended.add(x.id, x.plugin.clock.now()) }

// Properties by their paths, of which zero bytes separate the parts.
const (
	metadataPath     = "metadata\x00filter_metadata\x00"
	subsetHint       = metadataPath + filter.SubsetNamespace + "\x00" + filter.SubsetKey
	sourceAddress    = "source\x00address"
	requestTime      = "request\x00time"
	upstreamAddress  = "upstream\x00address"
	upstreamAttempts = "upstream\x00request_attempt_count"
	responseDetails  = "response\x00code_details"
	clusterName      = "xds\x00cluster_name"
	whyProperty      = "inlet.why"
)

// Subset implements chain.Host.
func (x *exchange) Subset(dst []string) (addresses []string, given bool) {
	value, err := property(subsetHint, &x.plugin.piece)
	if errors.Is(err, types.ErrorStatusNotFound) {
		return dst, false
	}
	if err != nil {
		return dst, true // something stands there that the host cannot hand over: a hint that nobody fits
	}
	return appendAddresses(dst, value), true
}

// Metadata implements chain.Host. A number or a list would come as bytes that are no text.
func (x *exchange) Metadata(namespace, key string) string {
	value := x.text(metadataPath + namespace + "\x00" + key)
	if !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0 {
		return ""
	}
	return value
}

// Client implements chain.Host.
func (x *exchange) Client() string { return x.text(sourceAddress) }

// appendAddresses reads a property that is a list or a string. The host writes a
// list as pairs with empty values: their number (u32), the sizes of each name
// and value (u32 each), then names and values with a zero behind each, all
// little-endian. Text has no zero in its first four bytes.
func appendAddresses(dst []string, value []byte) []string {
	if len(value) < 4 || value[3] != 0 {
		return chain.AppendAddresses(dst, string(value))
	}
	n := int(binary.LittleEndian.Uint32(value))
	sizes := value[4:]
	if 8*n > len(sizes) {
		return dst
	}
	data := string(sizes[8*n:])
	for i := range n {
		name := int(binary.LittleEndian.Uint32(sizes[8*i:]))
		whole := name + int(binary.LittleEndian.Uint32(sizes[8*i+4:])) + 2
		if whole > len(data) {
			return dst
		}
		dst = append(dst, data[:name])
		data = data[whole:]
	}
	return dst
}

// Mark implements chain.Host. A filter that stands behind this one in the filter
// chain sees the request next of all in this VM, which both have if their plugins
// have the same vm_id and code.
func (x *exchange) Mark(document uint64) { x.plugin.vm.passed = document }

// Marked implements chain.Host. That it is the same request, and not another that
// came next, is told by its filter state, which no client can write.
func (x *exchange) Marked(document uint64) bool {
	if x.plugin.vm.passed != document {
		return false
	}
	_, err := property(whyProperty, &x.plugin.piece)
	return err == nil
}

// RequestNow implements chain.Host. What the exchange has of the headers stays valid.
func (x *exchange) RequestNow() filter.Headers { return &headers{of: &requestMap} }

// Stamp implements chain.Host. It is the time at which Envoy began to read the request,
// in nanoseconds: 8 bytes, little-endian.
func (x *exchange) Stamp() (uint64, bool) {
	value, err := property(requestTime, &x.plugin.piece)
	if err != nil || len(value) != 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(value), true
}

// Served implements chain.Host.
func (x *exchange) Served() string { return x.text(upstreamAddress) }

// Details implements chain.Host.
func (x *exchange) Details() string { return x.text(responseDetails) }

// Cluster implements chain.Host.
func (x *exchange) Cluster() string { return x.text(clusterName) }

// text returns a property that is a string, "" if it is not there.
func (x *exchange) text(path string) string {
	value, err := property(path, &x.plugin.piece)
	if err != nil {
		return ""
	}
	return string(value)
}

// Attempts implements chain.Host. The host writes a number as 8 bytes, little-endian.
func (x *exchange) Attempts() int {
	value, err := property(upstreamAttempts, &x.plugin.piece)
	if err != nil || len(value) != 8 {
		return 0
	}
	return int(binary.LittleEndian.Uint64(value))
}

// Explain implements chain.Host. The access log shows the reason as
// %FILTER_STATE(wasm.inlet.why:PLAIN)%.
func (x *exchange) Explain(why []byte) {
	if len(why) == 0 {
		return
	}
	if err := setProperty(whyProperty, why); err != nil {
		proxywasm.LogDebug("no reason for the access log: " + err.Error())
	}
}
