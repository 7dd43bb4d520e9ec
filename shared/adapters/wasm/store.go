package wasm

import (
	"errors"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// sharedData is the kv.Store of all VMs of this Envoy that have the same vm_id.
type sharedData struct{}

var errEmptyValue = errors.New("an empty value cannot be stored: the SDK could not read it")

func (sharedData) Get(key string) ([]byte, uint32, error) {
	value, cas, err := proxywasm.GetSharedData(key)
	if errors.Is(err, types.ErrorStatusNotFound) {
		return nil, 0, kv.ErrNotFound
	}
	return value, cas, err
}

func (sharedData) Set(key string, value []byte, cas uint32) error {
	if len(value) == 0 {
		return errEmptyValue
	}
	err := proxywasm.SetSharedData(key, value, cas)
	if errors.Is(err, types.ErrorStatusCasMismatch) {
		return kv.ErrMismatch
	}
	return err
}
