// Package chain runs filters in order inside one Envoy filter: one copy of the
// body, one scan, one shared state. It knows no Envoy and no SDK; an adapter
// feeds a [Stream] with an exchange's callbacks and offers it a [Host].
package chain

import (
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Chain is a configured list of filters. It is immutable and may be used from
// many threads; a Stream may not.
type Chain struct {
	deps  *filter.Deps
	slots []slot
	needs filter.Needs
	// firstByters are the slots whose filters are filter.FirstByters.
	firstByters []int
	// screeners are those that are filter.Screeners.
	screeners []int
	// fields are the members of the body that filters read by name.
	fields []string
	// metadata is what a filter reads from the dynamic metadata; its key is empty if none does.
	metadata struct{ namespace, key string }
	// strict: paths that are not recognised are refused, because with a key
	// check or a guard in the chain an unread request would go around it.
	strict bool
	// early: requests go on as soon as the model and the fields have been read,
	// since no filter needs the rest of the body.
	early bool
	// control are filter.ControlHeaders and what filters claimed.
	control []string
	// conversations are those of the filters with the companion.
	conversations []filter.Conversation
	// embed reads the section of an embedded companion; nil where there can be none.
	embed     func(*conf.Object)
	embedHelp []conf.Help
	// id tells documents apart.
	id        uint64
	redirects redirects
	settings
	metrics metrics
}

type slot struct {
	name     string
	factory  *filter.Factory
	filter   filter.Filter
	failOpen bool
}

func (s *slot) mode() filter.FailureMode {
	if s.failOpen {
		return filter.FailOpen
	}
	return filter.FailClosed
}

// finish computes what follows from the filters.
func (c *Chain) finish() {
	for i := range c.slots {
		c.needs |= c.slots[i].filter.Needs()
		if _, ok := c.slots[i].filter.(filter.FirstByter); ok {
			c.firstByters = append(c.firstByters, i)
		}
		if _, ok := c.slots[i].filter.(filter.Screener); ok {
			c.screeners = append(c.screeners, i)
		}
		if m, ok := c.slots[i].filter.(filter.MetadataReader); ok && c.metadata.key == "" {
			c.metadata.namespace, c.metadata.key = m.Metadata()
		}
		if c.slots[i].factory.Strict {
			c.strict = true
		}
	}
	if c.countTokens {
		c.needs |= filter.NeedUsage
	}
	if len(c.fields) > 0 {
		c.needs |= filter.NeedModel
	}
	if c.needs&(filter.NeedPrompt|filter.NeedPrefix) != 0 {
		c.needs |= filter.NeedRequest
	}
	c.early = c.needs.Has(filter.NeedModel) && !c.needs.Has(filter.NeedRequest)
	c.metrics = newMetrics(c.deps.Metrics)
}

// Companion says where snapshots come from.
func (c *Chain) Companion() Companion { return c.companion }

// BodyLimit is the most bytes that a body may have.
func (c *Chain) BodyLimit() int64 { return c.bodyLimit }

// Control returns the request headers that only Inlet may set: ControlHeaders, and those that its filters claim.
func (c *Chain) Control() []string { return c.control }

// TrustsControl reports whether clients' own control headers are left alone ("controlHeaders: trust").
func (c *Chain) TrustsControl() bool { return c.trustControl }

// ID tells the chain's document apart from others.
func (c *Chain) ID() uint64 { return c.id }

// Deps returns what the filters were made with.
func (c *Chain) Deps() *filter.Deps { return c.deps }
