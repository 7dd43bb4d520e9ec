package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/inlet-proxy/inlet/cmd/companion/discover"
	"github.com/inlet-proxy/inlet/cmd/companion/scrape"
	"github.com/inlet-proxy/inlet/shared/conf"
	"github.com/inlet-proxy/inlet/shared/endpoint"
)

// Config is the configuration file; README.md describes it.
type Config struct {
	Listen  string
	Scrape  ScrapeConfig
	Publish time.Duration // at most one new version in it
	Stale   time.Duration // the age at which the proxies stop trusting a gauge
	Pools   []PoolConfig
}

// ScrapeConfig says how replicas are asked.
type ScrapeConfig struct {
	Interval, Timeout time.Duration
	Path, Health      string
}

// PoolConfig is one pool of replicas.
type PoolConfig struct {
	Name   string
	EDS    string // path of Envoy's EDS file
	Engine string // one of scrape.Engines
}

func defaultConfig() *Config {
	return &Config{
		Listen:  "127.0.0.1:9002",
		Scrape:  ScrapeConfig{Interval: 100 * time.Millisecond, Timeout: time.Second, Path: "/metrics", Health: "/health"},
		Publish: 20 * time.Millisecond,
		Stale:   endpoint.DefaultStale,
	}
}

// heartbeat is how often unchanged gauges are told again, so that a proxy does not take them for old: with a scrape's own age on top,
// well within the half of Stale up to which trust is whole.
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
	err := conf.Decode(doc, func(o *conf.Object) {
		o.String("listen", &c.Listen, hostPort)
		o.Object("scrape", func(o *conf.Object) {
			o.Duration("interval", &c.Scrape.Interval, 10*time.Millisecond, 5*time.Minute)
			o.Duration("timeout", &c.Scrape.Timeout, 10*time.Millisecond, time.Minute)
			o.String("path", &c.Scrape.Path, conf.PathPrefix)
			o.String("health", &c.Scrape.Health, conf.PathPrefix)
		})
		o.Duration("publish", &c.Publish, time.Millisecond, time.Second)
		o.Duration("stale", &c.Stale, 100*time.Millisecond, 30*time.Minute)
		if c.Scrape.Interval > c.Stale/4 {
			o.Errorf("stale", "stale (%s) is less than four times scrape.interval (%s): the proxies would mistrust healthy gauges between two scrapes", c.Stale, c.Scrape.Interval)
		}
		if c.Publish > c.Stale/4 {
			o.Errorf("publish", "publish (%s) is more than a quarter of stale (%s)", c.Publish, c.Stale)
		}
		names := map[string]bool{}
		o.List("pools", func(v *conf.Value) {
			p := PoolConfig{Engine: "vllm"}
			v.Object(func(o *conf.Object) {
				o.Required("name", "eds")
				if o.String("name", &p.Name, conf.NotEmpty) && p.Name != "" && names[p.Name] {
					o.Errorf("name", "pool %q stands twice", p.Name)
				}
				names[p.Name] = true
				o.String("eds", &p.EDS, conf.NotEmpty)
				o.Enum("engine", &p.Engine, scrape.Engines()...)
			})
			c.Pools = append(c.Pools, p)
		})
		o.Required("pools")
		if o.Has("pools") && len(c.Pools) == 0 {
			o.Errorf("pools", "no pools")
		}
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func hostPort(s string) string {
	if _, _, err := net.SplitHostPort(s); err != nil {
		return "is not host:port"
	}
	return ""
}

// checkSources reads the endpoint file of every pool and reports on each; the error has all that cannot be used.
func checkSources(c *Config, out io.Writer) error {
	var bad []error
	for _, p := range c.Pools {
		doc, err := os.ReadFile(p.EDS)
		var a *discover.Assignment
		if err == nil {
			a, err = discover.Parse(doc)
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("pool %s: %s: %w", p.Name, p.EDS, err))
			continue
		}
		fmt.Fprintf(out, "pool %s: %s: cluster %s, %d endpoints\n", p.Name, p.EDS, a.Cluster, len(a.Endpoints))
		if a.Unknown != "" {
			fmt.Fprintf(out, "pool %s: %s: note: %s\n", p.Name, p.EDS, a.Unknown)
		}
	}
	return errors.Join(bad...)
}
