package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/cmd/companion/relay"
	"github.com/inlet-proxy/inlet/cmd/companion/scrape"
)

// metrics serves /metrics, in the text exposition format of Prometheus (0.0.4). The names inference_pool_* are those of the Gateway API
// Inference Extension, which dashboards and autoscalers of this field read already.
type metrics struct {
	scraper        *scrape.Scraper
	relay          *relay.Relay
	stale          time.Duration // gauges of that age count no more
	loaded, failed atomic.Uint64 // endpoint files
}

func (m *metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	var e exposition
	m.pools(&e)
	m.scrapes(&e)
	m.proxies(&e)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(e.Bytes())
}

func (m *metrics) pools(e *exposition) {
	pools := m.scraper.Pools(time.Now())
	type totals struct{ ready, fresh, waiting, running, kv float64 }
	sums := make([]totals, len(pools))
	pollers := 0
	for i, p := range pools {
		t := &sums[i]
		pollers += len(p.Endpoints)
		for _, ep := range p.Endpoints {
			if ep.Ready {
				t.ready++
			}
			if g := ep.Gauges; g.Known && g.Age < m.stale {
				t.fresh++
				t.waiting += float64(g.Waiting)
				t.running += float64(g.Running)
				t.kv += g.KVUse
			}
		}
	}

	e.family("inlet_companion_endpoints", "gauge", "Replicas of the pool.")
	for _, p := range pools {
		e.sample(float64(len(p.Endpoints)), "pool", p.Name)
	}
	e.family("inlet_companion_stale_endpoints", "gauge", "Replicas whose gauges are unknown or too old to count.")
	for i, p := range pools {
		e.sample(float64(len(p.Endpoints))-sums[i].fresh, "pool", p.Name)
	}
	e.family("inference_pool_ready_pods", "gauge", "Ready replicas of the pool.")
	for i, p := range pools {
		e.sample(sums[i].ready, "name", p.Name)
	}
	mean := func(name, help, label string, of func(totals) float64) {
		e.family(name, "gauge", help)
		for i, p := range pools {
			if t := sums[i]; t.fresh > 0 { // no mean of nothing: a pool that says nothing must not look idle to an autoscaler
				e.sample(of(t)/t.fresh, label, p.Name)
			}
		}
	}
	mean("inference_pool_average_queue_size", "Mean number of requests in a replica's queue, over the replicas with fresh gauges.", "name", func(t totals) float64 { return t.waiting })
	mean("inference_pool_average_kv_cache_utilization", "Mean share (0 to 1) of the KV cache in use, over the replicas with fresh gauges.", "name", func(t totals) float64 { return t.kv })
	mean("inlet_companion_average_running_requests", "Mean number of requests that a replica works on, over the replicas with fresh gauges.", "pool", func(t totals) float64 { return t.running })

	e.family("inlet_companion_pollers", "gauge", "Pollers at work, one for each replica of each pool.")
	e.sample(float64(pollers))
}

func (m *metrics) scrapes(e *exposition) {
	stats := m.scraper.Stats()
	pools := slices.Sorted(maps.Keys(stats))
	e.family("inlet_companion_scrapes_total", "counter", "Scrapes by result: ok, incomplete (the replica answered, a metric was missing), failed.")
	for _, p := range pools {
		e.sample(float64(stats[p].OK), "pool", p, "result", "ok")
		e.sample(float64(stats[p].Incomplete), "pool", p, "result", "incomplete")
		e.sample(float64(stats[p].Failed), "pool", p, "result", "failed")
	}
	e.family("inlet_companion_scrape_duration_seconds_total", "counter", "Time that all scrapes took together.")
	for _, p := range pools {
		e.sample(stats[p].Took.Seconds(), "pool", p)
	}
	e.family("inlet_companion_endpoint_files_total", "counter", "Endpoint files read, by result: loaded, failed.")
	e.sample(float64(m.loaded.Load()), "result", "loaded")
	e.sample(float64(m.failed.Load()), "result", "failed")
}

func (m *metrics) proxies(e *exposition) {
	s := m.relay.Stats()
	for _, one := range []struct {
		name, kind, help string
		value            float64
	}{
		{"inlet_companion_snapshot_version", "gauge", "Version of the current snapshot, 0 before the first.", float64(s.Version)},
		{"inlet_companion_workers", "gauge", "Workers of proxies that hold a lease.", float64(s.Workers)},
		{"inlet_companion_open_calls", "gauge", "Long polls that wait.", float64(s.Waiting)},
		{"inlet_companion_sent_bytes_total", "counter", "Bytes of the snapshots sent.", float64(s.SentBytes)},
	} {
		e.family(one.name, one.kind, one.help)
		e.sample(one.value)
	}
	e.family("inlet_companion_calls_total", "counter", "Answers to proxies: snapshot, unchanged, early (there was no snapshot yet).")
	e.sample(float64(s.Sent), "answer", "snapshot")
	e.sample(float64(s.Unchanged), "answer", "unchanged")
	e.sample(float64(s.Early), "answer", "early")
}

// exposition writes the text format.
type exposition struct {
	bytes.Buffer
	name string
}

func (e *exposition) family(name, kind, help string) {
	e.name = name
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// sample writes one sample of the family; labels are names and values in turn.
func (e *exposition) sample(value float64, labels ...string) {
	e.WriteString(e.name)
	for i := 0; i < len(labels); i += 2 {
		sep := ','
		if i == 0 {
			sep = '{'
		}
		fmt.Fprintf(e, `%c%s="%s"`, sep, labels[i], escapeLabel.Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		e.WriteByte('}')
	}
	e.WriteByte(' ')
	e.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	e.WriteByte('\n')
}
