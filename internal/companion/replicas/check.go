package replicas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
)

// lookup reads the pool's source once.
func (p *Pool) lookup(ctx context.Context) (source string, a *discover.Assignment, err error) {
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

// Check reads the source of every pool and the files for scraping, and reports on each; the error lists everything that is unusable.
func (c *Config) Check(ctx context.Context, out io.Writer) error {
	var bad []error
	for _, p := range c.Pools {
		if p.Kubernetes != nil {
			continue // who follows it looks it up
		}
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
	return errors.Join(bad...)
}
