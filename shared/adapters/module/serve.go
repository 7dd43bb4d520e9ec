package module

import (
	"fmt"
	"strings"

	sdk "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go"
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// FilterName is the filter_name under which Envoy finds Inlet in the module, with all filters. Each of them is also
// found alone, by its own name.
const FilterName = "inlet"

// Serve makes the known filters available to Envoy. Call it once, from an init
// function of the module's main package.
func Serve(known ...filter.Factory) {
	native.BoundThreads()
	native.BoundGarbage()
	sdk.RegisterHttpFilterConfigFactories(loaders(known, newProcess(known)))
	if onServe != nil {
		onServe(names(known))
	}
}

var onServe func(names string)

// OnServe has Serve report the filter names that there then are. For package export.
func OnServe(report func(names string)) { onServe = report }

// loaders are what Envoy finds in the module, by filter_name. They share the process.
func loaders(known []filter.Factory, p *process) map[string]shared.HttpFilterConfigFactory {
	all := map[string]shared.HttpFilterConfigFactory{FilterName: &loader{known: known, process: p}}
	for i := range known {
		all[known[i].Name] = &loader{known: known[i : i+1], process: p}
	}
	all[""] = unnamed(names(known))
	return all
}

// names are the filter names that Envoy finds.
func names(known []filter.Factory) string {
	all := []string{FilterName}
	for i := range known {
		all = append(all, known[i].Name)
	}
	return strings.Join(all, ", ")
}

// loader makes a config of each document that Envoy hands over. Envoy calls it
// on its main thread.
type loader struct {
	known   []filter.Factory
	process *process
}

// Create reads the document: YAML or JSON, as bytes of whatever message the
// filter_config was (StringValue, BytesValue, Struct). Envoy refuses the
// configuration if it fails, and keeps the one it had.
func (l *loader) Create(handle shared.HttpFilterConfigHandle, document []byte) (f shared.HttpFilterFactory, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, unreadable(p)
		}
	}()
	c, err := newConfig(handle, document, l.known, l.process)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// CreatePerRoute reads the document of a route (DynamicModuleFilterPerRoute), which replaces the listener's for the
// requests of the route. Envoy refuses the routes if it fails, and keeps those it had.
func (l *loader) CreatePerRoute(document []byte) (f any, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, unreadable(p)
		}
	}()
	r, err := newRouted(document, l.known, l.process)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func unreadable(p any) error {
	return fmt.Errorf("the configuration could not be read: %s", native.Describe(p))
}

// unnamed stands for a filter_name that is missing. It holds those that there are.
type unnamed string

// Create refuses.
func (u unnamed) Create(shared.HttpFilterConfigHandle, []byte) (shared.HttpFilterFactory, error) {
	defer dropped()
	return nil, fmt.Errorf("filter_name is missing; known: %s", string(u))
}

// CreatePerRoute refuses.
func (u unnamed) CreatePerRoute([]byte) (any, error) {
	defer dropped()
	return nil, fmt.Errorf("filter_name is missing; known: %s", string(u))
}
