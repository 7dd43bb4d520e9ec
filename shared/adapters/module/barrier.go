package module

import (
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/chain"
)

// sorry is the answer to a request that met a defect.
func sorry(handle shared.HttpFilterHandle) {
	r := chain.InternalError()
	handle.SendLocalResponse(uint32(r.Status), r.Headers, r.Body, r.Detail)
}

// refuser stands for a filter that could not be made. Without it Envoy would let
// the request pass unseen.
type refuser struct {
	shared.EmptyHttpFilter
	handle shared.HttpFilterHandle
}

func (f *refuser) OnRequestHeaders(shared.HeaderMap, bool) (status shared.HeadersStatus) {
	defer dropped()
	status = shared.HeadersStatusStop // also if a panic comes
	sorry(f.handle)
	return status
}

// dropped is deferred where a panic cannot be reported.
func dropped() { _ = recover() }
