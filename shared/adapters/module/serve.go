package module

import (
	"errors"
	"fmt"

	sdk "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go"
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// FilterName is the filter_name under which Envoy finds Inlet in the module.
const FilterName = "inlet"

// Serve makes the known filters available to Envoy. Call it once, from an init
// function of the module's main package.
func Serve(known ...filter.Factory) {
	native.BoundThreads()
	sdk.RegisterHttpFilterConfigFactories(map[string]shared.HttpFilterConfigFactory{
		FilterName: &loader{known: known, process: native.NewProcess()},
	})
}

// loader makes a config of each document that Envoy hands over. Envoy calls it
// on its main thread.
type loader struct {
	known   []filter.Factory
	process *native.Process
}

// Create reads the document: YAML or JSON, as bytes of whatever message the
// filter_config was (StringValue, BytesValue, Struct). Envoy refuses the
// configuration if it fails, and keeps the one it had.
func (l *loader) Create(handle shared.HttpFilterConfigHandle, document []byte) (f shared.HttpFilterFactory, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("the configuration could not be read: %s", native.Describe(p))
		}
	}()
	c, err := newConfig(handle, document, l.known, l.process)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// CreatePerRoute refuses: there is one document, and what differs by route is
// said in it.
func (l *loader) CreatePerRoute([]byte) (any, error) {
	return nil, errors.New("inlet takes no configuration per route")
}
