package guardrail

import (
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// remote is a service that judges text, and how it is called.
type remote struct {
	name          string
	protocol      provider.Provider
	cluster, host string
	timeout       time.Duration
	failOpen      bool
	retries       int
	failures      int           // in a row that open the breaker; 0: there is none
	open          time.Duration // how long
	breaker       *breaker
	cache         *cache // nil: verdicts are not kept
}

func readRemote(o *conf.Object, p provider.Protocol) *remote {
	r := &remote{protocol: p.Read(o)}
	o.Required("cluster")
	o.String("cluster", &r.cluster, conf.NotEmpty)
	r.host = r.protocol.Host()
	o.String("host", &r.host, conf.Authority)
	return r
}

// mode is what happens when the service has not judged.
func (r *remote) mode() filter.FailureMode {
	if r.failOpen {
		return filter.FailOpen
	}
	return filter.FailClosed
}

// protocolNames are those of all protocols, for messages.
func protocolNames() string {
	var names []string
	for _, p := range provider.Protocols {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// redacts reports whether a finding can be redacted.
func (p *source) redacts() bool { return p.remote == nil || p.remote.protocol.Redacts() }

// callKeys are for providers that are called.
var callKeys = []string{"timeout", "failureMode", "retries", "breaker", "cache"}

// readCalls reads how the service is called.
func (p *source) readCalls(o *conf.Object, d *filter.Deps) {
	r := p.remote
	if r == nil {
		for _, key := range callKeys {
			if o.Has(key) {
				o.Errorf(key, "applies to remote providers only, and this one is not")
			}
		}
		return
	}
	r.name, r.timeout, r.retries, r.failures, r.open = p.name, time.Second, 1, 5, 10*time.Second
	o.Duration("timeout", &r.timeout, time.Millisecond, time.Minute)
	mode := string(filter.FailClosed)
	o.Enum("failureMode", &mode, string(filter.FailOpen), string(filter.FailClosed))
	r.failOpen = mode == string(filter.FailOpen)
	o.Int("retries", &r.retries, 0, 5)
	o.Object("breaker", func(o *conf.Object) {
		o.Int("failures", &r.failures, 0, 1000)
		o.Duration("open", &r.open, 100*time.Millisecond, 10*time.Minute)
	})
	var keep time.Duration
	o.Duration("cache", &keep, 0, time.Minute)
	if keep > 0 {
		r.cache = newCache(keep, d.Mutex())
	}
	r.breaker = breakerOf(d, r.cluster, r.name)
}
