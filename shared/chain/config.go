package chain

import (
	"fmt"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/conf"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/llm"
)

// Defaults and bounds of the document's chain-wide settings.
const (
	DefaultBodyLimit = 16 << 20
	maxBodyLimit     = 1 << 30
	maxPromptLimit   = 64 << 20
)

// Companion says where snapshots come from.
type Companion struct {
	// Cluster is the Envoy cluster of the companion; "" when there is none.
	Cluster string
	// Wait is how long one long poll may stay open.
	Wait time.Duration
}

// settings are the chain-wide part of the document.
type settings struct {
	bodyLimit    int64
	promptLimit  int64
	prefixLimit  int64
	trustControl bool
	passThrough  []string
	companion    Companion
}

// New reads the configuration document (YAML or JSON, strict) and makes the
// chain. The error is a conf.Errors with every mistake at once. New does no I/O.
func New(doc []byte, known []filter.Factory, deps *filter.Deps) (*Chain, error) {
	c := &Chain{deps: deps, settings: settings{
		bodyLimit:   DefaultBodyLimit,
		promptLimit: 1 << 20,
		prefixLimit: llm.DefaultPrefixBlocks * llm.PrefixBlockBytes,
		companion:   Companion{Wait: 20 * time.Second},
	}}
	err := conf.Decode(doc, func(o *conf.Object) {
		c.readFilters(o, known)
		c.readSettings(o)
	})
	if err != nil {
		return nil, err
	}
	c.finish()
	return c, nil
}

func (c *Chain) readSettings(o *conf.Object) {
	o.Object("limits", func(o *conf.Object) {
		o.Size("body", &c.bodyLimit, 1, maxBodyLimit)
		o.Size("prompt", &c.promptLimit, 1, maxPromptLimit)
		o.Size("prefix", &c.prefixLimit, llm.PrefixBlockBytes, maxPromptLimit)
	})
	control := "remove"
	o.Enum("controlHeaders", &control, "remove", "trust")
	c.trustControl = control == "trust"
	o.Strings("passThrough", &c.passThrough, conf.PathPrefix)
	o.Object("companion", func(o *conf.Object) {
		o.String("cluster", &c.companion.Cluster, conf.NotEmpty)
		o.Duration("wait", &c.companion.Wait, 100*time.Millisecond, 5*time.Minute)
		o.Required("cluster")
	})
}

func (c *Chain) readFilters(o *conf.Object, known []filter.Factory) {
	o.Required("filters")
	n := 0
	o.List("filters", func(v *conf.Value) {
		n++
		names := v.Keys()
		if len(names) != 1 {
			v.Errorf("one filter an item, like %q; found %d keys", "- bbr: {…}", len(names))
			return
		}
		i := indexOf(known, names[0])
		if i < 0 {
			v.Errorf("unknown filter %q%s", names[0], conf.Suggest(names[0], namesOf(known)))
			return
		}
		v.Object(func(o *conf.Object) {
			o.Object(names[0], func(o *conf.Object) { c.add(o, &known[i]) })
		})
	})
	if o.Has("filters") && n == 0 {
		o.Errorf("filters", "needs at least one filter")
	}
	c.checkOrder(o)
}

// add makes one filter of the chain from its configuration object.
func (c *Chain) add(o *conf.Object, f *filter.Factory) {
	for _, s := range c.slots {
		if s.name == f.Name {
			o.Errorf("", "filter %q stands in the chain twice", f.Name)
			return
		}
	}
	mode := string(f.FailureMode)
	o.Enum("failureMode", &mode, string(filter.FailOpen), string(filter.FailClosed))
	c.slots = append(c.slots, slot{
		name:     f.Name,
		factory:  f,
		failOpen: mode == string(filter.FailOpen),
		filter:   f.New(o, c.deps),
	})
}

// checkOrder refuses a chain in which a filter reads a fact that a later one writes.
func (c *Chain) checkOrder(o *conf.Object) {
	for i, reader := range c.slots {
		for _, writer := range c.slots[i+1:] {
			if reader.factory.Reads&writer.factory.Writes != 0 {
				o.Errorf("filters", "%q must stand before %q, which uses what it decides", writer.name, reader.name)
			}
		}
	}
}

func indexOf(known []filter.Factory, name string) int {
	for i := range known {
		if known[i].Name == name {
			return i
		}
	}
	return -1
}

func namesOf(known []filter.Factory) []string {
	names := make([]string, len(known))
	for i := range known {
		names[i] = known[i].Name
	}
	return names
}

// String names the filters in order, for the log line at start.
func (c *Chain) String() string {
	var b strings.Builder
	for i, s := range c.slots {
		if i > 0 {
			b.WriteString(" → ")
		}
		fmt.Fprintf(&b, "%s(%s)", s.name, s.mode())
	}
	return b.String()
}
