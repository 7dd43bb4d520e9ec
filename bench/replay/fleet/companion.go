package fleet

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

const (
	// scrapeInterval is how often the companion scrapes a replica, publishInterval how often at most it sends news to the
	// proxies: its defaults.
	scrapeInterval  = 100 * time.Millisecond
	publishInterval = 10 * time.Millisecond
)

// companion is the companion's relay, called as by proxies but on virtual time, with the replicas' gauges instead of its
// scraper. Calls take no time.
type companion struct {
	relay   *relay.Relay
	gauges  Gauges
	pool    endpoint.Pool // as scraped
	scraped []time.Duration
	turn    int // of the next replicas to scrape
	polls   []poll
}

// poll is an open long poll.
type poll struct {
	request *feed.Request
	done    func(*filter.Reply)
}

func newCompanion(c Config, g Gauges, now func() time.Time) *companion {
	m := &companion{
		relay:  relay.New(relay.Options{Interval: publishInterval, Source: 1, Now: now}),
		gauges: g, pool: endpoint.Pool{Name: pool}, scraped: make([]time.Duration, c.Replicas),
	}
	for i := range c.Replicas {
		m.pool.Endpoints = append(m.pool.Endpoints, endpoint.Endpoint{
			// In numeric order, which is also their sorted order.
			Address: fmt.Sprintf("10.%03d.%03d.1:8000", i>>8, i&255), Ready: true, Gauges: endpoint.Gauges{Known: true},
			Cache: endpoint.Cache{BlockTokens: int32(c.Engine.BlockTokens), Blocks: int32(c.Engine.Blocks)},
		})
	}
	return m
}

// scrape reads the replicas whose turn it is, evenly spread over the interval.
func (m *companion) scrape(now time.Duration) {
	const turns = int(scrapeInterval / publishInterval)
	for i := m.turn; i < len(m.pool.Endpoints); i += turns {
		waiting, running, kvUse := m.gauges.Read(now, i)
		m.pool.Endpoints[i].Gauges = endpoint.Gauges{Known: true, Waiting: waiting, Running: running, KVUse: kvUse}
		m.scraped[i] = now
	}
	m.turn = (m.turn + 1) % turns
}

// publish sends news to the waiting proxies.
func (m *companion) publish(now time.Duration) {
	for i := range m.pool.Endpoints {
		m.pool.Endpoints[i].Gauges.Age = now - m.scraped[i]
	}
	m.relay.Publish([]endpoint.Pool{m.pool})
	polls := m.polls
	m.polls = nil
	for _, p := range polls {
		// Without news the response is sent, as nobody waits any more.
		if r := m.serve(gone, p.request); r.Status != http.StatusNotModified {
			p.done(r)
			continue
		}
		m.polls = append(m.polls, p)
	}
}

// call handles a call of a proxy: polls get their response at the next publication, reports at once.
func (m *companion) call(r *feed.Request, done func(*filter.Reply)) {
	if r.Method == http.MethodGet {
		m.polls = append(m.polls, poll{r, done})
		return
	}
	done(m.serve(context.Background(), r))
}

// gone is the context of a caller that does not wait.
var gone = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (m *companion) serve(ctx context.Context, r *feed.Request) *filter.Reply {
	req, err := http.NewRequestWithContext(ctx, r.Method, r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return &filter.Reply{Err: err}
	}
	w := httptest.NewRecorder()
	m.relay.ServeHTTP(w, req)
	return &filter.Reply{Status: w.Code, Body: w.Body.Bytes()}
}
