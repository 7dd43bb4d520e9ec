package replicas

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/barrier"
	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/internal/companion/scrape"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Options are the settings of Replicas; all may be zero.
type Options struct {
	// Found gets each list of replicas that a source has. It may be called from several goroutines.
	Found func(pool *Pool, a *discover.Assignment)
	// Resolver looks names up; nil: the system's.
	Resolver discover.Resolver
	Dial     http1.DialFunc // nil: net.Dialer's
	Log      *slog.Logger
}

// Replicas follows the sources of all pools and scrapes the replicas. Its methods are safe for concurrent use.
type Replicas struct {
	*scrape.Scraper
	config         Config
	o              Options
	loaded, failed atomic.Uint64
}

// New returns Replicas that find nothing until Run. An unreadable file that scraping needs is an error.
func New(c Config, o Options) (*Replicas, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Resolver == nil {
		o.Resolver = discover.SystemResolver
	}
	scraper, err := scrape.New(c.plans(), scrape.Options{
		Interval: c.Scrape.Interval, Timeout: c.Scrape.Timeout, Models: c.Scrape.Models, Stale: c.Stale, Dial: o.Dial, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Replicas{Scraper: scraper, config: c, o: o}, nil
}

// Lists returns how many lists of replicas were read, and how many could not be.
func (r *Replicas) Lists() (loaded, failed uint64) { return r.loaded.Load(), r.failed.Load() }

// Run follows the sources until ctx ends, and then stops scraping. Its error is that the system cannot watch files.
func (r *Replicas) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer r.Close()
	var files []discover.File
	var names []discover.Name
	for i := range r.config.Pools {
		switch p := &r.config.Pools[i]; {
		case p.DNS != nil:
			names = append(names, *p.DNS)
		case p.EDS != "":
			files = append(files, discover.File{Pool: p.Name, Path: p.EDS})
		case p.Kubernetes != nil: // see Set
		default:
			a, err := discover.Static(p.Static)
			if err != nil {
				return err
			}
			r.Set(p.Name, a)
		}
	}
	var wait sync.WaitGroup
	var unwatched error
	if len(files) > 0 {
		wait.Go(func() {
			barrier.Run(ctx, r.o.Log, "the lists of replicas", func() {
				if unwatched = discover.Watch(ctx, files, r.o.Log, r.Set, r.notFound); unwatched != nil {
					cancel()
				}
			})
		})
	}
	discover.Resolve(ctx, names, r.o.Resolver, r.o.Log, r.Set, r.notFound)
	<-ctx.Done()
	wait.Wait()
	return unwatched
}

// Set sets the list of a pool's replicas: for a source that is followed elsewhere.
func (r *Replicas) Set(pool string, a *discover.Assignment) {
	r.loaded.Add(1)
	targets := make([]scrape.Target, len(a.Endpoints))
	for i, e := range a.Endpoints {
		targets[i] = scrape.Target{Address: e.Address, Usable: e.Usable, Engine: e.Engine, Priority: e.Priority, Identity: e.Identity, Started: e.Started}
	}
	r.SetTargets(pool, targets)
	if r.o.Found == nil {
		return
	}
	for i := range r.config.Pools {
		if p := &r.config.Pools[i]; p.Name == pool {
			r.o.Found(p, a)
		}
	}
}

func (r *Replicas) notFound(string, error) { r.failed.Add(1) }

// Pauses before Await logs what it waits for double from the first to the last. The first is longer than healthy sources and replicas take.
const (
	firstReport = 5 * time.Second
	lastReport  = 5 * time.Minute
)

// Await waits until every replica was tried once, and reports false if ctx ends before: a companion that starts must not report that no
// replica is ready, since it has asked none yet. It logs what it waits for if that takes long.
func (r *Replicas) Await(ctx context.Context) bool {
	timer := time.NewTimer(firstReport)
	defer timer.Stop()
	for pause := firstReport; ; {
		select {
		case <-ctx.Done():
			return false
		case <-r.Tried():
			r.o.Log.Info(Publishing)
			return true
		case <-timer.C:
			if missing := r.Missing(); len(missing) > 0 {
				r.o.Log.Warn("not every endpoint was tried yet", "missing", strings.Join(missing, "; "))
			}
			pause = min(2*pause, lastReport)
			timer.Reset(pause)
		}
	}
}

// Publish calls publish once every replica was tried, then after each change, but at most once in an interval, and at least once in a
// heartbeat, until ctx ends. It does not wait forever: a pool whose list cannot be read must not take the others down. After the time of
// the first report of Await it begins without the pools of which too little is known, once there is another one.
func (r *Replicas) Publish(ctx context.Context, publish func(pools []endpoint.Pool, now time.Time)) {
	timer := time.NewTimer(firstReport)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-r.Tried():
	case <-timer.C:
	}
	for {
		now := time.Now()
		if pools := r.TriedPools(now); len(pools) > 0 {
			publish(pools, now)
		}
		timer.Reset(r.config.Publish)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(max(0, r.config.Heartbeat()-r.config.Publish))
		select {
		case <-ctx.Done():
			return
		case <-r.Changed():
		case <-timer.C:
		}
	}
}

// Publishing is logged when the first snapshot is there.
const Publishing = "every endpoint was tried; publishing snapshots"
