package wasm

import (
	"errors"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/inlet-proxy/inlet/internal/chain"
)

// exchange turns the callbacks of one HTTP exchange into calls of its
// chain.Stream. Its other half, the chain.Host, is in host.go.
type exchange struct {
	types.DefaultHttpContext
	plugin *plugin
	id     uint32
	*kit   // nil before the request's headers and after the end

	size int  // bytes of the request body that the chain has seen
	body bool // a body callback came
	held bool // the response's body is held, by an empty buffer
}

// kit is what exchanges use one after the other.
type kit struct {
	stream   *chain.Stream
	request  headers
	response headers
	first    []byte // the body's first piece, which mostly is the whole of it
}

func (x *exchange) OnHttpRequestHeaders(_ int, end bool) types.Action {
	x.kit = x.plugin.newKit()
	x.stream.Begin(x)
	return action(x.stream.RequestHeaders(end))
}

func (x *exchange) OnHttpRequestBody(size int, end bool) types.Action {
	if x.kit == nil {
		return types.ActionContinue
	}
	x.body = true
	if !x.stream.WantsRequestBody() {
		return action(x.stream.RequestBody(nil, end))
	}
	chunk, err := x.news(size)
	if err != nil {
		proxywasm.LogError("the request body cannot be read: " + err.Error())
		return action(x.stream.RequestLost())
	}
	a := x.stream.RequestBody(chunk, end)
	if a == chain.Continue {
		x.size = 0 // what comes now comes by itself
	}
	return action(a)
}

// news returns the bytes that the chain has not seen yet; size is that of all
// that is held, and what has just come.
func (x *exchange) news(size int) ([]byte, error) {
	if size <= x.size {
		return nil, nil
	}
	into := &x.plugin.piece
	if x.size == 0 {
		into = &x.first
	}
	chunk, err := requestBody(x.size, size-x.size, into)
	if err == nil && len(chunk) < size-x.size {
		err = errShort
	}
	if err != nil {
		return nil, err
	}
	if x.size == 0 {
		x.first = chunk
	}
	x.size = size
	return chunk, nil
}

var errShort = errors.New("the host hands over less than there is")

func (x *exchange) OnHttpRequestTrailers(int) types.Action {
	if x.kit == nil {
		return types.ActionContinue
	}
	return action(x.stream.RequestEnd())
}

func (x *exchange) OnHttpResponseHeaders(_ int, end bool) types.Action {
	if x.kit == nil {
		return types.ActionContinue
	}
	x.response.forget() // a local reply may follow upon an answer
	return action(x.stream.ResponseHeaders(end))
}

func (x *exchange) OnHttpResponseBody(size int, end bool) types.Action {
	if x.kit == nil {
		return types.ActionContinue
	}
	var chunk []byte
	if size > 0 && x.stream.WantsResponseBody() {
		var err error
		if chunk, err = responseBody(size, &x.plugin.piece); err == nil && len(chunk) < size {
			err = errShort
		}
		if err != nil {
			proxywasm.LogError("the response cannot be read: " + err.Error())
			x.putResponse(x.stream.ResponseLost(size))
			return x.holds()
		}
	}
	if n, with := x.stream.ResponseBody(chunk, end); n > 0 || len(with) > 0 { // the end may come without bytes
		x.putResponse(n, with)
	}
	return x.holds()
}

// putResponse replaces the first n bytes of the response's piece that is in progress.
func (x *exchange) putResponse(n int, with []byte) {
	if err := setResponseBody(n, with); err != nil {
		proxywasm.LogError("the response cannot be changed: " + err.Error())
	}
}

// actionPauseBounded pauses a body as ActionPause does, but when the host's buffer is full it reads no more of the replica's: ActionPause
// fails then. What is in the buffer is not shown again. The SDK does not name it (StopIterationAndWatermark).
const actionPauseBounded types.Action = 2

// holds is the action after a callback of the response. While it is held the host's buffer is
// empty: the chain has the bytes, and bounds them. While it is stopped the host has them.
func (x *exchange) holds() types.Action {
	x.held = x.stream.HoldsResponse()
	switch {
	case x.held:
		return types.ActionPause
	case x.stream.StopsResponse():
		return actionPauseBounded
	}
	return types.ActionContinue
}

// OnHttpResponseTrailers can put bytes before the trailers only into a buffer that is held. What
// is left then is of a stream that lacks its last event: it is cut instead.
func (x *exchange) OnHttpResponseTrailers(int) types.Action {
	if x.kit == nil {
		return types.ActionContinue
	}
	with := x.stream.ResponseEnd()
	switch {
	case len(with) == 0:
	case x.held:
		x.putResponse(0, with)
	default:
		proxywasm.LogWarn("a stream ended with trailers and without its last event: what was withheld of it is lost")
		if err := closeResponse(); err != nil {
			proxywasm.LogError("the response cannot be cut: " + err.Error())
		}
		return types.ActionPause
	}
	return x.holds()
}

// OnHttpStreamDone comes once for every exchange, however it ended.
func (x *exchange) OnHttpStreamDone() {
	if x.kit == nil {
		return
	}
	if !x.body && x.stream.WantsRequestBody() {
		x.plugin.vm.warnOfHang()
	}
	x.stream.Done()
	x.plugin.ended.remove(x.id)
	x.plugin.keep(x.kit)
	x.kit = nil
}

// warnOfHang names the one setting without which everything waits forever. A
// client that leaves right after its headers looks the same, so it is a guess.
func (v *vm) warnOfHang() {
	if v.warned {
		return
	}
	v.warned = true
	proxywasm.LogWarn("a request ended before any of its body came. If requests with a body hang, " +
		"the plugin's configuration in Envoy lacks allow_on_headers_stop_iteration: true (this is said once)")
}

func action(a chain.Action) types.Action {
	if a == chain.Continue {
		return types.ActionContinue
	}
	return types.ActionPause
}
