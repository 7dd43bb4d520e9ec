package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// Config is the configuration file; README.md describes it.
type Config struct {
	replicas.Config
	Listen string
	XDS    string       // address to serve EDS on, "" for none
	Memory int64        // bytes of the notes about prompts that are stored for proxies that join later
	Quota  *QuotaConfig // nil: none
	Tokens []TokenConfig

	Kubernetes *KubernetesConfig // nil: the defaults, if there are pools that need it
}

func defaultConfig() *Config {
	return &Config{Config: replicas.Default(), Listen: "127.0.0.1:9002", Memory: 64 << 20}
}

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
	o.Object("relay", func(o *conf.Object) {
		o.Size("memory", &c.Memory, 64<<10, 16<<30)
	})
	o.Object("quota", func(o *conf.Object) { c.Quota = readQuota(o) })
	all := tokenParser{config: c, names: map[string]bool{}, files: map[string]bool{}}
	o.List("tokens", all.parse)
	o.Object("kubernetes", func(o *conf.Object) { c.Kubernetes = readKubernetes(o) })
	c.Config.Read(o, replicas.Reading{Served: c.XDS != "", Kubernetes: true})
	directory := c.Quota != nil && c.Quota.Kubernetes != nil
	if directory {
		c.Quota.cluster = c.Kubernetes
	}
	if o.Has("kubernetes") && !c.inKubernetes() && !directory {
		o.Errorf("kubernetes", "nothing has its source in Kubernetes: neither a pool nor quota")
	}
	if len(c.Tokens) == 0 {
		o.Required("pools")
	}
}

func hostPort(s string) string {
	if _, _, err := net.SplitHostPort(s); err != nil {
		return "is not host:port"
	}
	return ""
}

// check reads the source of every pool and all other files, gets every token, and reports on each; the error lists everything that is
// unusable.
func (c *Config) check(ctx context.Context, out io.Writer) error {
	return errors.Join(c.Config.Check(ctx, out), checkKubernetes(ctx, c, out), c.Quota.check(out), checkTokens(ctx, c.Tokens, out))
}
