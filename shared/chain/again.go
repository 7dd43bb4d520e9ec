package chain

import (
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/llm"
)

// A request can pass a chain a second time: when Envoy itself follows a redirect
// of the replica, and when the same document stands twice in Envoy's filter chain.
// It then has the replica's name for the model in its body and no key any more, so
// that it must not be taken for a client's. Neither case is told from a client's
// request by anything that a client can send.

// originalURL is set by Envoy where it follows a redirect.
const originalURL = "x-envoy-original-url"

// passed is what is known of a request whose redirect is followed.
type passed struct {
	id     string // x-request-id, which stays
	at     time.Time
	api    llm.API
	route  filter.Route
	tenant filter.Tenant
	target filter.Target
	model  string // name of the model in the answer
}

// A request comes again in the very call in which it ended before. What is not
// fetched is bounded in number and time.
const (
	maxRedirects = 16
	redirectTime = time.Second
)

// redirects are the requests that are about to come again.
type redirects struct {
	mutex filter.Mutex
	list  []passed
}

func (r *redirects) put(p passed) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if len(r.list) == maxRedirects {
		r.list = append(r.list[:0], r.list[1:]...)
	}
	r.list = append(r.list, p)
}

func (r *redirects) take(id string, now time.Time) (p passed, ok bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for i := range r.list {
		if r.list[i].id == id {
			p = r.list[i]
			r.list = append(r.list[:i], r.list[i+1:]...)
			return p, now.Sub(p.at) < redirectTime
		}
	}
	return p, false
}

// keepRedirected keeps what is known of a request that ends because Envoy follows
// a redirect. It reports whether it does.
func (s *Stream) keepRedirected(now time.Time) bool {
	if s.state != released || s.bypassed || s.status != 0 || !s.host.Redirected() {
		return false
	}
	x := &s.x
	id, ok := x.RequestHeaders.Get("x-request-id")
	if !ok {
		return false
	}
	s.c.redirects.put(passed{
		id: strings.Clone(id), at: now, api: x.API,
		route: x.Route, tenant: x.Tenant, target: x.Target, model: x.Effects().Model,
	})
	return true
}

// recall reports whether the request is one that Envoy has redirected, and takes
// over what was decided about it.
func (s *Stream) recall() bool {
	x := &s.x
	if _, ok := x.RequestHeaders.Get(originalURL); !ok {
		return false
	}
	id, _ := x.RequestHeaders.Get("x-request-id")
	p, ok := s.c.redirects.take(id, x.Start)
	if !ok {
		return false
	}
	x.API, x.Route, x.Tenant, x.Target = p.api, p.route, p.tenant, p.target
	x.RestoreModel(p.model)
	s.at = len(s.c.slots)
	return true
}
