package guardrail

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// mostVerdicts is how many verdicts a cache has.
const mostVerdicts = 4096

// sum stands for a question. It is keyed, so that who reads memory cannot try out texts.
type sum [16]byte

// tenant is whose verdicts are kept together. Without a filter that says who calls it is the same for all.
type tenant struct{ name, product string }

// sumOf returns the sum of a question to a provider, for a tenant.
func (f *Filter) sumOf(name string, who tenant, q *provider.Question) (s sum) {
	h := sha256.New()
	h.Write(f.key[:])
	var n [8]byte
	part := func(b string) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write([]byte(b))
	}
	phase := "request"
	if q.Response {
		phase = "response"
	}
	for _, s := range []string{name, who.name, who.product, phase, q.Role, q.Model, string(q.Prompt), string(q.Text)} {
		part(s)
	}
	copy(s[:], h.Sum(nil))
	return s
}

// cache keeps verdicts for a short time. Redactions are not kept: they have text. Each configuration has its own, each worker of
// the wasm build, too.
type cache struct {
	keep    time.Duration
	mutex   filter.Mutex
	known   map[sum]judgement
	ordered []sum // a ring, oldest at next when full
	next    int
}

// judgement is a verdict without text.
type judgement struct {
	until   time.Time
	blocked bool
	why     []string
}

func newCache(keep time.Duration, m filter.Mutex) *cache {
	return &cache{keep: keep, mutex: m, known: map[sum]judgement{}}
}

// get returns the verdict on a question, if it is known.
func (c *cache) get(s sum, now time.Time) (v provider.Verdict, ok bool) {
	if c == nil {
		return v, false
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	k, ok := c.known[s]
	if !ok || !now.Before(k.until) {
		return v, false
	}
	return provider.Verdict{Blocked: k.blocked, Why: k.why}, true
}

// put keeps a verdict.
func (c *cache) put(s sum, v provider.Verdict, now time.Time) {
	if c == nil || v.Redacted {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	_, again := c.known[s]
	c.known[s] = judgement{now.Add(c.keep), v.Blocked, v.Why}
	switch {
	case again:
	case len(c.ordered) < mostVerdicts:
		c.ordered = append(c.ordered, s)
	default:
		delete(c.known, c.ordered[c.next])
		c.ordered[c.next] = s
		c.next = (c.next + 1) % mostVerdicts
	}
}
