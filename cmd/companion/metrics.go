package main

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/inlet-proxy/inlet/internal/companion/quota"
	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/internal/version"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// metrics collects what /metrics serves, from the parts that know it. The names inference_pool_* are those of the Gateway API Inference
// Extension and llm_d_epp_* those of llm-d's router, which existing dashboards and autoscalers read. They have the same values.
type metrics struct {
	replicas *replicas.Replicas
	relay    *relay.Relay
	quota    *quota.Service // nil: none
	tokens   keepers
	stale    time.Duration // gauges of this age no longer count
}

func (m *metrics) handler() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// aliases are the descriptions of one metric under several names.
type aliases []*prometheus.Desc

// describeAliases describes a metric. Each of the names is followed by its labels.
func describeAliases(help string, names ...[]string) (a aliases) {
	for _, n := range names {
		a = append(a, describe(n[0], help, n[1:]...))
	}
	return a
}

func (a aliases) gauge(ch chan<- prometheus.Metric, v float64, labels ...string) {
	for _, d := range a {
		gauge(ch, d, v, labels...)
	}
}

var (
	buildDesc     = describe("inlet_companion_build_info", "1, with the version of the companion.", "version")
	endpointsDesc = describe("inlet_companion_endpoints", "Replicas of the pool.", "pool")
	staleDesc     = describe("inlet_companion_stale_endpoints", "Replicas whose gauges are unknown or too old to count.", "pool")
	readyDescs    = describeAliases("Ready replicas of the pool.",
		[]string{"inference_pool_ready_pods", "name"}, []string{"llm_d_epp_ready_endpoints", "name"})
	queueDescs = describeAliases("Mean number of waiting requests per replica, over the replicas with fresh gauges.",
		[]string{"inference_pool_average_queue_size", "name"}, []string{"llm_d_epp_average_queue_size", "name"})
	kvDescs = describeAliases("Mean KV cache utilization (0 to 1), over the replicas with fresh gauges.",
		[]string{"inference_pool_average_kv_cache_utilization", "name"}, []string{"llm_d_epp_average_kv_cache_utilization", "name"})
	runningDescs = describeAliases("Mean number of running requests per replica, over the replicas with fresh gauges.",
		[]string{"llm_d_epp_average_running_requests", "name"}, []string{"inlet_companion_average_running_requests", "pool"})
	endpointQueueDescs = describeAliases("Waiting requests of a replica with fresh gauges.",
		[]string{"inference_pool_per_pod_queue_size", "name", "model_server_pod"},
		[]string{"llm_d_epp_per_endpoint_queue_size", "name", "model_server_endpoint"})
	poolWaitingDesc = describe("inlet_companion_waiting_requests", "Waiting requests of all replicas with fresh gauges.", "pool")
	poolRunningDesc = describe("inlet_companion_running_requests", "Running requests of all replicas with fresh gauges.", "pool")

	// A replica that serves a model under several names, or several adapters, counts for each.
	modelReadyDesc   = describe("inlet_companion_model_ready_replicas", "Ready replicas that serve the model or adapter.", "model")
	modelWaitingDesc = describe("inlet_companion_model_waiting_requests",
		"Waiting requests, for any model, of the replicas with fresh gauges that serve the model.", "model")
	modelRunningDesc = describe("inlet_companion_model_running_requests",
		"Running requests, for any model, of the replicas with fresh gauges that serve the model.", "model")
	modelKVDesc = describe("inlet_companion_model_average_kv_cache_utilization",
		"Mean KV cache utilization (0 to 1), over the replicas with fresh gauges that serve the model.", "model")
	modelsDesc = describe("inlet_companion_models", "Models and adapters that the replicas serve, including those beyond the number that have series of their own.")

	pollersDesc = describe("inlet_companion_pollers", "Replicas that are scraped, each counted once even if it is in several pools.")

	scrapesDesc = describe("inlet_companion_scrapes_total",
		"Scrapes by result: ok, incomplete (the replica responded, but a metric was missing), failed.", "pool", "result")
	lateDesc = describe("inlet_companion_late_scrapes_total",
		"Scrapes that took so long, or started so late, that the gauges were older than half of stale.", "pool")
	ageDesc   = describe("inlet_companion_oldest_gauge_seconds", "Age of the oldest gauges of a ready replica.", "pool")
	tookDesc  = describe("inlet_companion_scrape_duration_seconds_total", "Total duration of all scrapes.", "pool")
	listsDesc = describe("inlet_companion_endpoint_lists_total", "Endpoint lists read from the pools' sources, by result: loaded, failed.", "result")

	versionDesc = describe("inlet_companion_snapshot_version", "Version of the current snapshot, 0 before the first.")
	workersDesc = describe("inlet_companion_workers", "Proxy workers that polled recently (they hold a lease).")
	openDesc    = describe("inlet_companion_open_calls", "Open long polls.")
	sentDesc    = describe("inlet_companion_sent_bytes_total", "Bytes of the snapshots and deltas sent.")
	callsDesc   = describe("inlet_companion_calls_total",
		"Responses to polls: snapshot (complete), delta, unchanged, early (there was no snapshot yet).", "answer")
)

var (
	proxiesDesc  = describe("inlet_companion_relay_proxies", "Envoys that report to the relay.")
	reportsDesc  = describe("inlet_companion_relay_tells_total", "Reports from proxies, by result: taken, refused.", "result")
	reportedDesc = describe("inlet_companion_relay_received_bytes_total", "Bytes of the reports that were taken.")
	relayedDesc  = describe("inlet_companion_relay_sent_bytes_total", "Bytes sent to proxies about other proxies, in addition to snapshots and deltas.")
	notesDesc    = describe("inlet_companion_relay_notes_total",
		"Notes about prompts, by outcome: taken, dropped (over the quota of their proxy), forgotten (out of memory), sent (once per proxy).", "result")
	storedDesc  = describe("inlet_companion_relay_remembered_notes", "Stored notes.")
	memoryDesc  = describe("inlet_companion_relay_memory_bytes", "Memory used by the stored notes.")
	expiredDesc = describe("inlet_companion_relay_expired_leases_total", "Proxies that stopped reporting while they had requests in flight.")
)

// Describe describes nothing, which makes this an unchecked collector, since the set of pools changes.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	pools := m.replicas.Pools(time.Now())
	for _, p := range pools {
		m.collectPool(ch, p)
	}
	gauge(ch, buildDesc, 1, version.String())
	m.collectModels(ch, pools)
	gauge(ch, pollersDesc, float64(m.replicas.Pollers()))
	m.collectScrapes(ch)
	m.collectCalls(ch)
	m.tokens.collect(ch)
	if m.quota != nil {
		collectQuota(ch, m.quota.Stats())
	}
}

func (m *metrics) collectPool(ch chan<- prometheus.Metric, p endpoint.Pool) {
	var l replicas.Load
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		l.Add(e, m.stale)
		if e.Gauges.Known && e.Gauges.Age < m.stale {
			endpointQueueDescs.gauge(ch, float64(e.Gauges.Waiting), p.Name, e.Address)
		}
	}
	gauge(ch, endpointsDesc, l.Replicas, p.Name)
	gauge(ch, staleDesc, l.Replicas-l.Fresh, p.Name)
	readyDescs.gauge(ch, l.Ready, p.Name)
	gauge(ch, ageDesc, l.Oldest.Seconds(), p.Name)
	if l.Fresh == 0 {
		return // a pool without data must not look idle to an autoscaler
	}
	queueDescs.gauge(ch, l.Waiting/l.Fresh, p.Name)
	kvDescs.gauge(ch, l.KV/l.Fresh, p.Name)
	runningDescs.gauge(ch, l.Running/l.Fresh, p.Name)
	gauge(ch, poolWaitingDesc, l.Waiting, p.Name)
	gauge(ch, poolRunningDesc, l.Running, p.Name)
}

// maxModelSeries bounds the models that have series of their own.
const maxModelSeries = 1000

func (m *metrics) collectModels(ch chan<- prometheus.Metric, pools []endpoint.Pool) {
	models := modelLoads(pools, m.stale)
	gauge(ch, modelsDesc, float64(len(models)))
	for i, name := range slices.Sorted(maps.Keys(models)) {
		if i == maxModelSeries {
			return
		}
		l := models[name]
		gauge(ch, modelReadyDesc, l.Ready, name)
		if l.Fresh == 0 {
			continue
		}
		gauge(ch, modelWaitingDesc, l.Waiting, name)
		gauge(ch, modelRunningDesc, l.Running, name)
		gauge(ch, modelKVDesc, l.KV/l.Fresh, name)
	}
}

// modelLoads returns the load by model. A replica in two pools counts once.
func modelLoads(pools []endpoint.Pool, stale time.Duration) map[string]*replicas.Load {
	models := make(map[string]*replicas.Load)
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
					models[name] = new(replicas.Load)
				}
				models[name].Add(e, stale)
			}
		}
	}
	return models
}

func (m *metrics) collectScrapes(ch chan<- prometheus.Metric) {
	for pool, s := range m.replicas.Stats() {
		counter(ch, scrapesDesc, float64(s.OK), pool, "ok")
		counter(ch, scrapesDesc, float64(s.Incomplete), pool, "incomplete")
		counter(ch, scrapesDesc, float64(s.Failed), pool, "failed")
		counter(ch, lateDesc, float64(s.Late), pool)
		counter(ch, tookDesc, s.Took.Seconds(), pool)
	}
	loaded, failed := m.replicas.Lists()
	counter(ch, listsDesc, float64(loaded), "loaded")
	counter(ch, listsDesc, float64(failed), "failed")
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
	counter(ch, reportsDesc, float64(s.Reports), "taken")
	counter(ch, reportsDesc, float64(s.Refused), "refused")
	counter(ch, reportedDesc, float64(s.ReportedBytes))
	counter(ch, relayedDesc, float64(s.SentBytes))
	counter(ch, notesDesc, float64(s.Notes), "taken")
	counter(ch, notesDesc, float64(s.Dropped), "dropped")
	counter(ch, notesDesc, float64(s.Forgotten), "forgotten")
	counter(ch, notesDesc, float64(s.SentNotes), "sent")
	gauge(ch, storedDesc, float64(s.Remembered))
	gauge(ch, memoryDesc, float64(s.Bytes))
	counter(ch, expiredDesc, float64(s.Expired))
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}
