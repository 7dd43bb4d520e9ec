package main

import (
	"cmp"
	"context"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/scrape"
	"github.com/inlet-proxy/inlet/internal/companion/xds"
)

// sources passes the endpoint lists on to the scraper and to Envoy.
type sources struct {
	scraper  *scrape.Scraper
	xds      *xds.Server // nil: EDS is not served
	metrics  *metrics
	log      *slog.Logger
	clusters map[string]string // by pool, where the configuration names one
}

// start follows the source of every pool until ctx ends.
func (s *sources) start(ctx context.Context, group *errgroup.Group, pools []PoolConfig) {
	s.clusters = make(map[string]string)
	var files []discover.File
	var names []discover.Name
	for _, p := range pools {
		s.clusters[p.Name] = p.Cluster
		switch {
		case p.DNS != nil:
			names = append(names, *p.DNS)
		case p.EDS != "":
			files = append(files, discover.File{Pool: p.Name, Path: p.EDS})
		default:
			group.Go(func() error {
				a, err := discover.Static(p.Static)
				if err == nil {
					s.loaded(p.Name, a)
				}
				return err
			})
		}
	}
	if len(files) > 0 {
		group.Go(func() error { return discover.Watch(ctx, files, s.log, s.loaded, s.failed) })
	}
	group.Go(func() error {
		discover.Resolve(ctx, names, discover.SystemResolver, s.log, s.loaded, s.failed)
		return nil
	})
}

func (s *sources) loaded(pool string, a *discover.Assignment) {
	s.metrics.loaded.Add(1)
	targets := make([]scrape.Target, len(a.Endpoints))
	for i, e := range a.Endpoints {
		targets[i] = scrape.Target{Address: e.Address, Usable: e.Usable, Engine: e.Engine, Priority: e.Priority}
	}
	s.scraper.SetTargets(pool, targets)
	if s.xds == nil {
		return
	}
	if err := s.xds.Set(cmp.Or(s.clusters[pool], a.Cluster, pool), a.Endpoints); err != nil {
		s.log.Error("cannot serve the endpoints by EDS", "pool", pool, "reason", err)
	}
}

func (s *sources) failed(string, error) { s.metrics.failed.Add(1) }
