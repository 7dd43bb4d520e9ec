package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/inlet-proxy/inlet/cmd/companion/discover"
	"github.com/inlet-proxy/inlet/cmd/companion/relay"
	"github.com/inlet-proxy/inlet/cmd/companion/scrape"
	"github.com/inlet-proxy/inlet/shared/endpoint"
)

// lastCalls is how long open calls have to end at a shutdown. Long polls are answered at its begin.
const lastCalls = 2 * time.Second

// run serves until ctx ends: the endpoint files feed the scraper, the scraper feeds the relay, the relay feeds the proxies.
func run(ctx context.Context, cfg *Config, listener net.Listener, log *slog.Logger) error {
	engines := make(map[string]string)
	var files []discover.File
	for _, p := range cfg.Pools {
		engines[p.Name] = p.Engine
		files = append(files, discover.File{Pool: p.Name, Path: p.EDS})
	}
	scraper, err := scrape.New(engines, scrape.Options{
		Interval: cfg.Scrape.Interval, Timeout: cfg.Scrape.Timeout, Path: cfg.Scrape.Path, Health: cfg.Scrape.Health, Log: log,
	})
	if err != nil {
		return err
	}
	defer scraper.Close()
	rel := relay.New(relay.Options{Interval: cfg.Publish, Heartbeat: cfg.heartbeat()})
	m := &metrics{scraper: scraper, relay: rel, stale: cfg.Stale}
	server := &http.Server{
		Handler:           handler(scraper, rel, m),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}

	var silent unusedConns
	server.ConnState = silent.note
	server.RegisterOnShutdown(silent.close)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		loaded := func(f discover.File, a *discover.Assignment) {
			m.loaded.Add(1)
			scraper.SetTargets(f.Pool, targetsOf(a))
		}
		failed := func(discover.File, error) { m.failed.Add(1) }
		return discover.Watch(ctx, files, log, loaded, failed)
	})
	group.Go(func() error {
		// Not before every replica was tried: a companion that restarts must not tell the proxies that nobody is ready.
		select {
		case <-ctx.Done():
			return nil
		case <-scraper.Tried():
		}
		log.Info("every endpoint was tried, publishing")
		rel.Run(ctx, scraper.Changed(), scraper.Pools)
		return nil
	})
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		log.Info("shutting down")
		rel.Close()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCalls)
		defer cancel()
		if err := server.Shutdown(last); err != nil {
			return server.Close()
		}
		return nil
	})
	return group.Wait()
}

// unusedConns are the connections on which no request came yet. Clients open some ahead of need, and http.Server.Shutdown would wait for
// them as for open calls.
type unusedConns struct {
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

func (u *unusedConns) note(c net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if state != http.StateNew {
		delete(u.conns, c)
		return
	}
	if u.closed {
		c.Close()
		return
	}
	if u.conns == nil {
		u.conns = make(map[net.Conn]bool)
	}
	u.conns[c] = true
}

func (u *unusedConns) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for c := range u.conns {
		c.Close()
	}
}

func targetsOf(a *discover.Assignment) []scrape.Target {
	targets := make([]scrape.Target, len(a.Endpoints))
	for i, e := range a.Endpoints {
		targets[i] = scrape.Target{Address: e.Address, Usable: e.Usable}
	}
	return targets
}

func handler(scraper *scrape.Scraper, rel *relay.Relay, m *metrics) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(endpoint.SnapshotPath, rel)
	mux.Handle(endpoint.SnapshotPath+".json", rel)
	mux.Handle("GET /metrics", m.handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if rel.Snapshot() != nil {
			fmt.Fprintln(w, "ok")
			return
		}
		w.Header().Set("Retry-After", "1")
		http.Error(w, "not ready\n"+strings.Join(scraper.Missing(), "\n"), http.StatusServiceUnavailable)
	})
	return mux
}
