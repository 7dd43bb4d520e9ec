package picker

import (
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/prefix"
	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Factory makes the filter "picker".
var Factory = filter.Factory{
	Name:        "picker",
	Reads:       filter.FactRoute,
	Writes:      filter.FactTarget,
	FailureMode: filter.FailOpen,
	New:         newFilter,
	Metrics:     func(m filter.Metrics) { newMetrics(m) },
	Help:        help,
}

// maxEndpoints bounds the ranked list: each entry is one more attempt that Envoy may
// make.
const maxEndpoints = 16

// settings are what the configuration says, with the defaults of defaultSettings.
type settings struct {
	endpoints int           // length of the ranked list
	pool      string        // pool of requests that bbr gave none
	stale     time.Duration // age at which a gauge says nothing
	shed      bool          // refuse requests of any priority when every replica is saturated
	slowStart time.Duration // how long a replica that has just become ready gets less

	minHit       float64 // share of a prompt that must be cached for it to stay
	cachedWeight float64 // of a token in the cache, against one to wait for
	maxTokens    int64   // tokens in flight, above twice the pool's mean, at which it does not stay
	memory       int64   // bytes of the prefix index
	session      string  // header that names the session
	explainWith  string  // response header that says why, "" for none

	saturation saturation
	health     healthSettings
	objectives objectives
}

// Sizes of the prefix index: each wasm VM has its own, and each worker has a VM.
const (
	memoryOfProcess = 64 << 20
	memoryOfVM      = 32 << 20
	maxMemory       = 4 << 30
)

func defaultSettings(d *filter.Deps) settings {
	s := settings{
		endpoints: 3,
		stale:     endpoint.DefaultStale,
		slowStart: 10 * time.Second,
		minHit:    0.8,
		// See docs/benchmarks.md for other values on other workloads.
		cachedWeight: 32,
		// Some 15 seconds of prefill of a large model on one H100 (15,000 to 20,000
		// tokens a second): the longest wait to compute less. With a much lower value
		// a busy fleet moves its conversations around and gets busier.
		maxTokens: 262144,
		memory:    memoryOfProcess,
		session:   "x-session-token",
		// As in the saturation detectors of the Gateway API Inference Extension.
		saturation: saturation{queue: 5, kv: 0.8, inFlight: 100},
		health: healthSettings{
			failures: 3, eject: 5 * time.Second, maxEject: 5 * time.Minute, share: 0.5,
			firstByte: 3 * time.Second,
		},
	}
	if d.Worker != "" {
		s.memory = memoryOfVM
	}
	return s
}

func newFilter(o *conf.Object, d *filter.Deps) filter.Filter {
	f := &Filter{settings: defaultSettings(d), profile: profiles[0], deps: d, metrics: newMetrics(d.Metrics)}
	f.read(o)
	f.needs = f.profile.allNeeds()
	f.fleet = d.Kept("picker", func() any { return newFleet(d) }).(*fleet)
	if d.Watch != nil {
		d.Watch(f.readSnapshot)
	}
	if f.needs.Has(scorer.NeedPrefix) {
		f.fleet.remember(f.memory)
		if d.Peers != nil {
			d.Peers.Hear(f.receive)
		}
	}
	return f
}

func (f *Filter) read(o *conf.Object) {
	o.Value("profile", func(v *conf.Value) { f.profile = readProfile(v, profiles) })
	o.Int("endpoints", &f.endpoints, 1, maxEndpoints)
	o.String("pool", &f.pool, conf.NotEmpty)
	o.Duration("stale", &f.stale, 50*time.Millisecond, time.Hour)
	o.Duration("slowStart", &f.slowStart, 0, time.Hour)
	o.Bool("shed", &f.shed)
	o.String("explainHeader", &f.explainWith, conf.HeaderName)
	o.Object("prefix", func(o *conf.Object) {
		o.Size("memory", &f.memory, prefix.MinBytes, maxMemory)
		o.Float("hit", &f.minHit, 0.01, 1)
		o.Float("weight", &f.cachedWeight, 1, 1000)
		o.Alias("maxTokens", "saturation")
		tokens := int(f.maxTokens)
		o.Int("maxTokens", &tokens, 1, 1<<30)
		f.maxTokens = int64(tokens)
	})
	o.Alias("saturation", "room")
	o.Object("saturation", func(o *conf.Object) {
		o.Int("queue", &f.saturation.queue, 1, 1<<30)
		o.Float("kv", &f.saturation.kv, 0.01, 1)
		o.Int("inFlight", &f.saturation.inFlight, 1, 1<<30)
	})
	o.Object("health", func(o *conf.Object) {
		h := &f.health
		o.Int("failures", &h.failures, 1, 1000)
		o.Duration("eject", &h.eject, 100*time.Millisecond, time.Hour)
		o.Duration("maxEject", &h.maxEject, 100*time.Millisecond, 24*time.Hour)
		o.Float("share", &h.share, 0, 1)
		o.Alias("firstByte", "silence")
		o.Duration("firstByte", &h.firstByte, 100*time.Millisecond, time.Hour)
		if h.maxEject < h.eject {
			o.Errorf("maxEject", "is shorter than eject")
		}
	})
	f.objectives = readObjectives(o)
	o.Object("session", func(o *conf.Object) {
		o.String("header", &f.session, conf.HeaderName)
	})
}
