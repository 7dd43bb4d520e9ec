package quota

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/account"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// companion is the arithmetic of the real one, with a document and without storage.
type companion struct {
	t         *testing.T
	allocator *account.Allocator
	version   int64
	document  string
	down      bool
}

func newCompanion(t *testing.T) *companion {
	return &companion{t: t, allocator: account.NewAllocator(7, noon, true)}
}

// answer replies to a message.
func (c *companion) answer(now time.Time, message []byte) *filter.Reply {
	if c.down {
		return &filter.Reply{Err: errors.New("reset")}
	}
	m, err := account.ParseMessage(message)
	require.NoError(c.t, err)
	reply := c.allocator.Answer(now, &m)
	reply.Document = c.version
	if m.Document >= 0 && m.Document != c.version {
		reply.Keys = []byte(c.document)
	}
	return &filter.Reply{Status: 200, Body: reply.Append(nil)}
}

// joined is a filter that talks to the companion.
type joined struct {
	*rig
	companion *companion
}

// join makes a filter with a companion.
func join(t *testing.T, c *companion, doc string) *joined {
	r := &joined{rig: newRig(t, "anonymous: a"), companion: c}
	r.reload(doc)
	return r
}

func (r *joined) reload(doc string) {
	r.deps.Companion = &filter.Link{Cluster: "companion"}
	r.load(doc)
}

// tick lets the filter say what it has to say in the background.
func (r *joined) tick() (said bool) {
	for _, talk := range r.deps.Companion.Conversations() {
		if body := talk.Take(); body != nil {
			said = true
			talk.Heard(r.companion.answer(r.clock, body))
		}
	}
	r.pass(20 * time.Millisecond)
	return said
}

// send has a request go through, with the calls that it waits for.
func (r *joined) send(b body) (c *call, calls int) {
	c = r.rig.send(b)
	for c.v.Asks() {
		calls++
		require.Equal(r.t, "companion", c.v.Calls()[0].Cluster)
		require.Equal(r.t, "/v1/quota", c.v.Calls()[0].Path)
		c.v = r.f.OnReply(c.x, r.companion.answer(r.clock, c.v.Calls()[0].Body))
	}
	return c, calls
}

// Two Envoys share a limit exactly: who is dry asks, and waits for one round.
func TestTwoEnvoysShareALimit(t *testing.T) {
	c := newCompanion(t)
	doc := subscribed("requests: 100/day")
	envoys := []*joined{join(t, c, doc), join(t, c, doc)}
	envoys[1].deps.Rand = func() uint64 { return 5 }
	clear(envoys[1].kept)
	envoys[1].reload(doc)
	admitted := 0
	for i := range 160 {
		call, calls := envoys[i%3%2].send(body{})
		require.LessOrEqual(t, calls, 1)
		if call.status() == 200 {
			admitted++
		}
		call.end(ends{status: 200})
		envoys[0].tick()
		envoys[1].tick()
	}
	require.Equal(t, 100, admitted)
}

// A call that fails is the store's failure, which the configuration decides.
func TestCompanionDoesNotRespond(t *testing.T) {
	for mode, want := range map[string]int{"FailOpen": 200, "FailClosed": 503} {
		c := newCompanion(t)
		c.down = true
		r := join(t, c, subscribed("requests: 2/day")+"onStoreFailure: "+mode)
		call, _ := r.send(body{})
		require.Equal(t, want, call.status(), mode)
		call.end(ends{status: 200})
		require.Positive(t, r.samples["inlet_quota_store_failure_total unreachable"])
		require.EqualValues(t, 1, r.samples["inlet_quota_wait_total failed"])
		if mode == "FailClosed" {
			require.Equal(t, time.Second, call.v.Refusal().RetryAfter)
			continue
		}
		require.Contains(t, string(call.x.Why()), "local_share")
		require.Positive(t, r.samples["inlet_quota_store_failure_total local_share"])
		call, calls := r.send(body{})
		require.Equal(t, 200, call.status())
		require.Zero(t, calls, "nobody waits for a companion that does not respond")
		call.end(ends{status: 200})
		call, _ = r.send(body{})
		require.Equal(t, 429, call.status(), "the share is used up")
		call.end(ends{})

		// It is back, and learns what was used, once.
		c.down = false
		r.pass(10 * time.Second)
		for range 3 {
			r.tick()
		}
		call, _ = r.send(body{})
		require.Equal(t, 429, call.status())
	}
}

// A response that makes no sense is no response.
func TestCompanionTalksNonsense(t *testing.T) {
	r := join(t, newCompanion(t), subscribed("requests: 2/day")+"onStoreFailure: FailClosed")
	for _, reply := range []*filter.Reply{{Status: 500, Body: []byte("x")}, {Status: 200, Body: []byte("<html>")}, {Status: 200}, {Status: 404, Body: []byte("{}")}} {
		c := r.rig.send(body{})
		if c.v.Asks() {
			c.v = r.f.OnReply(c.x, reply)
		}
		require.Equal(t, 503, c.status())
		c.end(ends{})
		r.pass(10 * time.Second)
	}
}

// A client that leaves while its request waits leaves nothing behind.
func TestClientLeavesWhileWaiting(t *testing.T) {
	r := join(t, newCompanion(t), subscribed("requests: 1/day"))
	for range 3 {
		c := r.rig.send(body{})
		require.True(t, c.v.Asks())
		r.f.OnDone(c.x, filter.End{})
	}
	// Those who left are not among those that the companion has to serve.
	c := r.rig.send(body{})
	m, err := account.ParseMessage(c.v.Calls()[0].Body)
	require.NoError(t, err)
	require.Len(t, m.Accounts, 1)
	require.EqualValues(t, 1, m.Accounts[0].Want)
	c.v = r.f.OnReply(c.x, r.companion.answer(r.clock, c.v.Calls()[0].Body))
	require.Equal(t, 200, c.status())
}

const document1 = `{"developers":[{"name":"ann"}],"apps":[{"name":"shop","developer":"ann","products":["trial"],"status":"approved"}],
	"keys":[{"name":"one","app":"shop","sha256":"KEY(demo)","status":"active"}],"products":[{"name":"trial","approval":"auto","requests":"2/day"}]}`

// Keys and products of the companion apply without a restart, and no counter is lost.
func TestDocumentOfTheCompanion(t *testing.T) {
	c := newCompanion(t)
	c.version, c.document = 1, withKeys(document1)
	store := mem.NewStore()
	r := join(t, c, "source: companion\nonStoreFailure: FailClosed")
	r.deps.Store = store
	clear(r.kept)
	r.reload("source: companion\nonStoreFailure: FailClosed")
	status := func(key string) int {
		call, _ := r.send(body{key: key})
		call.end(ends{status: 200})
		return call.status()
	}
	require.Equal(t, 503, status("demo"), "nobody knows yet who may call")
	require.EqualValues(t, 1, r.samples["inlet_quota_store_failure_total no_document"])
	require.True(t, r.tick())
	require.Equal(t, 200, status("demo"))
	require.Equal(t, 401, status("other"))

	c.version, c.document = 2, withKeys(replace(document1, `"2/day"`, `"3/day"`, "KEY(demo)", "KEY(other)"))
	r.pass(askForChanges)
	require.True(t, r.tick())
	require.Equal(t, 401, status("demo"))
	require.Equal(t, 200, status("other"))
	require.Equal(t, 200, status("other"))
	require.Equal(t, 429, status("other"), "one was used before")

	c.version, c.document = 3, `{"keys":[{"name":"x"}]}`
	r.pass(askForChanges)
	r.tick()
	require.Len(t, r.logs, 1)
	require.Equal(t, 429, status("other"), "what cannot be used changes nothing")
	r.pass(askForChanges)
	r.tick()
	require.Len(t, r.logs, 1, "it is said once")

	// A worker that starts later knows at once, also without the companion.
	c.down = true
	clear(r.kept)
	r.deps.Worker = "later"
	r.reload("source: companion\nonStoreFailure: FailOpen")
	require.Equal(t, 401, status("demo"))
	require.Equal(t, 200, status("other"))
}

// Requests without an identity count for an application of the companion's, if it has one of that name.
func TestAnonymousApplicationOfTheCompanion(t *testing.T) {
	for name, want := range map[string]int{"shop": 200, "free": 403} {
		c := newCompanion(t)
		c.version, c.document = 1, withKeys(document1)
		r := join(t, c, "source: companion\nanonymous: "+name)
		r.tick()
		x := &filter.Exchange{}
		x.Reset(1)
		x.Start, x.RequestHeaders = r.clock, headers{}
		v := r.f.OnRequestHeaders(x)
		if want == 200 {
			require.Equal(t, filter.Next, v)
			require.Equal(t, "ann", x.Tenant.Developer)
			continue
		}
		require.Equal(t, want, v.Refusal().Status)
	}
}

// Who has its keys from its own configuration asks for none.
func TestNoDocumentUnlessAskedFor(t *testing.T) {
	c := newCompanion(t)
	c.version, c.document = 1, withKeys(document1)
	r := join(t, c, subscribed("requests: 2/day"))
	call, _ := r.send(body{})
	require.Equal(t, 200, call.status())
	call.end(ends{status: 200})
	require.True(t, r.tick())
	require.Nil(t, r.f.shelf.current())
}

// Without limits to share there is nothing to say.
func TestNothingToSay(t *testing.T) {
	for _, doc := range []string{twoKeys, subscribed("requests: 2/day") + "scope: local\n"} {
		r := join(t, newCompanion(t), doc)
		require.Empty(t, r.deps.Companion.Conversations(), doc)
	}
	r := join(t, newCompanion(t), subscribed("requests: 2/day, scope: local"))
	call, calls := r.send(body{})
	require.Equal(t, 200, call.status())
	require.Zero(t, calls)
	require.False(t, r.tick())
}

func replace(s string, pairs ...string) string {
	for i := 0; i < len(pairs); i += 2 {
		s = strings.Replace(s, pairs[i], pairs[i+1], 1)
	}
	return s
}

// A companion that shares no quotas will not do so later: the log says what is wrong, once.
func TestCompanionWithoutQuota(t *testing.T) {
	for mode, want := range map[string]int{"FailOpen": 200, "FailClosed": 503} {
		c := newCompanion(t)
		r := join(t, c, subscribed("requests: 2/day")+"onStoreFailure: "+mode)
		talk := r.deps.Companion.Conversations()[0]
		missing := &filter.Reply{Status: 404, Body: []byte("this companion shares no quotas: its configuration has no \"quota\"\n")}
		call := r.rig.send(body{})
		call.v = r.f.OnReply(call.x, missing)
		require.Equal(t, want, call.status())
		call.end(ends{status: 200})
		for range 3 {
			r.pass(time.Second)
			require.NotNil(t, talk.Take())
			talk.Heard(missing)
		}
		require.Zero(t, r.samples["inlet_quota_store_failure_total unreachable"])
		require.Positive(t, r.samples["inlet_quota_store_failure_total no_quota"])
		require.Len(t, r.logs, 1)
		require.Contains(t, r.logs[0], "this companion shares no quotas")

		talk.Heard(&filter.Reply{Err: errors.New("reset")})
		require.EqualValues(t, 1, r.samples["inlet_quota_store_failure_total unreachable"])
		talk.Heard(missing)
		require.Len(t, r.logs, 2, "it was away in between")
	}
}

// All workers of a wasm Envoy know the same of the companion's silence: each request that is admitted without it is counted, also where another worker
// found out.
func TestSilenceIsOneTruth(t *testing.T) {
	c := newCompanion(t)
	doc := subscribed("requests: 100/day")
	store := mem.NewStore()
	var workers []*joined
	for _, id := range []string{"1", "2"} {
		w := &joined{rig: newRig(t, "anonymous: a"), companion: c}
		clear(w.kept)
		w.deps.Worker, w.deps.Store = id, store
		w.reload(doc)
		workers = append(workers, w)
		call, _ := w.send(body{})
		call.end(ends{status: 200})
	}
	c.down = true
	for _, w := range workers {
		w.pass(10 * time.Second)
	}
	workers[0].tick()
	for i, w := range workers {
		call, _ := w.send(body{})
		require.Equal(t, 200, call.status())
		require.Contains(t, string(call.x.Why()), localShare, i)
		require.EqualValues(t, 1, w.samples["inlet_quota_store_failure_total local_share"], i)
		call.end(ends{status: 200})
	}
}
