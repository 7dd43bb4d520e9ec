package main

import (
	"cmp"
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

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/kube"
	"github.com/inlet-proxy/inlet/internal/companion/quota"
	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/internal/companion/xds"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// lastCalls is how long open calls have to end at shutdown. Long polls are answered when it begins.
const lastCalls = 2 * time.Second

// run serves until ctx ends: the sources of endpoints feed the scraper, the scraper feeds the relay, and the relay feeds the proxies.
func run(ctx context.Context, cfg *Config, l listeners, shared sharedQuota, kept keepers, log *slog.Logger) error {
	group, ctx := errgroup.WithContext(ctx)
	served := serveEDS(ctx, group, l.xds, log)
	found, err := replicas.New(cfg.Config, replicas.Options{Found: served, Log: log})
	if err != nil {
		return err
	}
	watcher, err := newWatcher(cfg, log)
	if err != nil {
		return err
	}
	rel := relay.New(relay.Options{Interval: cfg.Publish, Heartbeat: cfg.Heartbeat(), Memory: cfg.Memory})
	m := &metrics{replicas: found, relay: rel, tokens: kept, stale: cfg.Stale, quota: shared.service}
	kept.start(ctx, group)
	if shared.service != nil {
		group.Go(func() error {
			shared.service.Run(ctx)
			return nil
		})
	}
	if shared.directory != nil {
		group.Go(func() error {
			shared.directory.Run(ctx)
			return nil
		})
	}
	if l.admin != nil {
		serve(ctx, group, newServer(shared.admin, log), l.admin)
	}
	group.Go(func() error { return found.Run(ctx) })
	follow(ctx, group, watcher, found)
	group.Go(func() error {
		if found.Await(ctx) {
			rel.Run(ctx, found.Changed(), found.Pools)
		}
		return nil
	})
	server := newServer(handler(found, watcher, rel, m), log)
	server.RegisterOnShutdown(rel.Close)
	serve(ctx, group, server, l.proxies)
	return group.Wait()
}

// serveEDS passes the lists of endpoints on to Envoy, if it asks for them here.
func serveEDS(ctx context.Context, group *errgroup.Group, listener net.Listener, log *slog.Logger) func(*replicas.Pool, *discover.Assignment) {
	if listener == nil {
		return nil
	}
	server := xds.New(log)
	group.Go(func() error {
		<-ctx.Done()
		server.Stop()
		return nil
	})
	group.Go(func() error { return server.Serve(listener) })
	return func(pool *replicas.Pool, a *discover.Assignment) {
		if err := server.Set(cmp.Or(pool.Cluster, a.Cluster, pool.Name), a.Endpoints); err != nil {
			log.Error("cannot serve the endpoints by EDS", "pool", pool.Name, "reason", err)
		}
	}
}

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	var unused unusedConns
	server.ConnState = unused.note
	server.RegisterOnShutdown(unused.close)
	return server
}

// serve serves until ctx ends, and then the calls that are open.
func serve(ctx context.Context, group *errgroup.Group, server *http.Server, listener net.Listener) {
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCalls)
		defer cancel()
		if err := server.Shutdown(last); err != nil {
			return server.Close()
		}
		return nil
	})
}

// unusedConns are the connections that have not carried a request yet. Clients open some in advance, and http.Server.Shutdown would wait
// for them as for open calls.
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

func handler(found *replicas.Replicas, watcher *kube.Watcher, rel *relay.Relay, m *metrics) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(endpoint.SnapshotPath, rel)
	mux.Handle(endpoint.SnapshotPath+".json", rel)
	mux.Handle(endpoint.RelayPath, rel)
	mux.Handle(quota.Path, quotaHandler(m.quota))
	mux.Handle("GET /metrics", m.handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		missing := m.tokens.missing()
		if rel.Snapshot() == nil {
			missing = append(append(missing, found.Missing()...), watcher.Missing()...)
		} else if len(missing) == 0 {
			fmt.Fprintln(w, "ok")
			return
		}
		w.Header().Set("Retry-After", "1")
		http.Error(w, "not ready\n"+strings.Join(missing, "\n"), http.StatusServiceUnavailable)
	})
	return mux
}
