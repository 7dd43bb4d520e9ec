package check

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/filters/quota"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/companion/embedded"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// Load makes the chain of a configuration with the code that runs inside Envoy, in surroundings that do nothing. The error
// is a conf.Errors.
func Load(document []byte) (*chain.Chain, error) {
	return chain.New(document, filters.All, Deps(), Embed())
}

// Embed lets a configuration have an embedded companion, which the native module can run.
func Embed() chain.Option {
	return chain.Embed(func(o *conf.Object) { embedded.Read(o) }, embedded.Help)
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
	_, warnings, err := load(text, filters.All, Embed())
	return documentFindings(warnings, err, func(e conf.Error) (line, column int, note string) { return e.Line, e.Column, "" }, file)
}

// Limits says of each limit of a chain's configuration whose accounts it has, one line each.
func Limits(text []byte) (lines []string) {
	known := slices.Clone(filters.All)
	for i := range known {
		if known[i].Name != quota.Factory.Name {
			continue
		}
		known[i].New = func(o *conf.Object, d *filter.Deps) filter.Filter {
			made := quota.Factory.New(o, d)
			if f, ok := made.(*quota.Filter); ok {
				lines = f.Scopes()
			}
			return made
		}
	}
	if _, _, err := load(text, known, Embed()); err != nil {
		return nil
	}
	return lines
}

// load is Load with the given filters, and returns what the chain warns of, too.
func load(document []byte, known []filter.Factory, options ...chain.Option) (c *chain.Chain, warnings conf.Errors, err error) {
	deps := Deps()
	deps.Log = func(level filter.Level, message string) {
		if w, ok := parseWarning(message); ok && level == filter.Warn {
			warnings = append(warnings, w)
		}
	}
	c, err = chain.New(document, known, deps, options...)
	return c, warnings, err
}

// warning is how a chain logs what is wrong with its configuration.
var warning = regexp.MustCompile(`^configuration: (?:(.*?): )?([0-9]+):([0-9]+): (.*)$`)

func parseWarning(message string) (conf.Error, bool) {
	m := warning.FindStringSubmatch(message)
	if m == nil {
		return conf.Error{}, false
	}
	line, _ := strconv.Atoi(m[2]) // digits
	column, _ := strconv.Atoi(m[3])
	return conf.Error{Path: m[1], Line: line, Column: column, Message: m[4]}, true
}

// documentFindings turns a chain's warnings and errors into findings; place says where in the file an error of the document is.
func documentFindings(warnings conf.Errors, err error, place func(conf.Error) (line, column int, note string), file string) []Finding {
	var all conf.Errors
	if err != nil && !errors.As(err, &all) {
		all = conf.Errors{{Line: 1, Column: 1, Message: err.Error()}}
	}
	var found []Finding
	add := func(severity Severity, all conf.Errors) {
		for _, e := range all {
			line, column, note := place(e)
			found = append(found, Finding{
				File: file, Line: line, Column: column, Severity: severity, Check: "configuration", Path: e.Path, Message: note + e.Message,
			})
		}
	}
	add(Error, all)
	add(Warning, warnings)
	return sorted(found)
}
