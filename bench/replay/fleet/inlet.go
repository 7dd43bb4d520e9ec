package fleet

import (
	"errors"
	"time"

	"github.com/inlet-proxy/inlet/bench/replay/workload"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

const pool = "llama"

// inlet routes with the picker, through the filter contract, exactly as inside Envoy. Proxies learn of each other as they
// do there, through the companion.
type inlet struct {
	origin    time.Time // start of the virtual time
	now       time.Duration
	facts     *workload.Reader
	number    map[string]int // of a replica, by address
	companion *companion
	proxies   []*proxy
	workers   int // of each proxy
}

// Picker routes by a configuration of the picker, such as "{profile: sticky}".
func Picker(document string) func(Config, *workload.Workload, Gauges) (Router, error) {
	return func(c Config, w *workload.Workload, g Gauges) (Router, error) {
		n := &inlet{origin: time.Unix(1_000_000, 0), facts: w.Reader(), number: map[string]int{}, workers: c.Workers}
		n.companion = newCompanion(c, g, n.clock)
		for i, e := range n.companion.pool.Endpoints {
			n.number[e.Address] = i
		}
		for i := range c.Proxies {
			p, err := newProxy(document, c, i, n.clock, n.companion)
			if err != nil {
				return nil, err
			}
			n.proxies = append(n.proxies, p)
		}
		n.begin()
		return n, nil
	}
}

func (n *inlet) clock() time.Time { return n.origin.Add(n.now) }

// begin makes all workers know the replicas before the first request.
func (n *inlet) begin() {
	for range 2 {
		for _, p := range n.proxies {
			for i := range p.workers {
				p.tick(i)
			}
		}
		n.companion.publish(0)
	}
}

// Every returns each worker's tick, at its own offset, and the companion's scrapes.
func (n *inlet) Every() []Periodic {
	all := []Periodic{{First: 0, Period: publishInterval, Do: func(now time.Duration) {
		n.companion.scrape(now)
		n.now = now // its own reports what ended meanwhile
		n.companion.publish(now)
	}}}
	workers := time.Duration(len(n.proxies) * n.workers)
	for i, p := range n.proxies {
		for j := range p.workers {
			all = append(all, Periodic{
				First: tick * time.Duration(i*n.workers+j) / workers, Period: tick,
				Do: func(now time.Duration) {
					n.now = now
					p.tick(j)
				},
			})
		}
	}
	return all
}

// none are no headers.
type none struct{}

func (none) Get(string) (string, bool) { return "", false }

func (none) At(string, int) (string, bool) { return "", false }

func (none) Line(int) (name, value string, ok bool) { return "", "", false }

// filter is the picker of a worker, by its number among those of all proxies.
func (n *inlet) filter(worker int) filter.Filter {
	return n.proxies[worker/n.workers].workers[worker%n.workers].filter
}

// Pick implements Router.
func (n *inlet) Pick(now time.Duration, worker int, f *Flight) (int, error) {
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
	if v := n.filter(worker).OnRequest(x); v != filter.Next {
		return 0, errors.New("the picker does not pick")
	}
	return n.number[x.Target.Address], nil
}

// FirstToken implements Router: the replica begins to answer.
func (n *inlet) FirstToken(now time.Duration, f *Flight) {
	n.now = now
	x, picker := f.state.(*filter.Exchange), n.filter(f.Worker)
	x.Response.Served, x.Response.Status = x.Target.Address, 200
	picker.OnResponseHeaders(x)
	if b, ok := picker.(filter.FirstByter); ok {
		b.OnFirstByte(x)
	}
}

// Done implements Router.
func (n *inlet) Done(now time.Duration, f *Flight) {
	n.now = now
	n.filter(f.Worker).OnDone(f.state.(*filter.Exchange), filter.End{Complete: true, Status: 200})
}
