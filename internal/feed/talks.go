package feed

import (
	"fmt"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Talks are the conversations of filters with the companion (see filter.Link), as one
// worker or process holds them. Their host calls Tick, from one thread.
type Talks struct {
	cluster string
	deps    *filter.Deps
	call    Caller
	list    []talk
}

// talk is one conversation.
type talk struct {
	filter.Conversation
	pace backoff
	open time.Time // latest end of the open call
	no   int       // of the open call; replies to earlier ones are ignored
}

// NewTalks returns conversations that have not begun. The cluster is for the log.
func NewTalks(cluster string, all []filter.Conversation, deps *filter.Deps, call Caller) *Talks {
	t := &Talks{cluster: cluster, deps: deps, call: call, list: make([]talk, len(all))}
	for i := range all {
		t.list[i].Conversation = all[i]
	}
	return t
}

// Tick sends what there is to say, where no call is open.
func (t *Talks) Tick() {
	if len(t.list) == 0 {
		return
	}
	now := t.deps.Now()
	for i := range t.list {
		if c := &t.list[i]; now.After(c.open) && c.pace.over(now) {
			t.say(c, now)
		}
	}
}

// Rest pauses all conversations after a defect.
func (t *Talks) Rest() {
	until := t.deps.Now().Add(lastPause)
	for i := range t.list {
		c := &t.list[i]
		c.no++
		c.open, c.pace.until = time.Time{}, until
	}
}

func (t *Talks) say(c *talk, now time.Time) {
	body := c.Take()
	if len(body) == 0 {
		return
	}
	c.no++
	no := c.no
	c.open = now.Add(2 * talkTimeout)
	err := t.call(&Request{
		Method: "POST", Path: c.Path, ContentType: "application/json", Body: body, Timeout: talkTimeout,
	}, func(r *filter.Reply) {
		if no == c.no {
			t.hear(c, r)
		}
	})
	if err != nil {
		t.hear(c, &filter.Reply{Err: err})
	}
}

// hear takes the reply. The pace is set first, since the filter may panic.
func (t *Talks) hear(c *talk, r *filter.Reply) {
	c.open = time.Time{}
	why := r.Err
	if why == nil && r.Status/100 != 2 {
		why = fmt.Errorf("response status %d, want 2xx", r.Status)
	}
	switch {
	case why == nil:
		if c.pace.worked() {
			t.deps.Log(filter.Info, fmt.Sprintf("companion: calls of %s at cluster %q succeed again", c.Path, t.cluster))
		}
	case c.pace.failed(t.deps, lastTalkPause):
		t.deps.Log(filter.Info, fmt.Sprintf("companion: call of %s at cluster %q failed: %v; retrying", c.Path, t.cluster, why))
	}
	c.Heard(r)
}
