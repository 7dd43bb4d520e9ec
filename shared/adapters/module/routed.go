package module

import (
	"runtime"
	"sync"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// routed is the chain of a route's document (DynamicModuleFilterPerRoute). It replaces that of the listener for the
// requests that have the route when their headers come to Inlet, until their end.
//
// The SDK does not tell when Envoy drops it. Exchanges hold it as long as they need it, and when nobody does any more
// Go's garbage collector finds it.
type routed struct {
	*native.Config
	streams sync.Pool // of *chain.Stream
}

func newRouted(document []byte, known []filter.Factory, p *process) (*routed, error) {
	made, err := p.Configure(document, known, native.Env{Log: p.log.write, Metrics: p.metrics})
	if err != nil {
		return nil, err
	}
	r := &routed{Config: made}
	r.streams.New = func() any { return made.Chain.NewStream() }
	p.routes.Add(1)
	runtime.AddCleanup(r, func(c *native.Config) {
		defer caught(c)
		p.routes.Add(-1)
		c.Close()
	}, made)
	return r, nil
}

// route has the exchange run the chain of its route, if that has one.
func (s *stream) route() {
	if s.config.process.routes.Load() == 0 {
		return
	}
	r, ok := s.handle.GetMostSpecificConfig().(*routed)
	if !ok {
		return
	}
	s.routed, s.chain = r, r.streams.Get().(*chain.Stream)
	if r.Unheard() && s.config.warned.CompareAndSwap(false, true) {
		s.config.Log(filter.Warn, "the configuration of a route names companion cluster "+r.Chain.Companion().Cluster+
			", which no listener's configuration names: nobody asks it")
	}
}

// unroute gives back the chain of the route.
func (s *stream) unroute() {
	if s.routed != nil {
		s.routed.streams.Put(s.chain)
		s.routed, s.chain = nil, s.own
	}
}

// document is the configuration whose chain the exchange runs.
func (s *stream) document() *native.Config {
	if s.routed != nil {
		return s.routed.Config
	}
	return s.config.Config
}
