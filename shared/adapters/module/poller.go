package module

import (
	"sync"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// poller calls the companion through Envoy, for one configuration. All of it runs
// on Envoy's main thread, but for wake and leave.
type poller struct {
	*feed.Feed
	talks   *feed.Talks
	source  *source
	cluster string
	handle  shared.HttpFilterConfigHandle
	main    shared.Scheduler
	log     func(filter.Level, string)

	mu    sync.Mutex // held while main is used, so that leave can wait for it
	left  bool
	timer *time.Timer
}

var _ feed.Host = (*poller)(nil)

func newPoller(s *source, handle shared.HttpFilterConfigHandle, c *chain.Chain, deps *filter.Deps) *poller {
	from := c.Companion()
	p := &poller{source: s, cluster: from.Cluster, handle: handle, main: handle.GetScheduler(), log: deps.Log}
	p.Feed = feed.New(feed.Options{
		Companion: from.Cluster, Wait: from.Wait, Worker: s.proxy, Proxy: s.proxy, Deps: deps, Notes: s.notes,
	}, p)
	p.talks = feed.NewTalks(from.Cluster, c.Conversations(), deps, p.Call)
	return p
}

// wake has Envoy's main thread do what is due; from any thread.
func (p *poller) wake() {
	defer p.guard()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left {
		p.main.Schedule(p.tick)
	}
}

// tick does what is due, and again after a while as long as it is this poller's
// turn.
func (p *poller) tick() {
	defer p.guard()
	if !p.Turn() {
		return
	}
	defer p.wakeLater()
	p.Tick()
	p.talks.Tick()
}

func (p *poller) wakeLater() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		return
	}
	if p.timer != nil {
		p.timer.Stop() // leave may have woken this one meanwhile
	}
	p.timer = time.AfterFunc(feed.Period, p.wake)
}

// leave ends the poller and lets an older configuration take over, if one is
// left: Envoy drops a new configuration that it found wrong elsewhere.
func (p *poller) leave() {
	p.mu.Lock()
	p.left = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	if next := p.source.remove(p); next != nil {
		next.wake()
	}
}

// Turn implements feed.Host.
func (p *poller) Turn() bool { return p.source.isNewest(p) }

// Current implements feed.Host.
func (p *poller) Current() *endpoint.Snapshot { return p.source.latest.Load() }

// Adopt implements feed.Host.
func (p *poller) Adopt(s *endpoint.Snapshot) error {
	p.source.apply(s)
	return nil
}

// Call implements feed.Host.
func (p *poller) Call(r *feed.Request, done func(*filter.Reply)) error {
	result, _ := p.handle.HttpCallout(p.cluster, r.Headers(p.cluster), r.Body, uint64(chain.Milliseconds(r.Timeout)), &call{p, done})
	return notStarted(result, p.cluster)
}

// call is one call to the companion.
type call struct {
	poller *poller
	done   func(*filter.Reply)
}

// OnHttpCalloutDone takes the answer.
func (c *call) OnHttpCalloutDone(_ uint64, result shared.HttpCalloutResult, headers [][2]shared.UnsafeEnvoyBuffer, body []shared.UnsafeEnvoyBuffer) {
	defer c.poller.guard()
	var memory []byte
	r := readReply(result, headers, body, &memory)
	c.done(&r)
}

// guard is deferred by every entry. A poller that panicked rests a while.
func (p *poller) guard() {
	if v := recover(); v != nil {
		p.log(filter.Critical, describe(v))
		p.Rest()
		p.talks.Rest()
	}
}
