package hosttest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

const (
	// settle passes before the first step and after each, so that every worker
	// has the newest snapshot and what the others count.
	settle = 500 * time.Millisecond
	// patience is the virtual time after which a request hangs.
	patience = time.Minute
)

// guest is Inlet in one worker.
type guest interface {
	newStream(x *exchange) (stream, error)
	close() error
}

// gateway is the emulated proxy: workers that share a store, pools of
// replicas, services to call, metrics, a clock.
type gateway struct {
	clock    *clock
	store    kv.Store
	stats    *stats
	workers  []*worker
	turn     int // which worker takes the next request
	pools    map[string][]*replica
	rotation map[string]int // next replica of the fallback, by pool
	company  companion
	subset   *Subset // with addresses for names
	metadata map[string]map[string]string

	unfollowed  bool // the clusters do not read the ranked list
	maxRequests int  // of a cluster at once; 0: any number

	services map[string]*service

	held  map[string]*exchange
	calls []Call         // of the present step
	asked map[string]int // of the host, in the present step
	open  int            // callouts in progress, without the companion's
	log   []string
	trap  string
}

// replica is a model server of the emulated cluster.
type replica struct {
	name, address string
	unknown       bool // the companion tells it, and the cluster does not have it
	active        int  // requests that are in progress there, or were to be
}

// worker is one thread of the proxy.
type worker struct {
	id    int
	guest guest
	depth int
	after []func() // to be done when the callback has returned
}

// start makes a gateway; boot starts Inlet in one worker.
func start(s *Scenario, boot func(g *gateway, w *worker) (guest, error)) (Gateway, error) {
	g := &gateway{
		clock: newClock(), store: mem.NewStore(), stats: newStats(),
		pools: map[string][]*replica{}, rotation: map[string]int{}, services: map[string]*service{}, held: map[string]*exchange{},
	}
	for i, pool := range sortedKeys(s.Pools) {
		g.pools[pool] = []*replica{}
		for j, r := range s.Pools[pool] {
			g.pools[pool] = append(g.pools[pool], &replica{name: r.Name, address: fmt.Sprintf("10.0.%d.%d:8000", i, j+1), unknown: r.Unknown})
		}
	}
	for cluster, answers := range s.Services {
		g.services[cluster] = &service{answers: answers}
	}
	g.subset = s.Subset.With(g.addresses())
	g.metadata = s.Metadata
	g.unfollowed, g.maxRequests = s.Unfollowed, s.MaxRequests
	g.company.start(g, s.Pools)
	for i := range s.Workers {
		w := &worker{id: i}
		var err error
		if w.guest, err = boot(g, w); err != nil {
			return nil, errors.Join(err, g.Close())
		}
		g.workers = append(g.workers, w)
	}
	g.clock.advance(settle)
	return g, nil
}

// addresses are those of all replicas, by name.
func (g *gateway) addresses() map[string]string {
	all := map[string]string{}
	for _, pool := range g.pools {
		for _, r := range pool {
			all[r.name] = r.address
		}
	}
	return all
}

// enter calls into Inlet, then does what it asked for meanwhile: an action
// like a local reply leads to further callbacks, which must not come while one
// is still running.
func (w *worker) enter(callback func()) {
	w.depth++
	callback()
	w.depth--
	for w.depth == 0 && len(w.after) > 0 {
		actions := w.after
		w.after = nil
		for _, do := range actions {
			do()
		}
	}
}

// later has do done when the present callback has returned.
func (w *worker) later(do func()) { w.after = append(w.after, do) }

// Do plays one step.
func (g *gateway) Do(step *Step) (*Outcome, error) {
	before := g.stats.copy()
	g.calls, g.asked, g.log, g.trap = nil, nil, nil, ""
	g.company.begin(step)
	g.clock.advance(step.After)
	x, err := g.begin(step)
	if err == nil {
		err = g.wait(x, step)
	}
	if err != nil {
		return nil, errors.Join(err, g.told())
	}
	g.clock.advance(settle)
	if x.err != nil {
		return nil, errors.Join(x.err, g.told())
	}
	o := x.got
	o.Calls, o.HostCalls, o.Metrics, o.Log, o.Trap, o.Why = g.calls, g.asked, g.stats.growth(before), g.log, g.trap, x.why
	return &o, nil
}

// told is what the gateway logged, for a message about a failure.
func (g *gateway) told() error {
	lines := g.log
	if g.trap != "" {
		lines = append(lines, "trap: "+g.trap)
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New("--- log\n" + strings.Join(lines, "\n"))
}

// begin sends the step's request, or lets the replica of a held one answer.
func (g *gateway) begin(step *Step) (*exchange, error) {
	if step.Finish != "" {
		x := g.held[step.Finish]
		delete(g.held, step.Finish)
		x.answer()
		return x, nil
	}
	w := g.workers[g.turn%len(g.workers)]
	g.turn++
	x := newExchange(g, w, step)
	s, err := w.guest.newStream(x)
	if err != nil {
		return nil, err
	}
	x.attach(s)
	x.send()
	return x, nil
}

// wait lets time pass until the request is where the step wants it.
func (g *gateway) wait(x *exchange, step *Step) error {
	limit := g.clock.now.Add(patience)
	for !x.closed {
		if step.Hold != "" && x.got.Arrived != nil {
			g.held[step.Hold] = x
			return nil
		}
		if step.Request != nil && x.leaves(step.Request.Cancel) {
			x.close()
			return nil
		}
		if !g.clock.next(limit) {
			return fmt.Errorf("the request hangs: %s", x.where())
		}
	}
	if step.Hold != "" {
		return fmt.Errorf("no replica got the request that was to be held; the client got %d %s", x.got.Status, shorten(x.got.Body))
	}
	return nil
}

// leaves reports whether this is the moment at which the client goes away.
func (x *exchange) leaves(point string) bool {
	switch point {
	case CancelDuringCall:
		return x.g.open > 0
	case CancelAfterBody:
		return x.got.Arrived != nil && x.step.Request.Patience == 0
	}
	return false
}

// where says where a request is stuck.
func (x *exchange) where() string {
	switch {
	case x.request.held:
		return "the filter holds it"
	case x.got.Arrived == nil:
		return "its end did not come to the replica"
	case x.response.held:
		return "the filter holds the answer"
	}
	return "the answer does not end"
}

// Close lets held requests go and stops Inlet in every worker.
func (g *gateway) Close() error {
	for _, name := range sortedKeys(g.held) {
		g.held[name].close()
	}
	var errs []error
	for _, w := range g.workers {
		errs = append(errs, w.guest.close())
	}
	return errors.Join(errs...)
}

// balance chooses a replica of the pool as override_host does: the first of
// the picked addresses that the pool has, else the fallback's.
func (g *gateway) balance(pool, picked string) *replica {
	if g.unfollowed {
		picked = ""
	}
	for _, address := range strings.Split(picked, ",") {
		for _, r := range g.pools[pool] {
			if r.address == strings.TrimSpace(address) && !r.unknown {
				return r
			}
		}
	}
	for {
		r := g.pools[pool][g.rotation[pool]%len(g.pools[pool])]
		g.rotation[pool]++
		if !r.unknown {
			return r
		}
	}
}

// overflows reports whether more requests are in progress in a pool than its cluster allows.
func (g *gateway) overflows(pool string) bool {
	active := 0
	for _, r := range g.pools[pool] {
		active += r.active
	}
	return g.maxRequests > 0 && active > g.maxRequests
}

// logf keeps a line of the gateway's log.
func (g *gateway) logf(format string, args ...any) {
	g.log = append(g.log, fmt.Sprintf(format, args...))
}

// sortedKeys makes the order of a map the same in every run.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// headersOf lists the headers of a scenario.
func headersOf(m map[string]string) Headers {
	var h Headers
	for _, name := range sortedKeys(m) {
		h.Add(name, m[name])
	}
	return h
}
