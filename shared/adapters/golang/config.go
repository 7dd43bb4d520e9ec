package golang

import (
	"errors"
	"fmt"
	"sync"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// config is one configured chain. All workers of Envoy use it at once.
type config struct {
	*native.Config
	clusters map[string]*cluster
	stats    *stats
	loop     *loop
	streams  sync.Pool // of *stream
}

// parser makes a config of each plugin_config that Envoy hands over.
type parser struct {
	known   []filter.Factory
	process *native.Process
	totals  *totals
}

var _ api.StreamFilterConfigParser = (*parser)(nil)

// Parse reads the configuration of a filter, or of a route, for which Envoy gives no callbacks. Envoy refuses the
// configuration if it fails, and keeps the one it had. But that of a route it may hand over in the
// midst of a request, and ends if that fails: then all requests of the route are refused.
func (p *parser) Parse(message *anypb.Any, envoy api.ConfigCallbackHandler) (made any, err error) {
	defer func() {
		if v := recover(); v != nil {
			made, err = nil, fmt.Errorf("the configuration could not be read: %s", native.Describe(v))
		}
		if err != nil && envoy == nil && !onMainThread() {
			log(filter.Critical, "all requests of a route are refused, since its configuration cannot be used: "+err.Error())
			made, err = &config{}, nil
		}
	}()
	return p.configure(message, envoy)
}

func (p *parser) configure(message *anypb.Any, envoy api.ConfigCallbackHandler) (*config, error) {
	set, err := readSettings(message)
	if err != nil {
		return nil, tell(err)
	}
	c := &config{clusters: set.clusters, stats: &stats{totals: p.totals}}
	c.loop = newLoop(c)
	if envoy != nil {
		c.stats.bind(envoy)
	}
	env := native.Env{Log: log, Metrics: c.stats, Anytime: true, Check: func() error { return missing(set.document, set.clusters, envoy == nil) }}
	if envoy != nil { // else it is of a route, which learns of the replicas from the filter's
		env.Main = func() native.Main { return c.loop }
	}
	c.Config, err = p.process.Configure(set.document, p.known, env)
	if err != nil {
		return nil, err
	}
	c.stats.show()
	c.streams.New = func() any { return newStream(c) }
	return c, nil
}

// tell logs every mistake on a line of its own.
func tell(err error) error {
	var mistakes conf.Errors
	if !errors.As(err, &mistakes) {
		return err
	}
	for _, m := range mistakes {
		log(filter.Error, "configuration: "+m.Error())
	}
	return fmt.Errorf("the plugin_config has %d mistake(s), all of them logged", len(mistakes))
}

// Destroy is called when Envoy has dropped the configuration, on any thread. Exchanges may still use it.
func (c *config) Destroy() {
	if c.Config == nil {
		return
	}
	defer c.caught()
	c.Close()
	c.loop.end()
	c.stats.forget()
	for _, to := range c.clusters {
		to.client.CloseIdleConnections()
	}
}

// caught is deferred where there is no exchange: a panic is told and goes no further.
func (c *config) caught() {
	if p := recover(); p != nil {
		c.Panicked(p)
	}
}

// Merge has the configuration of a route replace the one above. It ends with the route's own.
func (p *parser) Merge(above, route any) any {
	from, to := configOf(above), configOf(route)
	if from != nil && to != nil && from.stats != nil && to.stats != nil {
		if envoy := from.stats.from.Load(); envoy != nil {
			to.stats.bind(*envoy)
		}
		if to.Unheard() {
			log(filter.Warn, "the configuration of a route names companion cluster "+to.Chain.Companion().Cluster+
				", which no filter's configuration names: nobody asks it")
		}
	}
	return merged{to}
}

// merged is a route's configuration in use. It is not an api.Config.
type merged struct{ config *config }

// configOf returns the configuration that Parse or Merge has made, nil if there is none.
func configOf(made any) *config {
	switch c := made.(type) {
	case *config:
		return c
	case merged:
		return c.config
	}
	return nil
}

// log writes to Envoy's log; from any thread.
func log(l filter.Level, message string) {
	write := [...]func(string){
		filter.Debug:    api.LogDebug,
		filter.Info:     api.LogInfo,
		filter.Warn:     api.LogWarn,
		filter.Error:    api.LogError,
		filter.Critical: api.LogCritical,
	}
	write[min(int(l), len(write)-1)]("inlet: " + message)
}
