package main

import (
	"errors"
	"io"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// attributes is the name under which Envoy sends the configured attributes.
const attributes = "envoy.filters.http.ext_proc"

// exchange is one stream of Envoy's: a request and its response. It is the host of the chain, and collects the chain's
// effects into the reply to the current message.
type exchange struct {
	chain             *chain.Stream
	request, response headers
	body              []byte // of the request
	served            string

	headers []filter.HeaderEdit // effects
	edited  []byte
	edits   bool
	why     []byte
	local   *chain.LocalReply
}

// Process implements the service: it replies to each message before it reads the next.
func (s *server) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	x := s.exchanges.Get().(*exchange)
	begun := false
	defer func() {
		if begun {
			x.chain.Done()
		}
		x.forget()
		s.exchanges.Put(x)
	}()
	for {
		message, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
				return nil
			}
			return err
		}
		if h := message.GetRequestHeaders(); h != nil {
			x.request = h.GetHeaders().GetHeaders()
			x.chain.Begin(x)
			begun = true
		}
		reply, err := x.take(message)
		if err != nil {
			return err
		}
		if err := stream.Send(reply); err != nil {
			return err
		}
		if reply.GetImmediateResponse() != nil {
			return nil
		}
	}
}

func (x *exchange) forget() { *x = exchange{chain: x.chain} }

// take passes one message to the chain and returns the reply to it.
func (x *exchange) take(message *extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error) {
	x.headers, x.edited, x.edits, x.why, x.local = nil, nil, false, nil, nil
	reply := &extprocv3.ProcessingResponse{}
	switch m := message.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		x.chain.RequestHeaders(m.RequestHeaders.GetEndOfStream())
		reply.Response = &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{Response: x.effects(true)}}
	case *extprocv3.ProcessingRequest_RequestBody:
		x.body = m.RequestBody.GetBody()
		x.chain.RequestBody(x.body, m.RequestBody.GetEndOfStream())
		reply.Response = &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{Response: x.effects(true)}}
		x.body = nil
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		x.response = m.ResponseHeaders.GetHeaders().GetHeaders()
		x.served = message.GetAttributes()[attributes].GetFields()["upstream.address"].GetStringValue()
		x.chain.ResponseHeaders(m.ResponseHeaders.GetEndOfStream())
		reply.Response = &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{Response: x.effects(false)}}
	case *extprocv3.ProcessingRequest_ResponseBody:
		x.answerBody(m.ResponseBody.GetBody(), m.ResponseBody.GetEndOfStream())
		reply.Response = &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{Response: x.effects(false)}}
	default:
		return nil, status.Errorf(codes.InvalidArgument, "unexpected message of type %T: configure Envoy to send only headers and bodies", m)
	}
	if x.local != nil {
		reply.Response = &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: immediate(x.local)}
	}
	if len(x.why) > 0 {
		reply.DynamicMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{
			"inlet": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"why": structpb.NewStringValue(string(x.why))}}),
		}}
	}
	return reply, nil
}

func (x *exchange) answerBody(chunk []byte, end bool) {
	if n, with := x.chain.ResponseBody(chunk, end); n > 0 {
		x.edited, x.edits = append(append(make([]byte, 0, len(with)+len(chunk)-n), with...), chunk[n:]...), true
	}
}

// effects is the chain's reply to the current message, nil if it passes unchanged.
func (x *exchange) effects(reroute bool) *extprocv3.CommonResponse {
	if len(x.headers) == 0 && !x.edits {
		return nil
	}
	r := &extprocv3.CommonResponse{ClearRouteCache: reroute && len(x.headers) > 0}
	if len(x.headers) > 0 {
		r.HeaderMutation = mutation(x.headers)
	}
	if x.edits {
		r.BodyMutation = &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: x.edited}}
	}
	return r
}

// mutation converts header edits to Envoy's form. It puts all removals first, so only the last edit of each header
// counts.
func mutation(edits []filter.HeaderEdit) *extprocv3.HeaderMutation {
	m := &extprocv3.HeaderMutation{}
	for i := range edits {
		if e := &edits[i]; isLast(edits, i) {
			if e.Remove {
				m.RemoveHeaders = append(m.RemoveHeaders, e.Name)
			} else {
				m.SetHeaders = append(m.SetHeaders, set(e.Name, e.Value))
			}
		}
	}
	return m
}

func isLast(edits []filter.HeaderEdit, i int) bool {
	for _, later := range edits[i+1:] {
		if later.Name == edits[i].Name {
			return false
		}
	}
	return true
}

func set(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, RawValue: []byte(value)},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

func immediate(r *chain.LocalReply) *extprocv3.ImmediateResponse {
	m := &extprocv3.HeaderMutation{}
	for _, h := range r.Headers {
		m.SetHeaders = append(m.SetHeaders, set(h[0], h[1]))
	}
	return &extprocv3.ImmediateResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(r.Status)},
		Headers: m, Body: r.Body, Details: r.Detail,
	}
}

var _ chain.Host = (*exchange)(nil)

// headers reads a header map as Envoy sent it.
type headers []*corev3.HeaderValue

// Get implements filter.Headers.
func (h headers) Get(name string) (string, bool) { return h.At(name, 0) }

// At implements filter.Headers.
func (h headers) At(name string, n int) (string, bool) {
	for _, v := range h {
		if v.GetKey() != name {
			continue
		}
		if n > 0 {
			n--
			continue
		}
		return valueOf(v), true
	}
	return "", false
}

// Line implements filter.Headers.
func (h headers) Line(n int) (name, value string, ok bool) {
	if n >= len(h) {
		return "", "", false
	}
	return h[n].GetKey(), valueOf(h[n]), true
}

func valueOf(v *corev3.HeaderValue) string {
	if raw := v.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return v.GetValue()
}

// RequestHeaders implements chain.Host.
func (x *exchange) RequestHeaders() filter.Headers { return x.request }

// ResponseHeaders implements chain.Host.
func (x *exchange) ResponseHeaders() filter.Headers { return x.response }

// ApplyRequest implements chain.Host.
func (x *exchange) ApplyRequest(headers []filter.HeaderEdit, body []filter.BodyEdit) error {
	x.headers = headers
	if len(body) == 0 {
		return nil
	}
	var at int64
	for i := range body {
		x.edited = append(append(x.edited, x.body[at:body[i].Span.Start]...), body[i].With...)
		at = body[i].Span.End
	}
	x.edited, x.edits = append(x.edited, x.body[at:]...), true
	return nil
}

// ApplyResponse implements chain.Host.
func (x *exchange) ApplyResponse(headers []filter.HeaderEdit) { x.headers = headers }

// Reply implements chain.Host.
func (x *exchange) Reply(r *chain.LocalReply) { x.local = r }

// Call implements chain.Host.
func (x *exchange) Call(int, *filter.Call) error { return errors.New("this server makes no calls") }

// ResumeRequest implements chain.Host.
func (x *exchange) ResumeRequest() {}

// ResumeResponse implements chain.Host. No filter of the benchmark screens responses.
func (x *exchange) ResumeResponse([]byte) {}

// EndResponse implements chain.Host.
func (x *exchange) EndResponse() {}

// Subset implements chain.Host: the benchmark's Envoy sets no hint.
func (x *exchange) Subset(dst []string) ([]string, bool) { return dst, false }

// Metadata implements chain.Host.
func (x *exchange) Metadata(string, string) string { return "" }

// Client implements chain.Host.
func (x *exchange) Client() string { return "" }

// Served implements chain.Host.
func (x *exchange) Served() string { return x.served }

// Mark implements chain.Host.
func (x *exchange) Mark(uint64) {}

// Marked implements chain.Host.
func (x *exchange) Marked(uint64) bool { return false }

// RequestNow implements chain.Host: an external processor sees them only once.
func (x *exchange) RequestNow() filter.Headers { return nil }

// Stamp implements chain.Host.
func (x *exchange) Stamp() (uint64, bool) { return 0, false }

// Details implements chain.Host: an external processor does not get them.
func (x *exchange) Details() string { return "" }

// Attempts implements chain.Host.
func (x *exchange) Attempts() int { return 0 }

// Cluster implements chain.Host.
func (x *exchange) Cluster() string { return "" }

// Explain implements chain.Host.
func (x *exchange) Explain(why []byte) { x.why = why }
