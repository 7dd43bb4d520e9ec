// Package replicas finds the replicas of each pool and scrapes them: what a companion of its own and the one inside the native module have in
// common, from the configuration to the state of all replicas.
package replicas

import (
	"cmp"
	"net/netip"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/internal/companion/scrape"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Config says which replicas there are and how they are scraped.
type Config struct {
	Scrape  Scrape
	Publish time.Duration // the least time between two versions
	Stale   time.Duration // the age at which the proxies stop trusting a gauge
	Pools   []Pool
}

// Scrape is how replicas are scraped; a pool can override what is in Plan.
type Scrape struct {
	Interval, Timeout, Models time.Duration
	Plan                      scrape.Plan
}

// Pool is one pool of replicas. One of EDS, Static, DNS and Kubernetes is set.
type Pool struct {
	Name       string
	EDS        string         // path of Envoy's EDS file
	Static     []string       // ip:port
	DNS        *discover.Name // with the pool's name
	Kubernetes *Kubernetes
	Cluster    string // of Envoy, in the EDS that is served; "" for the one that the source names, else the pool's name
	Plan       scrape.Plan
}

// Kubernetes says which object in a cluster has the replicas. Who follows it passes their lists to Replicas.Set: this package needs no client of
// Kubernetes.
type Kubernetes struct {
	Namespace              string // "" for that of the process
	InferencePool, Service string // one of them is set
	Group                  string // of the InferencePool
	Port                   string // name or number of the Service's port; "" if it has only one
	Family                 string // discover.FamilyAuto, ...
}

// API groups of the kind InferencePool.
const (
	PoolGroup    = "inference.networking.k8s.io"   // v1
	OldPoolGroup = "inference.networking.x-k8s.io" // v1alpha2
)

// Default is a configuration without pools.
func Default() Config {
	return Config{
		Scrape: Scrape{
			Interval: 100 * time.Millisecond, Timeout: time.Second, Models: 10 * time.Second,
			Plan: scrape.Plan{Engine: "vllm", Models: "/v1/models"},
		},
		Publish: 10 * time.Millisecond,
		Stale:   endpoint.DefaultStale,
	}
}

// Heartbeat is how often unchanged gauges are sent again, so that a proxy does not take them for old. Together with the age of a scrape it
// is well within half of Stale, up to which the proxies fully trust gauges.
func (c *Config) Heartbeat() time.Duration { return c.Stale / 4 }

// Reading says for whom the configuration is read.
type Reading struct {
	Served     bool // Envoy gets the lists of replicas by EDS, where two pools need two clusters
	Kubernetes bool // pools may have their source in Kubernetes
}

// Read reads the keys of the configuration.
func (c *Config) Read(o *conf.Object, r Reading) {
	o.Object("scrape", func(o *conf.Object) {
		o.Duration("interval", &c.Scrape.Interval, 10*time.Millisecond, 5*time.Minute)
		o.Duration("timeout", &c.Scrape.Timeout, 10*time.Millisecond, time.Minute)
		o.Duration("modelsInterval", &c.Scrape.Models, time.Second, time.Hour)
		parsePlan(o, &c.Scrape.Plan)
	})
	o.Duration("publish", &c.Publish, time.Millisecond, time.Second)
	o.Duration("stale", &c.Stale, 100*time.Millisecond, 30*time.Minute)
	if c.Scrape.Interval > c.Stale/4 {
		o.Errorf("stale", "stale (%s) is less than four times scrape.interval (%s): the proxies would distrust valid gauges between two scrapes", c.Stale, c.Scrape.Interval)
	}
	if c.Publish > c.Stale/4 {
		o.Errorf("publish", "publish (%s) is more than a quarter of stale (%s)", c.Publish, c.Stale)
	}
	pools := poolParser{config: c, Reading: r, names: map[string]bool{}, clusters: map[string]string{}}
	o.List("pools", pools.parse)
	if o.Has("pools") && len(c.Pools) == 0 {
		o.Errorf("pools", "no pools")
	}
}

// parsePlan reads what can be set for all pools and for one.
func parsePlan(o *conf.Object, p *scrape.Plan) {
	o.Int("port", &p.Port, 1, 65535)
	o.String("path", &p.Path, urlPath)
	o.String("health", &p.Health, urlPath)
	o.String("models", &p.Models, urlPath)
	o.String("token", &p.Access.TokenFile, conf.NotEmpty)
	o.Object("tls", func(o *conf.Object) { p.Access.TLS = ReadTLS(o) })
}

// ReadTLS reads how a connection is encrypted.
func ReadTLS(o *conf.Object) *http1.TLS {
	t := new(http1.TLS)
	o.String("ca", &t.CAFile, conf.NotEmpty)
	o.String("cert", &t.CertFile, conf.NotEmpty)
	o.String("key", &t.KeyFile, conf.NotEmpty)
	o.String("serverName", &t.ServerName, conf.NotEmpty)
	o.Bool("insecureSkipVerify", &t.InsecureSkipVerify)
	if o.Has("cert") != o.Has("key") {
		o.Errorf("", "cert and key must be set together")
	}
	if t.InsecureSkipVerify && (o.Has("ca") || o.Has("serverName")) {
		o.Errorf("insecureSkipVerify", "insecureSkipVerify turns verification off: ca and serverName would have no effect")
	}
	return t
}

// poolParser parses the pools one after the other.
type poolParser struct {
	Reading
	config   *Config
	names    map[string]bool
	clusters map[string]string // name of the pool by that of the cluster
}

func (pp *poolParser) parse(v *conf.Value) {
	p := Pool{Plan: pp.config.Scrape.Plan}
	v.Object(func(o *conf.Object) {
		o.Required("name")
		if o.String("name", &p.Name, conf.NotEmpty) && p.Name != "" && pp.names[p.Name] {
			o.Errorf("name", "duplicate pool name %q", p.Name)
		}
		pp.names[p.Name] = true
		p.parseSource(o, pp.Kubernetes)
		o.String("cluster", &p.Cluster, conf.NotEmpty)
		if pp.Served && (p.Cluster != "" || p.EDS == "") {
			cluster := cmp.Or(p.Cluster, p.Name)
			if other, ok := pp.clusters[cluster]; ok && other != p.Name {
				o.Errorf("cluster", "cluster %q would contain the replicas of two pools, %q and %q", cluster, other, p.Name)
			}
			pp.clusters[cluster] = p.Name
		}
		o.Enum("engine", &p.Plan.Engine, append(scrape.Engines(), scrape.Auto, scrape.Custom)...)
		o.Object("scrape", func(o *conf.Object) { parsePlan(o, &p.Plan) })
		o.Object("metrics", func(o *conf.Object) { parseMetrics(o, &p.Plan.Custom) })
		if custom := p.Plan.Engine == scrape.Custom; custom != o.Has("metrics") {
			o.Errorf("metrics", "metrics must be set if and only if engine is custom")
		}
	})
	pp.config.Pools = append(pp.config.Pools, p)
}

func (p *Pool) parseSource(o *conf.Object, kubernetes bool) {
	o.String("eds", &p.EDS, conf.NotEmpty)
	o.Strings("static", &p.Static, ipPort)
	o.Object("dns", func(o *conf.Object) {
		n := discover.Name{Pool: p.Name, Family: discover.FamilyAuto, Interval: 5 * time.Second}
		o.String("host", &n.Host, conf.NotEmpty)
		o.Int("port", &n.Port, 1, 65535)
		o.String("srv", &n.SRV, conf.NotEmpty)
		o.Enum("family", &n.Family, discover.FamilyAuto, discover.FamilyIPv4, discover.FamilyIPv6)
		o.Duration("interval", &n.Interval, 100*time.Millisecond, time.Hour)
		if byHost := o.Has("host") && o.Has("port") && !o.Has("srv"); !byHost && (!o.Has("srv") || o.Has("host") || o.Has("port")) {
			o.Errorf("", "want either host and port, or srv")
		}
		p.DNS = &n
	})
	keys, words := []string{"eds", "static", "dns"}, "eds, static and dns"
	if kubernetes {
		o.Object("kubernetes", func(o *conf.Object) { p.Kubernetes = readKubernetes(o) })
		keys, words = append(keys, "kubernetes"), "eds, static, dns and kubernetes"
	} else if o.Has("kubernetes") {
		o.Errorf("kubernetes", "needs a companion process: here, use dns with the name of a headless Service")
		return
	}
	sources := 0
	for _, key := range keys {
		if o.Has(key) {
			sources++
		}
	}
	if sources != 1 {
		o.Errorf("", "want exactly one of %s, got %d of them", words, sources)
	}
}

func readKubernetes(o *conf.Object) *Kubernetes {
	k := &Kubernetes{Group: PoolGroup, Family: discover.FamilyAuto}
	o.String("namespace", &k.Namespace, conf.NotEmpty)
	o.String("inferencePool", &k.InferencePool, conf.NotEmpty)
	o.Enum("group", &k.Group, PoolGroup, OldPoolGroup)
	o.String("service", &k.Service, conf.NotEmpty)
	o.String("port", &k.Port, conf.NotEmpty)
	o.Enum("family", &k.Family, discover.FamilyAuto, discover.FamilyIPv4, discover.FamilyIPv6)
	switch {
	case o.Has("inferencePool") == o.Has("service"):
		o.Errorf("", "want exactly one of inferencePool and service")
	case o.Has("inferencePool") && o.Has("port"):
		o.Errorf("port", "an InferencePool has its own target ports")
	case o.Has("service") && o.Has("group"):
		o.Errorf("group", "is for an inferencePool")
	}
	return k
}

// parseMetrics reads the names of the metrics of an unknown model server.
func parseMetrics(o *conf.Object, e *scrape.Engine) {
	o.Required("waiting")
	for _, signal := range []struct {
		key     string
		metrics *[]scrape.Metric
	}{{"waiting", &e.Waiting}, {"running", &e.Running}, {"kv", &e.KVUse}, {"blockTokens", &e.BlockTokens}, {"blocks", &e.Blocks}} {
		var text string
		if !o.String(signal.key, &text, conf.NotEmpty) || text == "" {
			continue
		}
		m, err := scrape.ParseMetric(text)
		if err != nil {
			o.Errorf(signal.key, "%v", err)
			continue
		}
		*signal.metrics = []scrape.Metric{m}
	}
	if o.String("lora", &e.LoRA, conf.NotEmpty) && e.LoRA != "" {
		if m, err := scrape.ParseMetric(e.LoRA); err != nil || m.Label != "" {
			o.Errorf("lora", "%q is not a metric name", e.LoRA)
		}
	}
}

// urlPath accepts what can be in a request line as it is.
func urlPath(s string) string {
	if strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "contains white space or non-ASCII characters: percent-encode them, such as %20"
	}
	return conf.PathPrefix(s)
}

func ipPort(s string) string {
	if a, err := netip.ParseAddrPort(s); err != nil || a.Port() == 0 {
		return "is not ip:port"
	}
	return ""
}

// plans returns how the replicas of each pool are scraped.
func (c *Config) plans() map[string]scrape.Plan {
	plans := make(map[string]scrape.Plan)
	for _, p := range c.Pools {
		plans[p.Name] = p.Plan
	}
	return plans
}
