package chain

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// Companion says where snapshots come from.
type Companion struct {
	// Cluster is the Envoy cluster of the companion; "" if there is none, or an embedded one.
	Cluster string
	// Embedded: the companion runs in this process. What its section says is known to its reader, see [Embed].
	Embedded bool
	// Wait is how long one long poll may stay open.
	Wait time.Duration
}

// Option says what the surroundings of a chain can do beyond filter.Deps.
type Option func(*Chain)

// Embed is for a host that can run the companion itself: read reads the section companion.embedded, and help is about its keys.
func Embed(read func(*conf.Object), help []conf.Help) Option {
	return func(c *Chain) { c.embed, c.embedHelp = read, help }
}

func (c *Chain) readCompanion(o *conf.Object) {
	o.String("cluster", &c.companion.Cluster, conf.NotEmpty)
	o.Duration("wait", &c.companion.Wait, 100*time.Millisecond, 5*time.Minute)
	if c.embed == nil {
		if o.Has("embedded") {
			o.Errorf("embedded", "a companion inside Envoy is for native builds only (libinlet.so, inlet-golang.so): run cmd/companion, and name its cluster, companion: {cluster: …}")
			return
		}
		o.Required("cluster")
		return
	}
	o.Object("embedded", c.embed)
	c.companion.Embedded = o.Has("embedded")
	switch cluster, embedded := o.Has("cluster"), o.Has("embedded"); {
	case cluster && embedded:
		o.Errorf("embedded", "is a companion inside this Envoy, and cluster another one: remove one of the two")
	case embedded && o.Has("wait"):
		o.Errorf("wait", "goes with cluster: nobody polls an embedded companion")
	case !cluster && !embedded:
		o.Errorf("", "missing key \"cluster\", the cluster of a companion, or \"embedded\", a companion inside this Envoy")
	}
}
