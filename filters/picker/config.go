package picker

import (
	"time"

	"github.com/inlet-proxy/inlet/filters/picker/prefix"
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
	Help:        help,
}

// maxEndpoints bounds the ranked list: each entry is one more attempt that
// Envoy may make.
const maxEndpoints = 16

// settings are what the document says, with the defaults of defaultSettings.
type settings struct {
	endpoints int           // length of the ranked list
	pool      string        // pool of requests that bbr gave none
	stale     time.Duration // age at which a gauge says nothing
	shed      bool          // refuse whatever its priority when nothing has room
	slowStart time.Duration // how long a replica that has just become ready gets less

	hit         float64 // share of a prompt from which on it stays where it is
	weight      float64 // of a token in the cache, against one to wait for
	saturation  int64   // tokens in flight, above twice the pool's mean, at which it does not
	memory      int64   // bytes of the prefix index
	session     string  // header that names the session
	explainWith string  // response header that says why, "" for none

	room       room
	health     healthSettings
	objectives objectives
}

// Sizes of the prefix index: a wasm VM has its own, and there is one for each
// worker.
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
		hit:       0.8,
		weight:    32, // see docs/benchmarks.md for other values on other workloads
		// Some 15 seconds of prefill of a large model on one H100 (15,000 to 20,000
		// tokens a second): what one waits, at the worst, to compute less. Much
		// lower, and a busy fleet moves its conversations around and gets busier.
		saturation: 262144,
		memory:     memoryOfProcess,
		session:    "x-session-token",
		// As the saturation detectors of the Gateway API Inference Extension have it.
		room: room{queue: 5, kv: 0.8, inFlight: 100},
		health: healthSettings{
			failures: 3, eject: 5 * time.Second, maxEject: 5 * time.Minute, share: 0.5,
			silence: 3 * time.Second,
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
	f.fleet = d.Kept("picker", func() any { return newFleet(d) }).(*fleet)
	if d.Watch != nil {
		d.Watch(f.see)
	}
	if f.profile.usesPrefixes() {
		f.fleet.remember(f.memory)
		if d.Peers != nil {
			d.Peers.Hear(f.hear)
		}
	}
	return f
}

func (f *Filter) read(o *conf.Object) {
	name := f.profile.name()
	o.Enum("profile", &name, profileNames()...)
	for _, p := range profiles {
		if p.name() == name {
			f.profile = p
		}
	}
	o.Int("endpoints", &f.endpoints, 1, maxEndpoints)
	o.String("pool", &f.pool, conf.NotEmpty)
	o.Duration("stale", &f.stale, 50*time.Millisecond, time.Hour)
	o.Duration("slowStart", &f.slowStart, 0, time.Hour)
	o.Bool("shed", &f.shed)
	o.String("explainHeader", &f.explainWith, conf.HeaderName)
	o.Object("prefix", func(o *conf.Object) {
		o.Size("memory", &f.memory, prefix.MinBytes, maxMemory)
		o.Float("hit", &f.hit, 0.01, 1)
		o.Float("weight", &f.weight, 1, 1000)
		tokens := int(f.saturation)
		o.Int("saturation", &tokens, 1, 1<<30)
		f.saturation = int64(tokens)
	})
	o.Object("room", func(o *conf.Object) {
		o.Int("queue", &f.room.queue, 1, 1<<30)
		o.Float("kv", &f.room.kv, 0.01, 1)
		o.Int("inFlight", &f.room.inFlight, 1, 1<<30)
	})
	o.Object("health", func(o *conf.Object) {
		h := &f.health
		o.Int("failures", &h.failures, 1, 1000)
		o.Duration("eject", &h.eject, 100*time.Millisecond, time.Hour)
		o.Duration("maxEject", &h.maxEject, 100*time.Millisecond, 24*time.Hour)
		o.Float("share", &h.share, 0, 1)
		o.Duration("silence", &h.silence, 100*time.Millisecond, time.Hour)
		if h.maxEject < h.eject {
			o.Errorf("maxEject", "is shorter than eject")
		}
	})
	f.objectives = readObjectives(o)
	o.Object("session", func(o *conf.Object) {
		o.String("header", &f.session, conf.HeaderName)
	})
}

func profileNames() []string {
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.name()
	}
	return names
}
