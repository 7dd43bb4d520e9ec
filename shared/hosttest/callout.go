package hosttest

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// service answers callouts from a script.
type service struct {
	answers []Answer
	next    int
}

func (s *service) answer() *Answer {
	a := &s.answers[min(s.next, len(s.answers)-1)]
	s.next++
	return a
}

// reply is the answer to a callout. Envoy's client says "no answer" only when
// one broke off: a timeout is a 504 and a broken connection a 503 that it made
// up itself (source/common/http/async_client_impl.cc, sendLocalReply), to be
// told by the header that only true answers get.
type reply struct {
	headers Headers // with :status; none if the answer broke off
	body    []byte
}

const serviceTime = "x-envoy-upstream-service-time"

func localReply(status int, body string) *reply {
	return &reply{Headers{{":status", strconv.Itoa(status)}, {"content-type", "text/plain"}}, []byte(body)}
}

// call starts a callout; deliver runs with its answer. A cluster that does not
// exist is an error.
func (g *gateway) call(c Call, timeout time.Duration, deliver func(*reply)) error {
	s := g.services[c.Cluster]
	switch {
	case c.Cluster == CompanionCluster && (s == nil || !scriptable(c.Path)):
		return g.company.call(c, timeout, deliver)
	case s == nil:
		return chain.ErrNoCluster(c.Cluster)
	}
	g.calls = append(g.calls, c)
	g.open++
	answer, delay := s.answer().reply(timeout)
	g.clock.after(delay, func() {
		g.open--
		deliver(answer)
	})
	return nil
}

// scriptable reports whether a script for the companion's cluster answers at a path. What proxies need of it is not scripted.
func scriptable(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	return path != endpoint.SnapshotPath && path != endpoint.RelayPath && path != QuotaPath
}

// reply is what the caller gets, and when.
func (a *Answer) reply(timeout time.Duration) (*reply, time.Duration) {
	switch {
	case a.Fail == "timeout" || a.Delay >= timeout:
		return localReply(504, "upstream request timeout"), timeout
	case a.Fail == "reset":
		return localReply(503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination"), a.Delay
	}
	if a.Fail == "cut" {
		return &reply{}, a.Delay
	}
	headers := Headers{{":status", strconv.Itoa(a.Status)}, {serviceTime, strconv.Itoa(int(a.Delay.Milliseconds()))}}
	return &reply{append(headers, headersOf(a.Headers)...), []byte(a.Body)}, a.Delay
}

// heartbeat is how often the companion says what it has scraped, also if it is
// the same as before: gauges that are not renewed lose their weight.
const heartbeat = endpoint.DefaultStale / 4

// companion serves what it knows of the scenario's pools.
type companion struct {
	g        *gateway
	pools    map[string][]Replica
	snapshot *endpoint.Snapshot
	polls    []func() // long polls that wait for a change
	quota    Quota
	step     *Step // whose changes are in effect
}

// start makes the first snapshot, and new ones as long as the gateway runs.
func (c *companion) start(g *gateway, pools map[string][]Replica) {
	c.g = g
	c.change(pools)
	var beat func()
	beat = func() {
		c.change(c.pools)
		g.clock.after(heartbeat, beat)
	}
	g.clock.after(heartbeat, beat)
}

// change makes a new version of the snapshot and answers who waits for it.
func (c *companion) change(pools map[string][]Replica) {
	c.pools = pools
	s := &endpoint.Snapshot{Source: 1, Version: 1, Taken: c.g.clock.now}
	if c.snapshot != nil {
		s.Version = c.snapshot.Version + 1
	}
	for _, name := range sortedKeys(pools) {
		pool := endpoint.Pool{Name: name}
		for _, r := range pools[name] {
			pool.Endpoints = append(pool.Endpoints, r.Endpoint(c.g.address(name, r.Name)))
		}
		s.Pools = append(s.Pools, pool)
	}
	c.snapshot = s
	polls := c.polls
	c.polls = nil
	for _, answer := range polls {
		answer()
	}
}

// address is where the replica of that name listens.
func (g *gateway) address(pool, name string) string {
	for _, r := range g.pools[pool] {
		if r.name == name {
			return r.address
		}
	}
	return ""
}

// begin makes what changes with a step take effect, once.
func (c *companion) begin(step *Step) {
	if step == c.step {
		return
	}
	c.step = step
	c.quota.Switch(step, c.g.clock.now)
	if step.Pools != nil {
		c.change(step.Pools)
		c.g.clock.advance(settle)
	}
}

// divide answers POST /v1/quota.
func (c *companion) divide(message []byte, deliver func(*reply)) {
	const roundTrip = time.Millisecond
	c.g.clock.after(roundTrip, func() {
		status, body := c.quota.Answer(c.g.clock.now, message)
		if status == 0 {
			deliver(localReply(503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination"))
			return
		}
		deliver(&reply{Headers{{":status", strconv.Itoa(status)}, {serviceTime, "1"}}, body})
	})
}

// call answers GET /v1/snapshot: at once if the caller has another version,
// else at the next change or when its wait is over. This Envoy is the only one:
// what it tells the others is taken, and nobody hears it.
func (c *companion) call(asked Call, timeout time.Duration, deliver func(*reply)) error {
	path := asked.Path
	u, err := url.Parse(path)
	if err == nil && u.Path == QuotaPath {
		c.divide(asked.Body, deliver)
		return nil
	}
	if err == nil && u.Path == endpoint.RelayPath {
		c.g.clock.after(time.Millisecond, func() { deliver(&reply{Headers{{":status", "204"}, {serviceTime, "1"}}, nil}) })
		return nil
	}
	if err != nil || u.Path != endpoint.SnapshotPath {
		c.g.clock.after(0, func() { deliver(localReply(404, "not found")) })
		return nil
	}
	millis, err := strconv.Atoi(u.Query().Get("wait"))
	if err != nil || u.Query().Get("worker") == "" {
		return errors.New("the companion was asked without wait or worker: " + path)
	}
	wait := time.Duration(millis) * time.Millisecond
	if wait >= timeout {
		return fmt.Errorf("a long poll of %v that is given up after %v", wait, timeout)
	}
	once := func(r func() *reply) func() {
		return func() {
			if deliver != nil {
				d := deliver
				deliver = nil
				d(r())
			}
		}
	}
	send := once(func() *reply {
		return &reply{Headers{{":status", "200"}, {serviceTime, "1"}, {"content-type", endpoint.ContentType}}, endpoint.Append(nil, c.snapshot)}
	})
	if since := u.Query().Get("since"); strings.TrimSpace(since) != c.snapshot.ID() {
		c.g.clock.after(time.Millisecond, send)
		return nil
	}
	c.polls = append(c.polls, func() { c.g.clock.after(time.Millisecond, send) })
	c.g.clock.after(wait, once(func() *reply { return localReply(304, "") }))
	return nil
}
