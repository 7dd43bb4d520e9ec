package wasm

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/inlet-proxy/inlet/internal/chain"
)

// Host functions of the proxy-wasm ABI 0.2.1 that the SDK wraps only in part.

//go:wasmimport env proxy_set_buffer_bytes
func proxySetBufferBytes(buffer, start, size uint32, data *byte, dataSize uint32) uint32

//go:wasmimport env proxy_send_local_response
func proxySendLocalResponse(status uint32, detail *byte, detailSize uint32, body *byte, bodySize uint32,
	headers *byte, headersSize uint32, grpcStatus int32) uint32

//go:wasmimport env proxy_close_stream
func proxyCloseStream(stream uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(buffer, start, size uint32, data, dataSize unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_pairs
func proxyGetHeaderMapPairs(headers uint32, data, dataSize unsafe.Pointer) uint32

//go:wasmimport env proxy_get_property
func proxyGetProperty(path *byte, pathSize uint32, data, dataSize unsafe.Pointer) uint32

//go:wasmimport env proxy_set_property
func proxySetProperty(path *byte, pathSize uint32, value *byte, valueSize uint32) uint32

// handed is what the host hands over. It allocates the memory for it within the
// call, by malloc, and writes where it is. Not to a variable on the stack: that
// may be another by then.
var handed struct {
	into *[]byte // memory to be used again; nil for new one
	data *byte
	size uint32
}

// malloc is asked by the host for memory; hosts of the ABI prefer it to the SDK's
// proxy_on_memory_allocate. A body in memory of its own each time would be the
// most expensive allocation of a request.
//
//go:wasmexport malloc
func malloc(size uint32) *byte {
	if handed.into == nil {
		return unsafe.SliceData(make([]byte, size))
	}
	b := slices.Grow((*handed.into)[:0], int(size))
	*handed.into, handed.into = b, nil
	return unsafe.SliceData(b[:size])
}

// receive returns what call has the host hand over, nil if that is nothing. It is
// put into memory that into points to, which grows as needed; into new one if it
// is nil.
func receive(into *[]byte, call func(data, size unsafe.Pointer) uint32) ([]byte, error) {
	handed.into, handed.data, handed.size = into, nil, 0
	status := call(unsafe.Pointer(&handed.data), unsafe.Pointer(&handed.size))
	data := handed.data
	handed.into, handed.data = nil, nil
	if err := statusError(status); err != nil || data == nil {
		return nil, err
	}
	return unsafe.Slice(data, handed.size), nil
}

// requestBody returns n bytes of the request body from start on.
func requestBody(start, n int, into *[]byte) ([]byte, error) {
	const requestBody = 0
	return receive(into, func(data, size unsafe.Pointer) uint32 {
		return proxyGetBufferBytes(requestBody, uint32(start), uint32(n), data, size)
	})
}

// responseBody returns the first n bytes of the answer's piece that is in progress.
func responseBody(n int, into *[]byte) ([]byte, error) {
	const responseBody = 1
	return receive(into, func(data, size unsafe.Pointer) uint32 {
		return proxyGetBufferBytes(responseBody, 0, uint32(n), data, size)
	})
}

// headerPairs appends a header map to list. Its strings are good for as long as
// what into points to is not used again.
func headerPairs(kind mapKind, list [][2]string, into *[]byte) ([][2]string, error) {
	wire, err := receive(into, func(data, size unsafe.Pointer) uint32 {
		return proxyGetHeaderMapPairs(uint32(kind), data, size)
	})
	return appendPairs(list, wire), err
}

// property returns a property of the exchange, by its path.
func property(path string, into *[]byte) ([]byte, error) {
	return receive(into, func(data, size unsafe.Pointer) uint32 {
		return proxyGetProperty(unsafe.StringData(path), uint32(len(path)), data, size)
	})
}

// setProperty sets a property, which becomes filter state.
func setProperty(path string, value []byte) error {
	return statusError(proxySetProperty(unsafe.StringData(path), uint32(len(path)), unsafe.SliceData(value), uint32(len(value))))
}

// setRequestBody replaces the first n bytes of the request body. n must not be
// larger than the body. The SDK can replace a whole body only.
func setRequestBody(n int, data []byte) error {
	const requestBody = 0
	return statusError(proxySetBufferBytes(requestBody, 0, uint32(n), unsafe.SliceData(data), uint32(len(data))))
}

// setResponseBody replaces the first n bytes of the answer's piece in progress. n must not be larger than it.
func setResponseBody(n int, data []byte) error {
	const responseBody = 1
	return statusError(proxySetBufferBytes(responseBody, 0, uint32(n), unsafe.SliceData(data), uint32(len(data))))
}

// closeResponse resets the exchange of the effective context, towards the client and
// the replica.
func closeResponse() error {
	const response = 1
	return statusError(proxyCloseStream(response))
}

// sendLocalResponse answers the client. The SDK cannot set the details, which
// the access log shows as %RESPONSE_CODE_DETAILS%.
func sendLocalResponse(r *chain.LocalReply) error {
	const noGRPC = -1
	headers := marshalPairs(r.Headers)
	return statusError(proxySendLocalResponse(uint32(r.Status),
		unsafe.StringData(r.Detail), uint32(len(r.Detail)),
		unsafe.SliceData(r.Body), uint32(len(r.Body)),
		unsafe.SliceData(headers), uint32(len(headers)), noGRPC))
}

// hostError is the status of a call that failed. Some fail for most requests, so
// it is made a text of only when somebody reads it.
type hostError uint32

func (e hostError) Error() string { return fmt.Sprintf("host status %d", uint32(e)) }

// notFound is the status of what is not there (proxy-wasm ABI 0.2.0).
const notFound hostError = 1

// Is makes the one status that callers tell apart known by the SDK's name for it.
func (e hostError) Is(target error) bool {
	return e == notFound && target == types.ErrorStatusNotFound
}

func statusError(status uint32) error {
	if status == 0 {
		return nil
	}
	return hostError(status)
}
