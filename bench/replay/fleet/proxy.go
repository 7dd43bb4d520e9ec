package fleet

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/filters/picker"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// tick is how often a worker runs its periodic tasks.
const tick = feed.Period

// proxy is an Envoy: workers that share only a store, as wasm VMs do. The first of them holds the lease to call the
// companion.
type proxy struct {
	companion *companion
	feed      *feed.Feed
	workers   []*worker
	newest    *endpoint.Snapshot
}

var _ feed.Host = (*proxy)(nil)

// worker is one VM with its picker.
type worker struct {
	filter   filter.Filter
	ledger   *kv.Ledger
	snapshot *endpoint.Snapshot
}

// newProxy starts a proxy with the configuration of its picker.
func newProxy(document string, c Config, number int, now func() time.Time, m *companion) (*proxy, error) {
	p := &proxy{companion: m}
	store := mem.NewStore()
	for i := range c.Workers {
		id := strconv.Itoa(i)
		w := &worker{ledger: kv.NewLedger(store, id, now, 3*tick)}
		p.workers = append(p.workers, w)
		deps := &filter.Deps{
			Now: now, Rand: rand.NewPCG(c.Seed, uint64(number*c.Workers+i)+2).Uint64,
			Store: store, Counters: w.ledger, Worker: id,
			Snapshot: func() *endpoint.Snapshot { return w.snapshot },
			Metrics:  unread{}, Log: func(filter.Level, string) {},
		}
		if i == 0 {
			notes := feed.NewNotes(deps.Mutex())
			deps.Peers = notes
			p.feed = feed.New(feed.Options{
				Companion: "inlet-companion", Wait: 20 * time.Second, Worker: id, Proxy: fmt.Sprintf("proxy-%d", number), Deps: deps, Notes: notes,
			}, p)
		}
		if err := conf.Decode([]byte(document), func(o *conf.Object) { w.filter = picker.Factory.New(o, deps) }); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// tick runs the periodic tasks of a worker.
func (p *proxy) tick(number int) {
	w := p.workers[number]
	_ = w.ledger.Tick() // nobody else writes meanwhile
	w.snapshot = p.newest
	if number == 0 {
		p.feed.Tick()
	}
	if t, ok := w.filter.(filter.Ticker); ok {
		t.OnTick()
	}
}

// Turn implements feed.Host.
func (p *proxy) Turn() bool { return true }

// Current implements feed.Host.
func (p *proxy) Current() *endpoint.Snapshot { return p.newest }

// Adopt implements feed.Host. The other workers see it at their next tick.
func (p *proxy) Adopt(s *endpoint.Snapshot) error {
	if feed.Supersedes(s, p.newest) {
		p.newest, p.workers[0].snapshot = s, s
	}
	return nil
}

// Call implements feed.Host.
func (p *proxy) Call(r *feed.Request, done func(*filter.Reply)) error {
	p.companion.call(r, done)
	return nil
}

// unread are metrics that nobody reads.
type unread struct{}

func (unread) Counter(string, ...string) filter.Metric   { return unread{} }
func (unread) Gauge(string, ...string) filter.Metric     { return unread{} }
func (unread) Histogram(string, ...string) filter.Metric { return unread{} }
func (unread) Record(int64, filter.Values)               {}
