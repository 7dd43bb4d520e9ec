package check

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// Load makes the chain of a configuration with the code that runs inside Envoy, in surroundings that do nothing. The error
// is a conf.Errors.
func Load(document []byte) (*chain.Chain, error) {
	return chain.New(document, filters.All, Deps())
}

// Deps are surroundings for a filter that is made but gets no requests.
func Deps() *filter.Deps {
	return &filter.Deps{
		Now: time.Now, Rand: rand.Uint64,
		Store: mem.NewStore(), Counters: mem.NewCounters(),
		Snapshot: func() *endpoint.Snapshot { return nil },
		Metrics:  noMetrics{}, Log: func(filter.Level, string) {},
	}
}

// noMetrics takes metrics and drops them.
type noMetrics struct{}

func (noMetrics) Counter(string, ...string) filter.Metric   { return noMetrics{} }
func (noMetrics) Gauge(string, ...string) filter.Metric     { return noMetrics{} }
func (noMetrics) Histogram(string, ...string) filter.Metric { return noMetrics{} }
func (noMetrics) Record(int64, filter.Values)               {}

// Document checks a chain's configuration.
func Document(file string, text []byte) []Finding {
	_, err := Load(text)
	return documentFindings(err, func(e conf.Error) (line, column int, note string) { return e.Line, e.Column, "" }, file)
}

// documentFindings turns a chain's errors into findings; place says where in the file an error of the document is.
func documentFindings(err error, place func(conf.Error) (line, column int, note string), file string) []Finding {
	if err == nil {
		return nil
	}
	var all conf.Errors
	if !errors.As(err, &all) {
		all = conf.Errors{{Line: 1, Column: 1, Message: err.Error()}}
	}
	found := make([]Finding, 0, len(all))
	for _, e := range all {
		line, column, note := place(e)
		found = append(found, Finding{
			File: file, Line: line, Column: column, Severity: Error, Check: "configuration", Path: e.Path, Message: note + e.Message,
		})
	}
	return sorted(found)
}
