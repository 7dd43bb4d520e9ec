package scenarios_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/internal/scenarios/probe"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// named are the metrics that factories name.
type named map[string]int

func (n named) Counter(name string, labels ...string) filter.Metric   { return n.add(name, labels) }
func (n named) Gauge(name string, labels ...string) filter.Metric     { return n.add(name, labels) }
func (n named) Histogram(name string, labels ...string) filter.Metric { return n.add(name, labels) }

func (n named) add(name string, labels []string) filter.Metric {
	n[name] = len(labels)
	return nil
}

// Define implements native.Backend.
func (n named) Define(_ native.Kind, name string, labels []string) (func([]string) native.Series, error) {
	if count, ok := n[name]; !ok || count != len(labels) {
		return nil, fmt.Errorf("no factory names it with %d labels", len(labels))
	}
	return func([]string) native.Series { return nil }, nil
}

// Whatever their configuration is, filters define no other metrics than their factories name.
func TestFactoriesNameTheirMetrics(t *testing.T) {
	known := append(append([]filter.Factory(nil), filters.All...), probe.Factory)
	all := named{}
	native.DefineMetrics(all, known)
	made := 0
	for _, s := range scenarios(t) {
		log := func(filter.Level, string) {}
		c, err := native.NewProcess().Configure([]byte(s.Config), known, native.Env{Log: log, Metrics: all})
		if err != nil {
			require.NotContains(t, err.Error(), "could not be defined", s.Name)
			continue
		}
		made++
		c.Close()
	}
	require.NotZero(t, made)
}
