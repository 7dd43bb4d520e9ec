package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/internal/companion/scrape"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Config is the configuration file; README.md describes it.
type Config struct {
	Listen  string
	XDS     string // address to serve EDS on, "" for none
	Scrape  ScrapeConfig
	Publish time.Duration // the least time between two versions
	Stale   time.Duration // the age at which the proxies stop trusting a gauge
	Memory  int64         // bytes of the notes about prompts that are stored for proxies that join later
	Quota   *QuotaConfig  // nil: none
	Tokens  []TokenConfig
	Pools   []PoolConfig
}

// ScrapeConfig is how replicas are scraped; a pool can override what is in Plan.
type ScrapeConfig struct {
	Interval, Timeout, Models time.Duration
	Plan                      scrape.Plan
}

// PoolConfig is one pool of replicas. One of EDS, Static and DNS is set.
type PoolConfig struct {
	Name    string
	EDS     string         // path of Envoy's EDS file
	Static  []string       // ip:port
	DNS     *discover.Name // with the pool's name
	Cluster string         // of Envoy, in the EDS that is served; "" for the one that the source names, else the pool's name
	Plan    scrape.Plan
}

func defaultConfig() *Config {
	return &Config{
		Listen: "127.0.0.1:9002",
		Scrape: ScrapeConfig{
			Interval: 100 * time.Millisecond, Timeout: time.Second, Models: 10 * time.Second,
			Plan: scrape.Plan{Engine: "vllm", Models: "/v1/models"},
		},
		Publish: 10 * time.Millisecond,
		Stale:   endpoint.DefaultStale,
		Memory:  64 << 20,
	}
}

// heartbeat is how often unchanged gauges are sent again, so that a proxy does not take them for old. Together with the age of a scrape it
// is well within half of Stale, up to which the proxies fully trust gauges.
func (c *Config) heartbeat() time.Duration { return c.Stale / 4 }

func readConfig(file string) (*Config, error) {
	doc, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(doc)
	if err != nil {
		return nil, fmt.Errorf("%s:\n%w", file, err)
	}
	return c, nil
}

func parseConfig(doc []byte) (*Config, error) {
	c := defaultConfig()
	if err := conf.Decode(doc, c.read); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) read(o *conf.Object) {
	o.String("listen", &c.Listen, hostPort)
	o.Object("serve", func(o *conf.Object) {
		o.Required("xds")
		o.String("xds", &c.XDS, hostPort)
	})
	o.Object("scrape", func(o *conf.Object) {
		o.Duration("interval", &c.Scrape.Interval, 10*time.Millisecond, 5*time.Minute)
		o.Duration("timeout", &c.Scrape.Timeout, 10*time.Millisecond, time.Minute)
		o.Duration("modelsInterval", &c.Scrape.Models, time.Second, time.Hour)
		parsePlan(o, &c.Scrape.Plan)
	})
	o.Duration("publish", &c.Publish, time.Millisecond, time.Second)
	o.Duration("stale", &c.Stale, 100*time.Millisecond, 30*time.Minute)
	o.Object("relay", func(o *conf.Object) {
		o.Size("memory", &c.Memory, 64<<10, 16<<30)
	})
	o.Object("quota", func(o *conf.Object) { c.Quota = readQuota(o) })
	all := tokenParser{config: c, names: map[string]bool{}, files: map[string]bool{}}
	o.List("tokens", all.parse)
	if c.Scrape.Interval > c.Stale/4 {
		o.Errorf("stale", "stale (%s) is less than four times scrape.interval (%s): the proxies would distrust valid gauges between two scrapes", c.Stale, c.Scrape.Interval)
	}
	if c.Publish > c.Stale/4 {
		o.Errorf("publish", "publish (%s) is more than a quarter of stale (%s)", c.Publish, c.Stale)
	}
	pools := poolParser{config: c, names: map[string]bool{}, clusters: map[string]string{}}
	o.List("pools", pools.parse)
	if len(c.Tokens) == 0 {
		o.Required("pools")
	}
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
	o.Object("tls", func(o *conf.Object) { p.Access.TLS = readTLS(o) })
}

func readTLS(o *conf.Object) *http1.TLS {
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
	config   *Config
	names    map[string]bool
	clusters map[string]string // name of the pool by that of the cluster
}

func (pp *poolParser) parse(v *conf.Value) {
	p := PoolConfig{Plan: pp.config.Scrape.Plan}
	v.Object(func(o *conf.Object) {
		o.Required("name")
		if o.String("name", &p.Name, conf.NotEmpty) && p.Name != "" && pp.names[p.Name] {
			o.Errorf("name", "duplicate pool name %q", p.Name)
		}
		pp.names[p.Name] = true
		p.parseSource(o)
		o.String("cluster", &p.Cluster, conf.NotEmpty)
		if pp.config.XDS != "" && (p.Cluster != "" || p.EDS == "") {
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

func (p *PoolConfig) parseSource(o *conf.Object) {
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
	sources := 0
	for _, key := range []string{"eds", "static", "dns"} {
		if o.Has(key) {
			sources++
		}
	}
	if sources != 1 {
		o.Errorf("", "want exactly one of eds, static and dns, got %d of them", sources)
	}
}

// parseMetrics reads the names of the metrics of an unknown model server.
func parseMetrics(o *conf.Object, e *scrape.Engine) {
	o.Required("waiting")
	for key, metrics := range map[string]*[]scrape.Metric{
		"waiting": &e.Waiting, "running": &e.Running, "kv": &e.KVUse, "blockTokens": &e.BlockTokens, "blocks": &e.Blocks,
	} {
		var text string
		if !o.String(key, &text, conf.NotEmpty) || text == "" {
			continue
		}
		m, err := scrape.ParseMetric(text)
		if err != nil {
			o.Errorf(key, "%v", err)
			continue
		}
		*metrics = []scrape.Metric{m}
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

func hostPort(s string) string {
	if _, _, err := net.SplitHostPort(s); err != nil {
		return "is not host:port"
	}
	return ""
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

// lookup reads the pool's source once.
func (p *PoolConfig) lookup(ctx context.Context) (source string, a *discover.Assignment, err error) {
	switch {
	case p.DNS != nil:
		a, err := p.DNS.Ask(ctx, discover.SystemResolver)
		return "DNS " + p.DNS.String(), a, err
	case p.EDS != "":
		doc, err := os.ReadFile(p.EDS)
		if err == nil {
			a, err = discover.Parse(doc)
		}
		return p.EDS, a, err
	default:
		a, err = discover.Static(p.Static)
		return "static", a, err
	}
}

// checkSources reads the source of every pool and the files for scraping, and reports on each; the error lists everything that is unusable.
func checkSources(ctx context.Context, c *Config, out io.Writer) error {
	var bad []error
	for _, p := range c.Pools {
		source, a, err := p.lookup(ctx)
		if err != nil {
			bad = append(bad, fmt.Errorf("pool %s: %s: %w", p.Name, source, err))
			continue
		}
		if a.Cluster != "" {
			source += ": cluster " + a.Cluster
		}
		endpoints := "endpoints"
		if len(a.Endpoints) == 1 {
			endpoints = "endpoint"
		}
		fmt.Fprintf(out, "pool %s: %s, %d %s\n", p.Name, source, len(a.Endpoints), endpoints)
		if a.Unknown != "" {
			fmt.Fprintf(out, "pool %s: %s: note: %s\n", p.Name, source, a.Unknown)
		}
		if a.Skipped != nil {
			fmt.Fprintf(out, "pool %s: %s: left out: %s\n", p.Name, source, a.Skipped)
		}
		if err := p.Plan.Access.Check(); err != nil {
			bad = append(bad, fmt.Errorf("pool %s: %w", p.Name, err))
		}
	}
	return errors.Join(append(bad, c.Quota.check(out), checkTokens(ctx, c.Tokens, out))...)
}
