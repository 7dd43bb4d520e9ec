package chain

import (
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// A request can pass a chain a second time: when Envoy itself follows a redirect
// of the replica, and when the same document stands twice in Envoy's filter chain.
// It then has the replica's name for the model in its body and no key any more, so
// that it must not be taken for a client's.
//
// For a followed redirect, no single fact is enough: x-request-id and
// x-envoy-original-url can come from a client that Envoy holds for internal, and a
// filter before Inlet may refuse the redirected request, which then never fetches its
// entry. So the request has to be the very one that Envoy has made: with all the facts
// (see facts) that it had when the one before it ended, with the same Host.Stamp, soon,
// and once. What differs in anything is a client's, and all filters run.

// originalURL is set by Envoy where it follows a redirect.
const originalURL = "x-envoy-original-url"

// redirectFacts are the headers that are fixed once a redirect is followed. Envoy
// writes the new URL, and the old one into originalURL, before the stream ends. The
// credentials are there so that no other ones go to the replica unread.
var redirectFacts = []string{
	":method", ":authority", ":path", originalURL, "content-length", "content-type", "content-encoding",
	"authorization", "x-api-key", "api-key",
}

// passed is what is known of a request whose redirect is followed.
type passed struct {
	id     string // x-request-id, which stays
	facts  string
	stamp  uint64
	at     time.Time
	api    llm.API
	route  filter.Route
	tenant filter.Tenant
	target filter.Target
	model  string // name of the model in the answer
	asked  bool
}

// A request comes again in the very call in which it ended before, unless a filter
// before Inlet waits for something. What is not fetched is bounded in number and time.
const (
	maxRedirects = 16
	redirectTime = time.Second / 5
)

// redirects are the requests that are about to come again.
type redirects struct {
	mutex filter.Mutex
	list  []passed
}

// put takes the place of one with the same id, which nobody has fetched.
func (r *redirects) put(p passed) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if !r.remove(p.id) && len(r.list) == maxRedirects {
		r.remove(r.list[0].id)
	}
	r.list = append(r.list, p)
}

// take hands an entry out, once, whether it fits then or not.
func (r *redirects) take(id string) (p passed, ok bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for i := range r.list {
		if r.list[i].id == id {
			p = r.list[i]
			return p, r.remove(id)
		}
	}
	return p, false
}

func (r *redirects) remove(id string) bool {
	for i := range r.list {
		if r.list[i].id == id {
			r.list = append(r.list[:i], r.list[i+1:]...)
			return true
		}
	}
	return false
}

// redirected reports, at the end, whether Envoy follows a redirect of the replica.
func (s *Stream) redirected() bool {
	return s.state == released && s.status == 0 && s.host.Details() == RedirectDetails
}

// keepRedirected keeps what is known of a request that ends because Envoy follows
// a redirect. Without all that is needed to know it again, nothing is kept.
func (s *Stream) keepRedirected(at time.Time) {
	x := &s.x
	id, _ := x.RequestHeaders.Get("x-request-id")
	stamp, ok := s.host.Stamp()
	now := s.host.RequestNow()
	if id == "" || !ok || now == nil {
		return
	}
	route := x.Route
	for _, name := range []*string{&route.Model, &route.Target, &route.Base, &route.Pool} {
		*name = strings.Clone(*name) // it may be a piece of this request
	}
	tenant := x.Tenant
	for _, name := range []*string{&tenant.Name, &tenant.App, &tenant.Developer, &tenant.Product} {
		*name = strings.Clone(*name)
	}
	s.c.redirects.put(passed{
		id: strings.Clone(id), facts: s.c.facts(now), stamp: stamp, at: at, api: x.API, route: route,
		tenant: tenant,
		target: filter.Target{Address: strings.Clone(x.Target.Address), Pool: strings.Clone(x.Target.Pool)},
		model:  strings.Clone(x.Effects().Model),
		asked:  s.asked,
	})
}

// facts writes redirectFacts and the control headers into one string, in which no two
// requests that differ in them are alike: a header's value has neither byte.
func (c *Chain) facts(h filter.Headers) string {
	var b strings.Builder
	for _, names := range [][]string{redirectFacts, c.control} {
		for _, name := range names {
			for n := 0; ; n++ {
				value, ok := h.At(name, n)
				if !ok {
					break
				}
				b.WriteString(value)
				b.WriteByte('\n')
			}
			b.WriteByte(0)
		}
	}
	return b.String()
}

// recall reports whether the request is one that Envoy has redirected, and takes
// over what was decided about it.
func (s *Stream) recall() bool {
	x := &s.x
	if _, ok := x.RequestHeaders.Get(originalURL); !ok {
		return false
	}
	id, _ := x.RequestHeaders.Get("x-request-id")
	p, ok := s.c.redirects.take(id)
	if !ok || x.Start.Sub(p.at) >= redirectTime || p.facts != s.c.facts(x.RequestHeaders) {
		return false
	}
	if stamp, ok := s.host.Stamp(); !ok || stamp != p.stamp {
		return false
	}
	x.API, x.Route, x.Tenant, x.Target = p.api, p.route, p.tenant, p.target
	x.RestoreModel(p.model)
	s.asked = p.asked
	x.Explain("redirect", "followed")
	s.at = len(s.c.slots)
	s.host.Mark(s.c.id) // for the same document behind this one
	return true
}
