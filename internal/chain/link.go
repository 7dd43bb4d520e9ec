package chain

import (
	"fmt"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// link gives filters the way to the companion, if there is one.
func (c *Chain) link() {
	if c.companion.Cluster == "" && !c.companion.Embedded {
		c.deps.Companion = nil
		return
	}
	link := &filter.Link{Cluster: c.companion.Cluster}
	if host := c.deps.Companion; host != nil {
		link.Proxy = host.Proxy
	}
	c.deps.Companion = link
}

// Conversations are those of the filters with the companion, behind a barrier: one that
// panics is logged and then silent for a while.
func (c *Chain) Conversations() []filter.Conversation { return c.conversations }

// adoptConversations takes over what the filter that was made last has begun.
func (c *Chain) adoptConversations(name string) {
	if c.deps.Companion == nil {
		return
	}
	for _, talk := range c.deps.Companion.Conversations()[len(c.conversations):] {
		b := &barrier{Conversation: talk, filter: name, deps: c.deps}
		c.conversations = append(c.conversations, filter.Conversation{Path: talk.Path, Take: b.take, Heard: b.heard})
	}
}

// afterPanic is how long a conversation is silent after a panic.
const afterPanic = 5 * time.Second

// barrier is a conversation whose panics end here.
type barrier struct {
	filter.Conversation
	filter string
	deps   *filter.Deps
	until  time.Time // it is silent
}

func (b *barrier) take() []byte {
	if b.deps.Now().Before(b.until) {
		return nil
	}
	defer b.recovered()
	return b.Take()
}

func (b *barrier) heard(r *filter.Reply) {
	defer b.recovered()
	b.Heard(r)
}

// recovered is deferred directly, since only then recover works.
func (b *barrier) recovered() {
	if p := recover(); p != nil {
		b.until = b.deps.Now().Add(afterPanic)
		b.deps.Log(filter.Error, fmt.Sprintf("filter %s %s in its conversation with the companion", b.filter, describe(p)))
	}
}
