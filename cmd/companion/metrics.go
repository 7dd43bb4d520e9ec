package main

import (
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/internal/companion/scrape"
	"github.com/inlet-proxy/inlet/internal/version"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// metrics collects what /metrics serves, from the parts that know it. The names inference_pool_* are those of the Gateway API Inference
// Extension and llm_d_epp_* those of llm-d's router, which dashboards and autoscalers of this field read already. They have the same values.
type metrics struct {
	scraper        *scrape.Scraper
	relay          *relay.Relay
	stale          time.Duration // gauges of that age count no more
	loaded, failed atomic.Uint64 // lists of endpoints
}

func (m *metrics) handler() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// known are the descriptions of one metric under the names that others gave it.
type known []*prometheus.Desc

func (k known) gauge(ch chan<- prometheus.Metric, v float64, labels ...string) {
	for _, d := range k {
		gauge(ch, d, v, labels...)
	}
}

var (
	buildDesc     = describe("inlet_companion_build_info", "1, with the version of the companion.", "version")
	endpointsDesc = describe("inlet_companion_endpoints", "Replicas of the pool.", "pool")
	staleDesc     = describe("inlet_companion_stale_endpoints", "Replicas whose gauges are unknown or too old to count.", "pool")
	readyDescs    = known{
		describe("inference_pool_ready_pods", "Ready replicas of the pool.", "name"),
		describe("llm_d_epp_ready_endpoints", "Ready replicas of the pool.", "name"),
	}
	queueDescs = known{
		describe("inference_pool_average_queue_size", "Mean number of requests in a replica's queue, over the replicas with fresh gauges.", "name"),
		describe("llm_d_epp_average_queue_size", "Mean number of requests in a replica's queue, over the replicas with fresh gauges.", "name"),
	}
	kvDescs = known{
		describe("inference_pool_average_kv_cache_utilization", "Mean share (0 to 1) of the KV cache in use, over the replicas with fresh gauges.", "name"),
		describe("llm_d_epp_average_kv_cache_utilization", "Mean share (0 to 1) of the KV cache in use, over the replicas with fresh gauges.", "name"),
	}
	runningDescs = known{
		describe("llm_d_epp_average_running_requests", "Mean number of requests that a replica works on, over the replicas with fresh gauges.", "name"),
		describe("inlet_companion_average_running_requests", "Mean number of requests that a replica works on, over the replicas with fresh gauges.", "pool"),
	}
	endpointQueueDescs = known{
		describe("inference_pool_per_pod_queue_size", "Requests in the queue of a replica with fresh gauges.", "name", "model_server_pod"),
		describe("llm_d_epp_per_endpoint_queue_size", "Requests in the queue of a replica with fresh gauges.", "name", "model_server_endpoint"),
	}
	poolWaitingDesc = describe("inlet_companion_waiting_requests", "Requests in the queues of the replicas with fresh gauges, together.", "pool")
	poolRunningDesc = describe("inlet_companion_running_requests", "Requests that the replicas with fresh gauges work on, together.", "pool")

	// A replica that serves a model under several names, or several adapters, counts for each of them.
	modelReadyDesc   = describe("inlet_companion_model_ready_replicas", "Ready replicas that serve the model or adapter.", "model")
	modelWaitingDesc = describe("inlet_companion_model_waiting_requests",
		"Requests, for whatever model, in the queues of the replicas with fresh gauges that serve the model.", "model")
	modelRunningDesc = describe("inlet_companion_model_running_requests",
		"Requests, for whatever model, that the replicas with fresh gauges that serve the model work on.", "model")
	modelKVDesc = describe("inlet_companion_model_average_kv_cache_utilization",
		"Mean share (0 to 1) of the KV cache in use, over the replicas with fresh gauges that serve the model.", "model")
	modelsDesc = describe("inlet_companion_models", "Models and adapters that the replicas serve, also those that are too many to be told one by one.")

	pollersDesc = describe("inlet_companion_pollers", "Pollers at work, one for each replica, however many pools it is in.")

	scrapesDesc = describe("inlet_companion_scrapes_total",
		"Scrapes by result: ok, incomplete (the replica answered, a metric was missing), failed.", "pool", "result")
	lateDesc = describe("inlet_companion_late_scrapes_total",
		"Scrapes that took so long, or came so late, that the gauges had become older than half of stale.", "pool")
	ageDesc   = describe("inlet_companion_oldest_gauge_seconds", "Age of the oldest gauges of a ready replica.", "pool")
	tookDesc  = describe("inlet_companion_scrape_duration_seconds_total", "Time that all scrapes took together.", "pool")
	listsDesc = describe("inlet_companion_endpoint_lists_total", "Lists of endpoints from the pools' sources, by result: loaded, failed.", "result")

	versionDesc = describe("inlet_companion_snapshot_version", "Version of the current snapshot, 0 before the first.")
	workersDesc = describe("inlet_companion_workers", "Workers of proxies that hold a lease.")
	openDesc    = describe("inlet_companion_open_calls", "Long polls that wait.")
	sentDesc    = describe("inlet_companion_sent_bytes_total", "Bytes of the snapshots and deltas sent.")
	callsDesc   = describe("inlet_companion_calls_total",
		"Answers to proxies: snapshot (whole), delta, unchanged, early (there was no snapshot yet).", "answer")
)

var (
	proxiesDesc = describe("inlet_companion_relay_proxies", "Envoys that take part in the relay.")
	tellsDesc   = describe("inlet_companion_relay_tells_total", "Calls by which proxies tell what they know, by result: taken, refused.", "result")
	toldDesc    = describe("inlet_companion_relay_received_bytes_total", "Bytes of the tells that were taken.")
	relayedDesc = describe("inlet_companion_relay_sent_bytes_total", "Bytes of what answers had of other proxies, besides those of snapshots and deltas.")
	notesDesc   = describe("inlet_companion_relay_notes_total",
		"Notes about prompts by what became of them: taken, dropped (over the quota of their proxy), forgotten (no more memory), sent (once for each proxy).", "result")
	rememberedDesc = describe("inlet_companion_relay_remembered_notes", "Notes that are remembered.")
	memoryDesc     = describe("inlet_companion_relay_memory_bytes", "What the notes that are remembered take.")
	expiredDesc    = describe("inlet_companion_relay_expired_leases_total", "Proxies that fell silent with requests in flight.")
)

// Describe describes nothing, which makes the collector an unchecked one: which pools there are changes.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	pools := m.scraper.Pools(time.Now())
	for _, p := range pools {
		m.collectPool(ch, p)
	}
	gauge(ch, buildDesc, 1, version.String())
	m.collectModels(ch, pools)
	gauge(ch, pollersDesc, float64(m.scraper.Pollers()))
	m.collectScrapes(ch)
	m.collectCalls(ch)
}

// load adds up the replicas of a pool, or those that serve a model.
type load struct {
	replicas, ready, fresh float64
	waiting, running, kv   float64       // of the fresh ones
	oldest                 time.Duration // of the ready ones that have gauges
}

func (l *load) add(e *endpoint.Endpoint, stale time.Duration) {
	l.replicas++
	if e.Ready {
		l.ready++
		if e.Gauges.Known {
			l.oldest = max(l.oldest, e.Gauges.Age)
		}
	}
	if g := e.Gauges; g.Known && g.Age < stale {
		l.fresh++
		l.waiting += float64(g.Waiting)
		l.running += float64(g.Running)
		l.kv += g.KVUse
	}
}

func (m *metrics) collectPool(ch chan<- prometheus.Metric, p endpoint.Pool) {
	var l load
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		l.add(e, m.stale)
		if e.Gauges.Known && e.Gauges.Age < m.stale {
			endpointQueueDescs.gauge(ch, float64(e.Gauges.Waiting), p.Name, e.Address)
		}
	}
	gauge(ch, endpointsDesc, l.replicas, p.Name)
	gauge(ch, staleDesc, l.replicas-l.fresh, p.Name)
	readyDescs.gauge(ch, l.ready, p.Name)
	gauge(ch, ageDesc, l.oldest.Seconds(), p.Name)
	if l.fresh == 0 {
		return // no mean of nothing: a pool that says nothing must not look idle to an autoscaler
	}
	queueDescs.gauge(ch, l.waiting/l.fresh, p.Name)
	kvDescs.gauge(ch, l.kv/l.fresh, p.Name)
	runningDescs.gauge(ch, l.running/l.fresh, p.Name)
	gauge(ch, poolWaitingDesc, l.waiting, p.Name)
	gauge(ch, poolRunningDesc, l.running, p.Name)
}

// maxModelSeries bounds the models that are told one by one.
const maxModelSeries = 1000

func (m *metrics) collectModels(ch chan<- prometheus.Metric, pools []endpoint.Pool) {
	models := modelLoads(pools, m.stale)
	gauge(ch, modelsDesc, float64(len(models)))
	for i, name := range slices.Sorted(maps.Keys(models)) {
		if i == maxModelSeries {
			return
		}
		l := models[name]
		gauge(ch, modelReadyDesc, l.ready, name)
		if l.fresh == 0 {
			continue
		}
		gauge(ch, modelWaitingDesc, l.waiting, name)
		gauge(ch, modelRunningDesc, l.running, name)
		gauge(ch, modelKVDesc, l.kv/l.fresh, name)
	}
}

// modelLoads adds up by name. A replica in two pools counts once.
func modelLoads(pools []endpoint.Pool, stale time.Duration) map[string]*load {
	models := make(map[string]*load)
	seen := make(map[string]bool) // addresses
	for _, p := range pools {
		for i := range p.Endpoints {
			e := &p.Endpoints[i]
			if e.Models == nil || seen[e.Address] {
				continue
			}
			seen[e.Address] = true
			for name := range e.Models.All() {
				if models[name] == nil {
					models[name] = new(load)
				}
				models[name].add(e, stale)
			}
		}
	}
	return models
}

func (m *metrics) collectScrapes(ch chan<- prometheus.Metric) {
	for pool, s := range m.scraper.Stats() {
		counter(ch, scrapesDesc, float64(s.OK), pool, "ok")
		counter(ch, scrapesDesc, float64(s.Incomplete), pool, "incomplete")
		counter(ch, scrapesDesc, float64(s.Failed), pool, "failed")
		counter(ch, lateDesc, float64(s.Late), pool)
		counter(ch, tookDesc, s.Took.Seconds(), pool)
	}
	counter(ch, listsDesc, float64(m.loaded.Load()), "loaded")
	counter(ch, listsDesc, float64(m.failed.Load()), "failed")
}

func (m *metrics) collectCalls(ch chan<- prometheus.Metric) {
	s := m.relay.Stats()
	gauge(ch, versionDesc, float64(s.Version))
	gauge(ch, workersDesc, float64(s.Workers))
	gauge(ch, openDesc, float64(s.Waiting))
	counter(ch, sentDesc, float64(s.SentBytes))
	counter(ch, callsDesc, float64(s.Sent), "snapshot")
	counter(ch, callsDesc, float64(s.Deltas), "delta")
	counter(ch, callsDesc, float64(s.Unchanged), "unchanged")
	counter(ch, callsDesc, float64(s.Early), "early")
	m.collectRelay(ch, &s.Relay)
}

func (m *metrics) collectRelay(ch chan<- prometheus.Metric, s *relay.BoardStats) {
	gauge(ch, proxiesDesc, float64(s.Proxies))
	counter(ch, tellsDesc, float64(s.Tells), "taken")
	counter(ch, tellsDesc, float64(s.Refused), "refused")
	counter(ch, toldDesc, float64(s.ToldBytes))
	counter(ch, relayedDesc, float64(s.SentBytes))
	counter(ch, notesDesc, float64(s.Notes), "taken")
	counter(ch, notesDesc, float64(s.Dropped), "dropped")
	counter(ch, notesDesc, float64(s.Forgotten), "forgotten")
	counter(ch, notesDesc, float64(s.SentNotes), "sent")
	gauge(ch, rememberedDesc, float64(s.Remembered))
	gauge(ch, memoryDesc, float64(s.Bytes))
	counter(ch, expiredDesc, float64(s.Expired))
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}
