package module

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// marker is a filter that says in the request by which document it was made.
type marker struct {
	filter.Base
	text     string
	deps     *filter.Deps
	done     []filter.End
	requests filter.Metric
	heard    []byte
}

func (m *marker) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	x.SetRequestHeader("x-by", m.text)
	m.requests.Record(1, filter.Values{m.text})
	return filter.Next
}

func (m *marker) OnDone(_ *filter.Exchange, end filter.End) { m.done = append(m.done, end) }

// markers is a filter that keeps what it made.
type markers struct{ all map[string]*marker }

func (m *markers) factory() filter.Factory {
	m.all = map[string]*marker{}
	return filter.Factory{
		Name: "marker", FailureMode: filter.FailClosed,
		Metrics: func(m filter.Metrics) { m.Counter("marked", "by") },
		New: func(o *conf.Object, d *filter.Deps) filter.Filter {
			f := &marker{deps: d, requests: d.Metrics.Counter("marked", "by")}
			o.String("text", &f.text)
			if f.text == "panic" {
				panic("a secret")
			}
			if d.Companion != nil {
				d.Companion.Converse("/v1/"+f.text, func() []byte { return []byte(f.text) }, func(*filter.Reply) {})
			}
			d.Peers.Hear(func(notes []byte) { f.heard = notes })
			m.all[f.text] = f
			return f
		},
	}
}

// routes are a listener's configuration and documents of its routes.
type routes struct {
	*markers
	loader *loader
	config *config
	envoy  *envoyConfig
}

func newRoutes(t *testing.T, document string) *routes {
	t.Helper()
	r := &routes{markers: &markers{}, envoy: &envoyConfig{}}
	known := []filter.Factory{r.factory()}
	r.loader = &loader{known: known, process: newProcess(known)}
	f, err := r.loader.Create(r.envoy, []byte(document))
	require.NoError(t, err)
	r.config = f.(*config)
	return r
}

func (r *routes) route(t *testing.T, document string) any {
	t.Helper()
	made, err := r.loader.CreatePerRoute([]byte(document))
	require.NoError(t, err)
	return made
}

// begin begins an exchange whose headers have come.
func (r *routes) begin(t *testing.T, route any) *envoyStream {
	t.Helper()
	s := open(t, r.config, r.envoy)
	s.route = route
	s.filter.OnRequestHeaders(s.request, false)
	return s
}

const ofListener = `{"filters": [{"marker": {"text": "listener"}}]}`

// The document of the route replaces that of the listener, for the requests that have the route when their headers come.
func TestDocumentOfARoute(t *testing.T) {
	r := newRoutes(t, ofListener)
	a := r.route(t, `{"filters": [{"marker": {"text": "a"}}]}`)
	for _, c := range []struct {
		route any
		by    string
	}{{nil, "listener"}, {a, "a"}, {nil, "listener"}, {r.route(t, `filters: [{marker: {text: b}}]`), "b"}, {a, "a"}, {"another module's", "listener"}} {
		s := r.begin(t, c.route)
		s.route = "another route by now"
		require.Equal(t, shared.BodyStatusContinue, s.data(true, chat))
		require.Equal(t, c.by, s.request.value("x-by"))
		require.EqualValues(t, 1, s.metrics["marked{"+c.by+"}"], "counted with what the listener's configuration defines")
		s.end()
		require.Equal(t, 1, len(r.all[c.by].done))
		r.all[c.by].done = nil
	}
}

// Nothing is asked of Envoy where there are no documents of routes.
func TestNoDocumentsOfRoutes(t *testing.T) {
	r := newRoutes(t, ofListener)
	s := r.begin(t, &routed{}) // which would not work
	require.Equal(t, "listener", s.request.value("x-by"))
	s.end()
}

// Envoy may read routes before the listener's configuration. What there is to say waits for the log.
func TestDocumentOfARouteComesFirst(t *testing.T) {
	m := &markers{}
	known := []filter.Factory{m.factory()}
	l := &loader{known: known, process: newProcess(known)}
	_, err := l.CreatePerRoute([]byte(ofListener))
	require.NoError(t, err)
	m.all["listener"].deps.Log(filter.Warn, "early")
	e := &envoyConfig{}
	_, err = l.Create(e, []byte(ofListener))
	require.NoError(t, err)
	require.Contains(t, e.logs, "3 inlet: early")
	m.all["listener"].deps.Log(filter.Warn, "late")
	require.Equal(t, 1, logged(e, "late"))
}

func TestBadDocumentOfARoute(t *testing.T) {
	r := newRoutes(t, ofListener)
	for document, want := range map[string]string{
		"filters:\n- markr: {}\nlimitz: {}\n": "the configuration of a route has 2 mistake(s):\n" +
			"configuration: filters[0]: 2:3: unknown filter \"markr\" (did you mean \"marker\"?); known: marker\n" +
			"configuration: 3:1: unknown key \"limitz\" (did you mean \"limits\"?)",
		`filters: [{marker: {text: panic}}]`: "the configuration could not be read: panic with a string at ",
	} {
		made, err := r.loader.CreatePerRoute([]byte(document))
		require.Nil(t, made)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
	require.Zero(t, r.loader.process.routes.Load())
}

// An exchange keeps the document that it began with until its end, even if the route is removed meanwhile; then it is freed.
func TestDocumentOfARouteGoes(t *testing.T) {
	r := newRoutes(t, ofListener)
	s := func() *envoyStream {
		s := r.begin(t, r.route(t, `{"filters": [{"marker": {"text": "a"}}]}`))
		s.route = nil // Envoy drops it
		return s
	}()
	for range 3 {
		runtime.GC()
	}
	require.EqualValues(t, 1, r.loader.process.routes.Load())
	require.EqualValues(t, 2, r.loader.process.Live())
	require.Equal(t, shared.BodyStatusContinue, s.data(true, chat))
	s.respond(false, [2]string{":status", "200"})
	s.end()
	require.Equal(t, 1, len(r.all["a"].done))
	require.Eventually(t, func() bool {
		runtime.GC()
		return r.loader.process.routes.Load() == 0 && r.loader.process.Live() == 1
	}, time.Minute, time.Millisecond)
	r.config.OnDestroy()
	require.Zero(t, r.loader.process.Live())
}

// A route learns of the replicas from the listener's companion, and what its filters report is reported.
func TestCompanionOfARoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const named = `companion: {cluster: companion}`
		r := newRoutes(t, "filters: [{marker: {text: quota}}]\n"+named)
		defer r.config.OnDestroy()
		r.envoy.loop()
		require.Len(t, r.envoy.polls, 1)
		require.Len(t, r.envoy.tells, 1)
		same := r.route(t, "filters: [{marker: {text: route}}]\n"+named)
		none := r.route(t, "filters: [{marker: {text: none}}]")
		r.envoy.answer("200", endpoint.AppendRelayed(wire(1), nil, 0, nil))
		for _, name := range []string{"quota", "route", "none"} {
			require.NotNil(t, r.all[name].deps.Snapshot(), name)
		}
		r.envoy.tells = nil
		r.envoy.turn()
		var paths []string
		for _, tell := range r.envoy.tells {
			paths = append(paths, tell.path)
		}
		require.Contains(t, paths, "companion/v1/route")
		require.Len(t, r.envoy.polls, 1, "one poll for all")
		for _, route := range []any{same, none} {
			r.begin(t, route).end()
		}
		require.Zero(t, logged(r.envoy, "nobody asks it"))

		other := r.route(t, "filters: [{marker: {text: other}}]\ncompanion: {cluster: another}")
		for range 2 {
			r.begin(t, other).end()
		}
		require.Nil(t, r.all["other"].deps.Snapshot())
		require.Equal(t, 1, logged(r.envoy, "names companion cluster another, which no listener's configuration names: nobody asks it"))
	})
}
