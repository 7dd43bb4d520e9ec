package module

import (
	"sync"
	"sync/atomic"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/adapters/module/balancer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// config is one configured chain. All workers of Envoy use it at once.
type config struct {
	*native.Config
	process *process
	numbers []shared.MetricID // Envoy's, of the recorder's metrics
	shown   atomic.Int64      // series of the recorder that Envoy has for this configuration
	streams sync.Pool         // of *stream
	warned  atomic.Bool       // that a route names a companion which nobody asks
	told    atomic.Int32      // whether Envoy tells how exchanges went: see stream.tells
}

// newConfig reads a document and makes its chain. It does no I/O: what needs
// the network starts with the first turn of Envoy's main loop.
func newConfig(handle shared.HttpFilterConfigHandle, document []byte, known []filter.Factory, p *process) (*config, error) {
	c, log := &config{process: p}, logger(handle)
	p.log.leads(log)
	var err error
	if c.numbers, err = p.metrics.numbers(handle); err != nil {
		return nil, err
	}
	c.Config, err = p.Configure(document, known, native.Env{
		Log:     log,
		Metrics: p.metrics,
		Main:    func() native.Main { return &mainLoop{handle.GetScheduler(), c, handle} },

		PassedOver: balancer.Shared.PassedOver,
	})
	if err != nil {
		return nil, err
	}
	c.streams.New = func() any { return newStream(c) }
	return c, nil
}

// Create makes the filter of one exchange.
func (c *config) Create(handle shared.HttpFilterHandle) (f shared.HttpFilter) {
	defer func() {
		if p := recover(); p != nil {
			c.Panicked(p)
			f = &refuser{handle: handle}
		}
	}()
	s := c.streams.Get().(*stream)
	s.handle = handle
	return s
}

// OnDestroy runs when the last exchange of this configuration is over and Envoy
// has dropped it, on any thread.
func (c *config) OnDestroy() {
	defer caught(c.Config)
	c.Log(filter.Debug, "a configuration is no longer in use")
	c.Close()
}

// caught is deferred where there is no exchange: a panic is told and goes no further.
func caught(c *native.Config) {
	if p := recover(); p != nil {
		c.Panicked(p)
	}
}

// logger writes to Envoy's log; from any thread.
func logger(handle shared.HttpFilterConfigHandle) func(filter.Level, string) {
	levels := [...]shared.LogLevel{
		filter.Debug:    shared.LogLevelDebug,
		filter.Info:     shared.LogLevelInfo,
		filter.Warn:     shared.LogLevelWarn,
		filter.Error:    shared.LogLevelError,
		filter.Critical: shared.LogLevelCritical,
	}
	return func(l filter.Level, message string) {
		handle.Log(levels[min(int(l), len(levels)-1)], "inlet: %s", message)
	}
}
