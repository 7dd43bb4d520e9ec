package wasm

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/inlet-proxy/inlet/shared/chain"
)

// Host functions of the proxy-wasm ABI 0.2.1 that the SDK wraps only in part.

//go:wasmimport env proxy_set_buffer_bytes
func proxySetBufferBytes(buffer, start, size uint32, data *byte, dataSize uint32) uint32

//go:wasmimport env proxy_send_local_response
func proxySendLocalResponse(status uint32, detail *byte, detailSize uint32, body *byte, bodySize uint32,
	headers *byte, headersSize uint32, grpcStatus int32) uint32

// setRequestBody replaces the first n bytes of the request body. n must not be
// larger than the body. The SDK can replace a whole body only.
func setRequestBody(n int, data []byte) error {
	const requestBody = 0
	return statusError(proxySetBufferBytes(requestBody, 0, uint32(n), unsafe.SliceData(data), uint32(len(data))))
}

// setResponseBody replaces the first n bytes of the answer's piece that is under
// way. n must not be larger than it.
func setResponseBody(n int, data []byte) error {
	const responseBody = 1
	return statusError(proxySetBufferBytes(responseBody, 0, uint32(n), unsafe.SliceData(data), uint32(len(data))))
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

// marshalPairs writes a header map as the ABI wants it: count, all lengths, then
// all strings, each ended by a zero byte.
func marshalPairs(pairs [][2]string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(pairs)))
	for _, p := range pairs {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p[0])))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p[1])))
	}
	for _, p := range pairs {
		b = append(append(b, p[0]...), 0)
		b = append(append(b, p[1]...), 0)
	}
	return b
}

func statusError(status uint32) error {
	if status == 0 {
		return nil
	}
	return fmt.Errorf("host status %d", status)
}
