// Package picker chooses the replica: it ranks the ready replicas of the
// request's pool, hands Envoy the best few, counts what is in flight on each,
// and remembers which prompts each has computed.
package picker

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

const (
	// EndpointHeader carries the ranked list "ip:port[,ip:port…]", which
	// envoy.load_balancing_policies.override_host reads (endpoint picker protocol
	// of the Gateway API Inference Extension, proposal 004, v0.4).
	EndpointHeader = filter.EndpointHeader
	// PoolHeader names the pool to ordinary routes. It is written by bbr; here only
	// when another pool of the model is taken.
	PoolHeader = filter.PoolHeader
)

// Filter picks a replica. Reads x.Route, writes x.Target.
type Filter struct {
	filter.Base
	settings
	profile profile
	deps    *filter.Deps
	fleet   *fleet
	metrics metrics
}

// Needs the subset hint, and with some profiles hashes of the prompt's blocks.
func (f *Filter) Needs() filter.Needs {
	if f.profile.usesPrefixes() {
		return filter.NeedPrefix | filter.NeedSubset
	}
	return filter.NeedSubset
}

// loraField names a LoRA adapter of the model, or lists one for each prompt.
const loraField = "lora_path"

// Fields implements filter.FieldReader.
func (f *Filter) Fields() []string {
	if f.profile.usesPrefixes() {
		return llm.Partitions[:]
	}
	return nil
}

// see looks at the newest snapshot. Not only when a request comes: how long a replica has
// been ready, and whether it was away meanwhile, must not hang on traffic.
func (f *Filter) see() {
	if snapshot := f.deps.Snapshot(); snapshot != nil {
		f.fleet.see(snapshot, nil, nil, f.deps.Now())
	}
}

// OnTick tells the other workers what this one has learnt, and hears of them.
func (f *Filter) OnTick() {
	f.see()
	f.fleet.holdsBack(f.deps.Now()) // the others wait for this worker
	f.fleet.emptyEjected()
	if f.fleet.ring == nil || f.fleet.memory == 0 {
		return
	}
	if err := f.fleet.exchange(f.deps.Peers); err != nil {
		f.deps.Log(filter.Debug, "picker: "+err.Error()) // the next tick goes on
	}
	if n := f.fleet.ring.Lost(); n > 0 {
		f.deps.Log(filter.Debug, "picker: the other workers are not told of "+strconv.Itoa(n)+" prompts: too many in one tick")
	}
}

// OnRequest picks among the ready replicas of the pool.
func (f *Filter) OnRequest(x *filter.Exchange) filter.Verdict {
	s := stateOf(x)
	s.scratch = f.fleet.borrow()
	defer func() { // also when a defect ends it
		f.fleet.giveBack(s.scratch)
		s.scratch = nil
	}()
	return f.pick(x, s)
}

func (f *Filter) pick(x *filter.Exchange, s *state) filter.Verdict {
	s.reset()
	first := x.Route.Pool
	if first == "" {
		first = f.pool
	}
	if first == "" || x.API == llm.Models {
		if x.Subset.Given {
			return refuseEmpty() // an ordinary route knows no subset
		}
		return filter.Next // an ordinary route decides
	}
	s.read(f, x)
	now := f.deps.Now()
	snapshot := f.deps.Snapshot()
	var v *view
	if snapshot != nil {
		s.sinceReceived = now.Sub(snapshot.Received)
		s.peersTrust = endpoint.Trust(s.sinceReceived, f.stale)
		v = f.fleet.see(snapshot, s.chain, &s.matches, now)
		if v.renewal >= f.stale {
			f.warnOfMisfit(v.renewal)
		}
	}
	priority := f.objectives.priority(x.RequestHeaders)
	if priority != 0 {
		x.Explain("priority", strconv.Itoa(priority))
	}
	found := f.choosePool(x, s, v, filter.Pool{Name: first, External: x.Route.External}, now)
	switch {
	case found.external:
		f.route(x, first, found.name)
		return filter.Next
	case found.unknown && x.Subset.Given:
		return refuseEmpty() // to fail open would be to go around the subset
	case found.unknown:
		return filter.Fail("no-snapshot")
	case found.pool == nil:
		return refuseEmpty()
	case !found.room && (f.shed || priority < 0):
		f.metrics.picks.Record(1, filter.Values{found.name, outcomeShed})
		return refuseFull(f.fleet.service(found.name))
	}
	s.rank(f, found.pool, now)
	f.route(x, first, found.name)
	f.send(x, s, now)
	return filter.Next
}

// found is the pool that a request goes to.
type found struct {
	name     string
	pool     *endpoint.Pool // nil: none that has a ready replica
	external bool
	room     bool
	unknown  bool // nothing is known of the first pool
}

// choosePool returns the first of the request's pools in which a replica has
// room; if none has, the first that has any replica. The candidates are gathered.
//
// What is not known is not down: without a snapshot of the first pool the failure
// mode decides, and not the fallback.
func (f *Filter) choosePool(x *filter.Exchange, s *state, v *view, first filter.Pool, now time.Time) (best found) {
	gathered := ""
	for i := -1; i < len(x.Route.Fallback); i++ {
		p := first
		if i >= 0 {
			p = x.Route.Fallback[i]
		}
		if p.External {
			if x.Subset.Given {
				continue // nobody can say whether it keeps to the subset
			}
			// Nothing is known of it, so it is taken for one that has room.
			return found{name: p.Name, external: true}
		}
		pool, seats := v.find(p.Name)
		if pool == nil {
			f.metrics.picks.Record(1, filter.Values{p.Name, outcomeBlind})
			if i < 0 {
				return found{unknown: true}
			}
			continue
		}
		s.gather(f, pool, seats, &x.Subset, now)
		gathered = p.Name
		if len(s.replicas) == 0 {
			f.metrics.picks.Record(1, filter.Values{p.Name, outcomeEmpty})
			continue
		}
		room := s.hasRoom()
		if best.pool == nil || room {
			best.name, best.pool, best.room = p.Name, pool, room
		}
		if room {
			return best
		}
	}
	if best.pool != nil && gathered != best.name {
		_, seats := v.find(best.name)
		s.gather(f, best.pool, seats, &x.Subset, now)
	}
	return best
}

// route notes where the request goes, and tells routes if it is not the pool that
// they were told before.
func (f *Filter) route(x *filter.Exchange, first, pool string) {
	x.Target.Pool = pool
	if pool == first {
		return
	}
	x.SetRequestHeader(PoolHeader, pool)
	x.Explain("fallback", first+">"+pool)
	f.metrics.picks.Record(1, filter.Values{first, outcomeSpilled})
}

// send names the ranked list to Envoy and takes the first into account.
func (f *Filter) send(x *filter.Exchange, s *state, now time.Time) {
	for _, i := range s.ranked {
		s.sent = append(s.sent, s.candidates[i].member)
	}
	i := s.ranked[0]
	r, m := &s.replicas[i], s.candidates[i].member
	x.Target.Address = r.Address
	x.SetRequestHeader(EndpointHeader, s.list())
	if s.trying != m && s.trying != nil {
		f.fleet.tried(s.trying)
		s.trying = nil
	}
	s.start, s.waits = now, true
	s.hit = int(math.Round(r.Hit * float64(len(s.chain))))
	s.charge(m, int64(float64(s.tokens)*(1-r.Hit))+tokensOfRequest)
	f.metrics.inFlight.Record(1, filter.Values{s.pool})
	f.metrics.picks.Record(1, filter.Values{s.pool, outcomePicked})
	f.explain(x, s, i)
	if len(s.chain) > 0 {
		// Now and not when the answer comes: what follows within that time, from
		// the same conversation or with the same document, belongs there too.
		f.learn(m, s)
		f.metrics.promptTokens.Record(int64(len(s.chain)*llm.PrefixBlockTokens), filter.Values{s.pool})
		f.metrics.hitTokens.Record(int64(s.hit*llm.PrefixBlockTokens), filter.Values{s.pool})
		if n := f.fleet.grown(); n != 0 {
			f.metrics.indexSize.Record(int64(n), filter.Values{s.pool})
		}
	}
}

// explain says in a line why this replica.
func (f *Filter) explain(x *filter.Exchange, s *state, i int) {
	r := &s.replicas[i]
	x.Explain("picker", f.profile.name())
	x.Explain("candidates", strconv.Itoa(len(s.replicas)-s.behind))
	if first := s.replicas[i].Priority; first > 0 || len(s.backups) > 0 {
		x.Explain("rank", strconv.Itoa(int(first)))
	}
	if x.Subset.Given {
		x.Explain("subset", strconv.Itoa(len(x.Subset.Addresses)))
	}
	if len(s.out) > 0 {
		x.Explain("ejected", strconv.Itoa(len(s.out)))
	}
	switch {
	case s.candidates[i].try:
		x.Explain("by", "try")
	case !s.candidates[i].room:
		x.Explain("by", "no-room")
	}
	if len(s.chain) > 0 {
		x.Explain("hit", strconv.Itoa(s.hit)+"/"+strconv.Itoa(len(s.chain)))
	}
	x.Explain("in-flight", strconv.FormatInt(r.InFlight, 10))
	if f.profile.usesPrefixes() {
		x.Explain("tokens", strconv.FormatInt(r.Tokens, 10))
	}
	if f.explainWith != "" {
		s.why = string(x.Why())
	}
}

// hear implements what filter.Peers asks of who learns.
func (f *Filter) hear(notes []byte) {
	f.see() // which replicas there are
	if err := f.fleet.hear(notes); err != nil {
		f.deps.Log(filter.Debug, "picker: "+err.Error())
	}
}

// warnPause is how often the workers of an Envoy give the same warning.
const warnPause = time.Minute

// mayWarn reports whether it is time for a warning, and this worker's turn.
func (f *Filter) mayWarn(key string) bool {
	now := f.deps.Now()
	last, cas, err := f.deps.Store.Get(key)
	if err == nil && len(last) == 8 && now.Sub(time.Unix(0, int64(binary.LittleEndian.Uint64(last)))) < warnPause {
		return false
	}
	if err != nil {
		cas = kv.Create
	}
	return f.deps.Store.Set(key, binary.LittleEndian.AppendUint64(nil, uint64(now.UnixNano())), cas) == nil
}

// charge counts the request as in flight on m, with the tokens that m has to
// compute for it.
func (s *state) charge(m *member, tokens int64) {
	m.load.Add(1)
	m.tokens.Add(tokens)
	s.charged, s.tokensC = m, tokens
}

// release undoes charge.
func (s *state) release() {
	s.charged.load.Add(-1)
	s.charged.tokens.Add(-s.tokensC)
	s.charged = nil
}
