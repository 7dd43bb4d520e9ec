package native

import (
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Main is the thread on which a [Poller] works, as an adapter has it.
type Main interface {
	// Schedule has the thread run a task, soon; called from any thread, not any more once the poller has left.
	Schedule(task func())
	// Call sends a request to the companion's cluster; done is to run on the thread.
	// An error means that done will not run.
	Call(cluster string, r *feed.Request, done func(*filter.Reply)) error
}

// Poller calls the companion for one configuration. All of it runs
// on one thread, but for Wake and Leave.
type Poller struct {
	*feed.Feed
	talks   *feed.Talks // of all configurations that name the companion
	heard   int         // Source.heard as of talks
	deps    *filter.Deps
	source  *Source
	cluster string
	main    Main
	log     func(filter.Level, string)

	mu    sync.Mutex // held while main is used, so that Leave can wait for it
	left  bool
	timer *time.Timer
}

var _ feed.Host = (*Poller)(nil)

// newPoller returns the poller of a new configuration. Its first call runs in its thread, not here.
func newPoller(s *Source, main Main, c *chain.Chain, deps *filter.Deps) *Poller {
	from := c.Companion()
	p := &Poller{source: s, cluster: from.Cluster, main: main, log: deps.Log, deps: deps}
	p.Feed = feed.New(feed.Options{
		Companion: from.Cluster, Wait: from.Wait, Worker: s.process.Worker, Proxy: s.process.Worker, Deps: deps, Notes: s.Notes,
	}, p)
	p.talks = feed.NewTalks(from.Cluster, nil, deps, p.Call)
	s.add(p)
	p.Wake()
	return p
}

// Wake has the thread do what is due; from any thread.
func (p *Poller) Wake() {
	defer p.Guard()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left {
		p.main.Schedule(p.tick)
	}
}

// tick does what is due, and again after a while as long as it is this poller's
// turn.
func (p *Poller) tick() {
	defer p.Guard()
	if !p.Turn() {
		return
	}
	defer p.wakeLater()
	p.Tick()
	p.converse()
}

// converse says what there is to say.
func (p *Poller) converse() {
	if all, now := p.source.conversations(p.heard); now != p.heard {
		p.heard, p.talks = now, feed.NewTalks(p.cluster, all, p.deps, p.Call)
	}
	p.talks.Tick()
}

func (p *Poller) wakeLater() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		return
	}
	if p.timer != nil {
		p.timer.Stop() // Leave may have woken this one meanwhile
	}
	p.timer = time.AfterFunc(feed.Period, p.Wake)
}

// Leave ends the poller and lets an older configuration take over, if one is
// left: Envoy drops a new configuration that it found wrong elsewhere.
func (p *Poller) Leave() {
	p.mu.Lock()
	p.left = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	if next := p.source.remove(p); next != nil {
		next.Wake()
	}
}

// Turn implements feed.Host.
func (p *Poller) Turn() bool { return p.source.isNewest(p) }

// Current implements feed.Host.
func (p *Poller) Current() *endpoint.Snapshot { return p.source.Latest() }

// Adopt implements feed.Host.
func (p *Poller) Adopt(s *endpoint.Snapshot) error {
	p.source.Apply(s)
	return nil
}

// Call implements feed.Host.
func (p *Poller) Call(r *feed.Request, done func(*filter.Reply)) error {
	return p.main.Call(p.cluster, r, func(reply *filter.Reply) {
		defer p.Guard()
		done(reply)
	})
}

// Guard is deferred by every entry. A poller that panicked rests a while.
func (p *Poller) Guard() {
	if v := recover(); v != nil {
		p.log(filter.Critical, Describe(v))
		p.Rest()
		p.talks.Rest()
	}
}
