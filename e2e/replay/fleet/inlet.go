package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/e2e/replay/workload"
	"github.com/inlet-proxy/inlet/filters/picker"
	"github.com/inlet-proxy/inlet/shared/conf"
	"github.com/inlet-proxy/inlet/shared/endpoint"
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/kv"
	"github.com/inlet-proxy/inlet/shared/kv/mem"
)

const (
	// tick is how often a worker exchanges what it knows with the others.
	tick = 20 * time.Millisecond
	// scrapeInterval is how often the companion reads a replica's metrics, publishInterval how often at most it tells the proxies.
	scrapeInterval  = 100 * time.Millisecond
	publishInterval = 20 * time.Millisecond
	pool            = "llama"
)

// inlet routes by the picker, through the contract of filters: what it says is what it says inside Envoy.
type inlet struct {
	origin   time.Time // when the virtual time began
	now      time.Duration
	gauges   Gauges
	facts    *workload.Reader
	pool     endpoint.Pool // as it was scraped
	scraped  []time.Duration
	number   map[string]int // of a replica, by address
	snapshot *endpoint.Snapshot
	workers  []*worker
	turn     int // of the replicas to be scraped next
}

// worker is one VM with its picker.
type worker struct {
	filter filter.Filter
	ledger *kv.Ledger
}

// Picker routes by a configuration of the picker, such as "{profile: sticky}".
func Picker(document string) func(Config, *workload.Workload, Gauges) (Router, error) {
	return func(c Config, w *workload.Workload, g Gauges) (Router, error) {
		n := &inlet{
			origin: time.Unix(1_000_000, 0), gauges: g, facts: w.Reader(), number: map[string]int{},
			pool: endpoint.Pool{Name: pool}, scraped: make([]time.Duration, c.Replicas),
		}
		for i := range c.Replicas {
			address := fmt.Sprintf("10.%03d.%03d.1:8000", i>>8, i&255)
			n.number[address] = i
			n.pool.Endpoints = append(n.pool.Endpoints, endpoint.Endpoint{
				Address: address, Ready: true, Gauges: endpoint.Gauges{Known: true},
				Cache: endpoint.Cache{BlockTokens: int32(c.Engine.BlockTokens), Blocks: int32(c.Engine.Blocks)},
			})
		}
		n.publish()
		store := mem.NewStore()
		for i := range c.Proxies * c.Workers {
			if err := n.start(document, store, c.Seed, i); err != nil {
				return nil, err
			}
		}
		return n, nil
	}
}

func (n *inlet) clock() time.Time { return n.origin.Add(n.now) }

func (n *inlet) start(document string, store kv.Store, seed uint64, number int) error {
	id := strconv.Itoa(number)
	w := &worker{ledger: kv.NewLedger(store, id, n.clock, 3*tick)}
	deps := &filter.Deps{
		Now: n.clock, Rand: rand.NewPCG(seed, uint64(number)+2).Uint64,
		Store: store, Counters: w.ledger, Worker: id,
		Snapshot: func() *endpoint.Snapshot { return n.snapshot },
		Metrics:  unread{}, Log: func(filter.Level, string) {},
	}
	n.workers = append(n.workers, w)
	return conf.Decode([]byte(document), func(o *conf.Object) { w.filter = picker.Factory.New(o, deps) })
}

// unread are metrics that nobody reads.
type unread struct{}

func (unread) Counter(string, ...string) filter.Metric   { return unread{} }
func (unread) Gauge(string, ...string) filter.Metric     { return unread{} }
func (unread) Histogram(string, ...string) filter.Metric { return unread{} }
func (unread) Record(int64, filter.Values)               {}

// Every has each worker's tick, at a moment of its own, and the companion's scrapes.
func (n *inlet) Every() []Periodic {
	all := []Periodic{{First: 0, Period: publishInterval, Do: n.scrape}}
	for i, w := range n.workers {
		all = append(all, Periodic{
			First: tick * time.Duration(i) / time.Duration(len(n.workers)), Period: tick,
			Do: func(now time.Duration) {
				n.now = now
				_ = w.ledger.Tick() // nobody else writes meanwhile
				if t, ok := w.filter.(filter.Ticker); ok {
					t.OnTick()
				}
			},
		})
	}
	return all
}

// scrape reads the replicas whose turn it is, evenly spread over the interval, and publishes.
func (n *inlet) scrape(now time.Duration) {
	n.now = now
	const turns = int(scrapeInterval / publishInterval)
	for i := n.turn; i < len(n.pool.Endpoints); i += turns {
		waiting, running, kvUse := n.gauges.Read(now, i)
		n.pool.Endpoints[i].Gauges = endpoint.Gauges{Known: true, Waiting: waiting, Running: running, KVUse: kvUse}
		n.scraped[i] = now
	}
	n.now = now // what ended meanwhile had its own
	n.turn = (n.turn + 1) % turns
	n.publish()
}

func (n *inlet) publish() {
	p := endpoint.Pool{Name: n.pool.Name, Endpoints: append([]endpoint.Endpoint(nil), n.pool.Endpoints...)}
	for i := range p.Endpoints {
		p.Endpoints[i].Gauges.Age = n.now - n.scraped[i]
	}
	n.snapshot = &endpoint.Snapshot{Received: n.clock(), Pools: []endpoint.Pool{p}}
}

// none are no headers.
type none struct{}

func (none) Get(string) (string, bool) { return "", false }

// Pick implements Router.
func (n *inlet) Pick(now time.Duration, number int, f *Flight) (int, error) {
	n.now = now
	x, ok := f.state.(*filter.Exchange)
	if !ok {
		x = &filter.Exchange{}
		f.state = x
	}
	x.Reset(1)
	x.Start = n.clock()
	x.Route.Pool = pool
	x.RequestHeaders = none{}
	var err error
	if x.Request, err = n.facts.Facts(f.Asked); err != nil {
		return 0, err
	}
	x.API = x.Request.API
	if v := n.workers[number].filter.OnRequest(x); v != filter.Next {
		return 0, errors.New("the picker does not pick")
	}
	return n.number[x.Target.Address], nil
}

// FirstToken implements Router: the replica begins to answer.
func (n *inlet) FirstToken(now time.Duration, f *Flight) {
	n.now = now
	x, w := f.state.(*filter.Exchange), n.workers[f.Worker]
	x.Response.Served, x.Response.Status = x.Target.Address, 200
	w.filter.OnResponseHeaders(x)
	if b, ok := w.filter.(filter.FirstByter); ok {
		b.OnFirstByte(x)
	}
}

// Done implements Router.
func (n *inlet) Done(now time.Duration, f *Flight) {
	n.now = now
	n.workers[f.Worker].filter.OnDone(f.state.(*filter.Exchange), filter.End{Complete: true, Status: 200})
}
