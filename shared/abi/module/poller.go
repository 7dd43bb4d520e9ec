package module

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/filter"
)

// poller asks the companion for snapshots through Envoy, by long poll: it asks
// again when it was answered. All of it runs on Envoy's main thread, but for
// wake and leave.
type poller struct {
	feed   *feed
	handle shared.HttpFilterConfigHandle
	main   shared.Scheduler
	wait   time.Duration
	log    func(filter.Level, string)

	asked time.Time          // when the call under way began; zero if there is none
	told  *endpoint.Snapshot // what the companion was told is here; the answer may be a delta to it
	whole bool               // the last answer could not be read: the companion is told that nothing is here

	mu    sync.Mutex // held while main is used, so that leave can wait for it
	left  bool
	timer *time.Timer
}

// slack is what a long poll may take beyond the time that the companion was
// asked to wait.
const slack = 5 * time.Second

// wake has Envoy's main thread poll; from any thread.
func (p *poller) wake() {
	defer p.guard()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left {
		p.main.Schedule(p.poll)
	}
}

// wakeIn wakes after a pause.
func (p *poller) wakeIn(pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left {
		p.timer = time.AfterFunc(pause, p.wake)
	}
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
	if next := p.feed.remove(p); next != nil {
		next.wake()
	}
}

// poll asks once, if it is this poller's turn.
func (p *poller) poll() {
	defer p.guard()
	if !p.asked.IsZero() || !p.feed.isNewest(p) {
		return
	}
	p.asked, p.told = time.Now(), p.feed.latest.Load()
	if p.whole {
		p.told = nil
	}
	result, _ := p.handle.HttpCallout(p.feed.cluster, [][2]string{
		{":method", "GET"},
		{":path", endpoint.Path(p.told, p.feed.worker, p.wait)},
		{":authority", p.feed.cluster},
		{"accept", endpoint.ContentType},
	}, nil, milliseconds(p.wait+slack), p)
	if err := notStarted(result, p.feed.cluster); err != nil {
		p.failed(err)
	}
}

var errSameAgain = errors.New("it answers at once with the snapshot that it was told is here")

// OnHttpCalloutDone takes the answer.
func (p *poller) OnHttpCalloutDone(_ uint64, result shared.HttpCalloutResult, headers [][2]shared.UnsafeEnvoyBuffer, body []shared.UnsafeEnvoyBuffer) {
	defer p.guard()
	var memory []byte
	r := readReply(result, headers, body, &memory)
	if r.Err == nil && r.Status == 304 {
		p.worked(true)
		return
	}
	s, err := p.feed.decode(p.told, &r, time.Now())
	p.whole = errors.Is(err, errUnreadable)
	if err == nil && p.told != nil && s.ID() == p.told.ID() {
		err = errSameAgain // to ask on at once would be a tight loop
	}
	if err != nil {
		p.failed(err)
		return
	}
	p.feed.apply(s)
	p.worked(false)
}

// worked asks again, at once if the companion held the poll as it should.
func (p *poller) worked(unchanged bool) {
	took := time.Since(p.asked)
	p.asked = time.Time{}
	if p.feed.worked() {
		p.log(filter.Info, "the companion ("+p.feed.cluster+") is back")
	}
	if unchanged && took < min(p.wait/2, shortPause) {
		p.wakeIn(shortPause)
		return
	}
	p.wake()
}

func (p *poller) failed(err error) {
	p.asked = time.Time{}
	pause, first := p.feed.failed(rand.Uint64())
	if first {
		p.log(filter.Warn, "no snapshot from the companion ("+p.feed.cluster+"), the last one stays: "+err.Error())
	}
	p.wakeIn(pause)
}

// guard is deferred by every entry. A poller that panicked rests a while.
func (p *poller) guard() {
	if v := recover(); v != nil {
		p.log(filter.Critical, describe(v))
		p.asked = time.Time{}
		p.wakeIn(longPause)
	}
}
