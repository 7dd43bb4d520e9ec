package picker

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/inlet-proxy/inlet/filters/picker/prefix"
	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// state is what the picker keeps for one request. Its slices are used again by
// later requests of the same exchange object.
type state struct {
	// What the request is.

	seed   uint64   // hash of the model, and of what else keeps caches apart
	chain  []uint64 // a hash for each block of the prompt, and of seed
	tokens int64    // of the prompt, estimated
	input  scorer.Input

	sinceReceived time.Duration // how long this proxy has had the snapshot
	peersTrust    float64       // how far what other proxies had in flight then is to be believed

	// Who may serve it.

	*scratch // while it is being chosen
	pool     string

	// Who serves it.

	sent    []*member // the ranked list
	header  []byte
	why     string
	start   time.Time
	waits   bool    // for the first byte of the answer, or an error
	hit     int     // blocks of chain that the first replica holds
	charged *member // counts the request as in flight; nil if none does
	tokensC int64   // and so many tokens of it
	trying  *member // is tried with it; nil if none
	note    []byte  // scratch
}

// scratch is what a replica is chosen with. It is as large as the pool, so it goes
// back as soon as that is done: of the requests under way most wait for answers.
type scratch struct {
	subset     []int // places in the pool to which the request is restricted
	matches    prefix.Matches
	replicas   []scorer.Replica
	candidates []candidate // as replicas
	out        []candidate // ejected
	backups    []candidate // of another priority than those who serve ...
	behind     int         // ... and how many of them are in the ranked list
	listed     bool        // some candidate lists the model
	ranks      []rank      // as replicas
	total      []float64   // as replicas
	scores     []float64   // as replicas, of one scorer
	ranked     []int       // indices of replicas, best first
	keys       []rank      // as ranked
}

// candidate is what is known of a replica besides what scorers see.
type candidate struct {
	member *member
	index  int // in the pool's endpoints
	room   bool
	lacks  bool // it lists its models, and the request's is not among them, but among another's
	try    bool
	full   bool    // somebody holds back from it: see full.go
	warm   float64 // from 0 for a replica that has just become ready to 1
}

func stateOf(x *filter.Exchange) *state {
	s, ok := x.State().(*state)
	if !ok {
		s = &state{}
		x.SetState(s)
	}
	return s
}

func (s *state) reset() {
	s.chain, s.tokens, s.input = s.chain[:0], 0, scorer.Input{}
	s.matches.Reset()
	s.pool, s.why, s.hit = "", "", 0
	s.charged, s.tokensC, s.trying, s.sent = nil, 0, nil, s.sent[:0]
	s.empty()
}

// empty forgets the candidates of a pool.
func (s *state) empty() {
	s.replicas, s.candidates, s.out, s.backups = s.replicas[:0], s.candidates[:0], s.out[:0], s.backups[:0]
	s.ranks, s.total, s.behind = s.ranks[:0], s.total[:0], 0
	s.ranked, s.keys = s.ranked[:0], s.keys[:0]
}

// bytesOfToken is how many bytes of text a token stands for, about.
const bytesOfToken = llm.PrefixBlockBytes / llm.PrefixBlockTokens

// tokensOfRequest is what a request costs besides its prompt: however short that
// is, an answer is to be written.
const tokensOfRequest = 128

// read takes what matters from the request.
func (s *state) read(f *Filter, x *filter.Exchange) {
	model := x.Route.Target
	if r := x.Request; r != nil {
		if model == "" {
			model = r.Model
		}
		s.tokens = max(int64(r.PromptBytes/bytesOfToken+r.PromptTokens), int64(len(r.Prefix)*llm.PrefixBlockTokens))
		if path := r.Field(loraField); path.Kind == llm.FieldText && len(path.Value) > 0 && !strings.Contains(model, ":") {
			model += ":" + string(path.Value) // one adapter, two ways to ask for it
		}
		// A replica keeps what it computed by model, or LoRA adapter: both are
		// the name that it is asked for.
		s.seed = scorer.Mix(xxhash.Sum64String(model))
		if s.partition(r) {
			for _, block := range r.Prefix {
				s.chain = append(s.chain, scorer.Mix(block^s.seed))
			}
		}
	}
	s.input.Model, s.input.Adapter = model, x.Route.Base != ""
	if f.profile.usesSessions() {
		if token, ok := x.RequestHeaders.Get(f.session); ok && token != "" {
			s.input.Session = xxhash.Sum64String(token) | 1
		}
	}
}

// partition adds to the seed what else keeps the caches of a replica apart. It
// reports false if nobody knows what that is: then the prompt is like no other.
func (s *state) partition(r *llm.Request) bool {
	for i, name := range llm.Partitions {
		field := r.Field(name)
		if field.Kind == llm.FieldTooLong || field.Kind == llm.FieldOther {
			return false
		}
		if len(field.Value) > 0 && name != loraField { // that is part of the name
			s.seed = scorer.Mix(s.seed ^ (xxhash.Sum64(field.Value) + uint64(i)))
		}
	}
	return true
}

// gather collects the replicas of a pool that may be picked.
func (s *state) gather(f *Filter, pool *endpoint.Pool, seats []seat, subset *filter.Subset, now time.Time) {
	s.empty()
	s.reserve(len(pool.Endpoints))
	s.pool = pool.Name
	ejecting, holding := f.fleet.ejected.Value() > 0, f.fleet.holdsBack(now)
	n := len(pool.Endpoints)
	if subset.Given {
		n = len(s.within(pool, subset.Addresses))
	}
	several := ejecting // priorities: some may come back below
	for i := range n {
		if subset.Given {
			i = s.subset[i]
		}
		e := &pool.Endpoints[i]
		if !e.Ready {
			continue
		}
		c := candidate{member: seats[i].member, index: i, warm: 1}
		c.full = holding && c.member.full.Value() > 0
		if ejecting && c.member.ejected.Value() > 0 {
			s.out = append(s.out, c)
			continue
		}
		if since := seats[i].since; !since.IsZero() {
			c.warm = warm(now.Sub(since), f.slowStart)
		}
		s.add(f, e, &c)
		several = several || e.Priority != s.replicas[0].Priority
	}
	if ejecting {
		s.limitEjections(f, pool)
	}
	s.readModels()
	if several {
		s.preferFirst()
	}
}

// preferFirst leaves of the candidates those of one priority, the lowest that has
// room for the request; if none has, the lowest. The others stand in for them.
func (s *state) preferFirst() {
	first, n := s.firstPriority(), 0
	for i := range s.replicas {
		if s.replicas[i].Priority != first {
			s.backups = append(s.backups, s.candidates[i])
			continue
		}
		s.replicas[n], s.candidates[n] = s.replicas[i], s.candidates[i]
		n++
	}
	s.replicas, s.candidates, s.ranks, s.total = s.replicas[:n], s.candidates[:n], s.ranks[:n], s.total[:n]
}

// firstPriority returns the priority of the candidates that serve.
func (s *state) firstPriority() (first uint16) {
	best := -1
	for i := range s.replicas {
		priority, fit := s.replicas[i].Priority, s.candidates[i].fit()
		if fit > best || fit == best && priority < first {
			best, first = fit, priority
		}
	}
	return first
}

// fit is how well a replica can take a request: not at all if it lacks the model.
func (c *candidate) fit() int {
	switch {
	case c.lacks:
		return 0
	case !c.room:
		return 1
	}
	return 2
}

// within returns the places of addresses in a pool, each once.
func (s *state) within(pool *endpoint.Pool, addresses []string) []int {
	s.subset = s.subset[:0]
	for _, address := range addresses {
		if i, ok := slices.BinarySearchFunc(pool.Endpoints, address, compareAddress); ok {
			s.subset = append(s.subset, i)
		}
	}
	slices.Sort(s.subset)
	s.subset = slices.Compact(s.subset)
	return s.subset
}

func compareAddress(e endpoint.Endpoint, address string) int {
	return strings.Compare(e.Address, address)
}

// readModels finds out who serves the model, and whether it is a LoRA adapter.
// Replicas that list the same models share the list, so it is mostly read once.
func (s *state) readModels() {
	var last *endpoint.Models
	serves, anybody, lacking := false, false, false
	for i := range s.replicas {
		m := s.replicas[i].Models
		if m == nil {
			continue
		}
		if m != last {
			last = m
			var adapter bool
			serves, adapter = m.Serves(s.input.Model)
			s.input.Adapter = s.input.Adapter || adapter
		}
		anybody = anybody || serves
		lacking = lacking || !serves
		s.candidates[i].lacks = !serves
	}
	s.listed = anybody
	if lacking && !anybody {
		// Then it goes by another name there, or the lists are old.
		for i := range s.candidates {
			s.candidates[i].lacks = false
		}
	}
}

// isLacking reports whether a replica that is no candidate lists its models, and not the request's, which a candidate does.
func (s *state) isLacking(e *endpoint.Endpoint) bool {
	if !s.listed || e.Models == nil {
		return false
	}
	serves, _ := e.Models.Serves(s.input.Model)
	return !serves
}

// reserve makes room for n candidates, so that add need not look for it.
func (s *state) reserve(n int) {
	if cap(s.ranks) < n {
		s.replicas, s.candidates = make([]scorer.Replica, 0, n), make([]candidate, 0, n)
		s.ranks, s.total, s.scores = make([]rank, 0, n), make([]float64, 0, n), make([]float64, 0, n)
	}
}

// add makes a replica a candidate. There is room for it: reserve.
func (s *state) add(f *Filter, e *endpoint.Endpoint, c *candidate) {
	m := c.member
	n := len(s.ranks) + 1
	s.replicas, s.candidates, s.ranks, s.total = s.replicas[:n], s.candidates[:n], s.ranks[:n], s.total[:n]
	r := &s.replicas[n-1]
	// Counts of other workers may be a tick late: never take less than nothing
	// for a reason to send there.
	r.Endpoint, r.ID, r.InFlight, r.Tokens = e, m.id, max(0, m.load.Value()), max(0, m.tokens.Value())
	if e.Peers != (endpoint.InFlight{}) {
		r.InFlight += int64(math.Round(s.peersTrust * float64(e.Peers.Requests)))
		r.Tokens += int64(s.peersTrust * float64(e.Peers.Tokens))
	}
	r.Hit = 0
	if blocks := s.matches.Of(m.slot); blocks > 0 {
		r.Hit = float64(blocks) / float64(len(s.chain))
	}
	r.Trust = e.Gauges.Trust(s.sinceReceived, f.stale)
	c.room = !c.full && f.room.has(r)
	s.candidates[n-1] = *c
	s.ranks[n-1] = rank{}
}

// coldest is the share that a replica gets in the moment when it becomes ready.
const coldest = 0.1

// warm is how far a replica is on its way to a full share.
func warm(ready, slowStart time.Duration) float64 {
	if ready >= slowStart {
		return 1
	}
	return max(coldest, float64(ready)/float64(slowStart))
}

// limitEjections takes ejected replicas back that are above the allowed share:
// when so many fail, it may not be them, and somebody has to serve.
func (s *state) limitEjections(f *Filter, pool *endpoint.Pool) {
	ready := len(s.replicas) + len(s.out)
	allowed := max(0, min(int(f.health.share*float64(ready)), ready-1))
	for len(s.out) > allowed {
		// Any of them: in turn, so that none is preferred for its place.
		i := int(f.deps.Rand() % uint64(len(s.out)))
		c := s.out[i]
		s.out[i] = s.out[len(s.out)-1]
		s.out = s.out[:len(s.out)-1]
		s.add(f, &pool.Endpoints[c.index], &c)
	}
}

// hasRoom reports whether any candidate has room.
func (s *state) hasRoom() bool {
	for i := range s.candidates {
		if s.candidates[i].room {
			return true
		}
	}
	return false
}

// rank orders the candidates and keeps the best few, best first.
func (s *state) rank(f *Filter, pool *endpoint.Pool, now time.Time) {
	for _, c := range s.out {
		e := &pool.Endpoints[c.index]
		// One that would stand in for others is tried when these cannot serve.
		later := len(s.replicas) > 0 && e.Priority > s.replicas[0].Priority
		if s.trying == nil && !later && !s.isLacking(e) && f.fleet.try(c.member, now) {
			c.try = true
			s.trying = c.member
			s.add(f, e, &c)
		}
	}
	f.profile.rank(f, s)
	if s.trying != nil {
		s.ranks[len(s.ranks)-1].class = classTry
	}
	s.addBackups(f, pool)
	seed := f.deps.Rand()
	for i := range s.ranks {
		k := &s.ranks[i]
		switch c := &s.candidates[i]; {
		case c.lacks:
			k.class = min(k.class, classLacks)
		case c.full:
			k.class = min(k.class, classFull)
		}
		if last := len(s.keys) - 1; last+1 == f.endpoints && k.below(&s.keys[last]) {
			continue // as most are
		}
		if k.tie == 0 {
			k.tie = scorer.Mix(seed + uint64(i))
		}
		s.insert(i, *k, f.endpoints)
	}
}

// addBackups fills the ranked list up where those who serve are fewer than it has
// places for, and gives each its rank.
func (s *state) addBackups(f *Filter, pool *endpoint.Pool) {
	if len(s.replicas) >= f.endpoints {
		return
	}
	for _, c := range s.backups {
		s.behind++
		s.add(f, &pool.Endpoints[c.index], &c)
		r := &s.replicas[len(s.replicas)-1]
		s.ranks[len(s.ranks)-1] = rank{class: classBackup, score: -float64(r.Priority) - float64(min(r.InFlight, maxScored))/(maxScored+1)}
	}
}

// maxScored is the most requests in flight that tell backups apart.
const maxScored = 1 << 20

// insert puts replica i into the ranked list, which keeps at most limit entries.
func (s *state) insert(i int, k rank, limit int) {
	at := len(s.keys)
	for at > 0 && k.before(s.keys[at-1]) {
		at--
	}
	if at == limit {
		return
	}
	if len(s.keys) < limit {
		s.keys = append(s.keys, rank{})
		s.ranked = append(s.ranked, 0)
	}
	copy(s.keys[at+1:], s.keys[at:])
	copy(s.ranked[at+1:], s.ranked[at:])
	s.keys[at], s.ranked[at] = k, i
}

// list joins the addresses of the ranked replicas.
func (s *state) list() string {
	if len(s.ranked) == 1 {
		return s.replicas[s.ranked[0]].Address
	}
	s.header = s.header[:0]
	for n, i := range s.ranked {
		if n > 0 {
			s.header = append(s.header, ',')
		}
		s.header = append(s.header, s.replicas[i].Address...)
	}
	return string(s.header)
}
