package golang

import (
	"context"
	"sync"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Call starts a call of the exchange, which ends with it.
func (s *stream) Call(number int, c *filter.Call) error {
	to := s.config.clusters[c.Cluster]
	if to == nil {
		return chain.ErrNoCluster(c.Cluster)
	}
	if s.calls == nil {
		s.calls, s.noCalls = context.WithCancel(context.Background())
	}
	turn := s.turn
	return to.call(s.calls, chain.CallHeaders(c), c.Body, c.Timeout, func(r filter.Reply) { s.answer(turn, number, &r) })
}

// answer hands a reply to the chain, on a goroutine.
func (s *stream) answer(turn, number int, r *filter.Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn != turn || s.over || s.broken {
		return // the stream may serve another exchange
	}
	defer func() {
		if p := recover(); p != nil {
			s.fail(p)
		}
	}()
	s.replied = false
	s.chain.Reply(number, r)
	if !s.chain.AwaitsReply() {
		s.request.wantMore()
		s.response.wantMore()
	}
}

// wantMore has Envoy show what comes next, if it waits though no reply is awaited any more.
func (h *half) wantMore() {
	if h.waits && !h.ended {
		h.waits = false
		h.envoy.Continue(h.more())
	}
}

// loop is where the companion's poller works: one task at a time, until the configuration ends.
type loop struct {
	config *config
	ctx    context.Context
	end    context.CancelFunc
	mu     sync.Mutex
}

var _ native.Main = (*loop)(nil)

func newLoop(c *config) *loop {
	l := &loop{config: c}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

// Schedule implements native.Main. The task begins at once, and so while Envoy still reads the configuration: the API has
// no turn of Envoy's main loop. To wait for the first exchange would leave that one without replicas.
func (l *loop) Schedule(task func()) { go l.run(task) }

// Call implements native.Main.
func (l *loop) Call(name string, r *feed.Request, done func(*filter.Reply)) error {
	to := l.config.clusters[name]
	if to == nil {
		return chain.ErrNoCluster(name)
	}
	return to.call(l.ctx, r.Headers(name), r.Body, r.Timeout, func(reply filter.Reply) { l.run(func() { done(&reply) }) })
}

func (l *loop) run(task func()) {
	defer l.config.caught()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() == nil {
		task()
	}
}
