package wasm

import (
	"slices"
	"time"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"

	"github.com/inlet-proxy/inlet/internal/chain"
)

// endedStreams are exchanges whose response Inlet has ended. The host cannot end one
// early and cleanly: the client is given time to leave after the last event, then the
// exchange is reset, so that the replica stops.
type endedStreams struct{ list []endedStream }

type endedStream struct {
	id uint32
	at time.Time
}

func (e *endedStreams) add(id uint32, now time.Time) {
	e.list = append(e.list, endedStream{id, now.Add(chain.EndGrace)})
}

func (e *endedStreams) remove(id uint32) {
	if len(e.list) > 0 {
		e.list = slices.DeleteFunc(e.list, func(s endedStream) bool { return s.id == id })
	}
}

// cut resets those whose time is over.
func (e *endedStreams) cut(now time.Time) {
	for len(e.list) > 0 && !now.Before(e.list[0].at) {
		id := e.list[0].id
		e.list = slices.Delete(e.list, 0, 1)
		err := proxywasm.SetEffectiveContext(id)
		if err == nil {
			err = closeResponse()
		}
		if err != nil {
			proxywasm.LogWarn("an ended response cannot be cut: " + err.Error())
		}
	}
}
