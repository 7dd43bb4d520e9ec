package quota

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// view is what a companion knows of Redis: copies of accounts, and what all companions agree on. Only the worker uses it.
type view struct {
	meta        meta
	metaStamp   string // "" if there is none
	unsavedMeta bool   // it is another one than Redis has
	count       int64  // of exchanges, as last seen: it only grows, unless Redis went back to an older state
	accounts    map[string]*copied
	seen        map[string]int64 // proxies, ms
	offset      time.Duration    // of Redis' clock
	began       time.Time        // with a monotonic reading
	trimmed     int64            // the minute in which copies of windows that are over were dropped last
	restoring   bool             // there may be copies of an earlier generation, which Redis may have lost
}

// copied is a copy of an account.
type copied struct {
	stamp      string // "" if Redis has none
	generation uint32 // in which it was copied
	unsaved    bool   // Redis has less
	account    *account.Allocation
}

func (v *view) forget() {
	*v = view{accounts: map[string]*copied{}, seen: map[string]int64{}, began: time.Now()}
}

// now is Redis' time. It is counted by a clock that is never set, from what Redis said last.
func (v *view) now() time.Time { return v.began.Round(0).Add(time.Since(v.began) + v.offset) }

// mostBatch bounds the messages of one call, so that none takes long: Redis does nothing else meanwhile.
const mostBatch = 64

// run is the worker: it answers what has arrived while the call before was on its way.
func (s *redisStore) run(ctx context.Context) {
	defer close(s.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		for {
			s.mu.Lock()
			n := min(len(s.pending), mostBatch)
			batch := s.pending[:n:n]
			s.pending = s.pending[n:]
			s.mu.Unlock()
			if n == 0 {
				break
			}
			err := s.commit(ctx, batch)
			if err == nil && s.restoring {
				s.restore(ctx)
			}
			s.note(err)
			for _, j := range batch {
				if err != nil {
					j.err = err
				}
				close(j.applied)
			}
		}
	}
}

// note logs that Redis begins or ceases to respond.
func (s *redisStore) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Accounts, s.stats.Proxies = len(s.accounts), len(s.seen)
	if s.redis.Up == (err == nil) {
		return
	}
	if s.redis.Up = err == nil; err != nil {
		s.log.Error("Redis does not respond: proxies get no more of shared limits until it does", "reason", err)
	} else {
		s.log.Info("Redis responds")
	}
}

// mostTries bounds how often a batch is answered again since others changed its accounts. One of several that try at once succeeds, so each
// waits for a few of the others at most.
const mostTries = 50

// commit answers a batch and saves the result.
func (s *redisStore) commit(ctx context.Context, batch []*job) error {
	ctx, cancel := context.WithTimeout(ctx, 2*redisCall)
	defer cancel()
	s.trim()
	now := s.now()
	for range mostTries {
		switch {
		case s.meta.Generation == 0:
			s.newGeneration(now)
		case s.unsavedMeta:
			s.meta.begin(now) // Redis has said what time it is
		}
		w := s.work(now, batch)
		o, err := s.call(ctx, w)
		if err != nil {
			return err
		}
		now = time.UnixMilli(o.now)
		if s.learn(w, o) {
			return nil
		}
	}
	return errors.New("other companions changed the same counters in every round")
}

// trim bounds the copies. What was copied can be copied again.
func (s *redisStore) trim() {
	now := s.now().UnixMilli()
	if minute := now / 60_000; minute != s.trimmed || len(s.accounts) > maxAccounts {
		s.trimmed = minute
		maps.DeleteFunc(s.accounts, func(_ string, c *copied) bool {
			return c.account == nil || c.account.End > 0 && c.account.End+60_000 < now
		})
	}
	if len(s.accounts) > maxAccounts {
		clear(s.accounts)
	}
	if len(s.seen) > maxProxies {
		maps.DeleteFunc(s.seen, func(_ string, seen int64) bool { return now-seen > remembered.Milliseconds() })
	}
}

// restore gives Redis what this companion knows of earlier generations, before it is granted to others.
func (s *redisStore) restore(ctx context.Context) {
	var names []string
	for name, c := range s.accounts {
		if c.generation != s.meta.Generation {
			names = append(names, name)
		}
	}
	nothing := func(time.Time, *account.Allocator) error { return nil }
	for some := range slices.Chunk(names, 200) {
		if err := s.commit(ctx, []*job{{names: some, apply: nothing}}); err != nil {
			s.log.Warn("counters could not be given back to Redis; it is tried again", "reason", err)
			return
		}
	}
	s.restoring = false
	if len(names) > 0 {
		s.log.Info("counters were given back to Redis", "accounts", len(names))
	}
}

// work is a batch that was answered from the copies.
type work struct {
	now     time.Time
	names   []string // of the accounts
	before  []*copied
	after   []*account.Allocation
	proxies []string // of the batch
	alive   int      // proxies that were taken for alive
	dead    []string // proxies that were taken for dead
	meta    string   // to be written, "" for none
}

// known reports whether a proxy can be remembered.
func (s *redisStore) known(proxy string, a *account.Allocator) bool {
	_, ok := a.Seen[proxy]
	return ok || proxy == "" || len(a.Seen) < maxProxies
}

// work answers the batch from the copies, which it leaves as they are.
func (s *redisStore) work(now time.Time, batch []*job) *work {
	w := &work{now: now}
	if s.unsavedMeta {
		text, err := json.Marshal(s.meta)
		if err != nil {
			panic(err) // there are only numbers in it
		}
		w.meta = newStamp() + string(text)
	}
	a := account.NewAllocator(s.meta.Generation, time.UnixMilli(s.meta.Started), true)
	a.Settled = time.UnixMilli(s.meta.Settled)
	maps.Copy(a.Seen, s.seen)
	index := map[string]bool{}
	proxies := map[string]bool{}
	for _, j := range batch {
		for _, name := range j.names {
			if index[name] {
				continue
			}
			index[name] = true
			c := s.accounts[name]
			if c == nil {
				c = &copied{generation: s.meta.Generation}
			}
			w.names, w.before = append(w.names, name), append(w.before, c)
			if c.account != nil {
				a.Accounts[name] = cloneAccount(c.account)
			}
		}
		if j.proxy != "" && !proxies[j.proxy] {
			proxies[j.proxy] = true
			w.proxies = append(w.proxies, j.proxy)
		}
	}
	for _, j := range batch {
		if j.err = errTooMany; s.known(j.proxy, a) {
			j.err = j.apply(now, a)
		}
	}
	for _, seen := range a.Seen {
		if now.UnixMilli()-seen <= account.Lease.Milliseconds() {
			w.alive++
		}
	}
	dead := map[string]bool{}
	for i, name := range w.names {
		after := a.Accounts[name]
		w.after = append(w.after, after)
		if before := w.before[i].account; before != nil && after != nil && before.Start == after.Start {
			for proxy, old := range before.Shares {
				if share := after.Shares[proxy]; !proxies[proxy] && !dead[proxy] && (share == nil || *share != *old) {
					dead[proxy] = true
					w.dead = append(w.dead, proxy)
				}
			}
		}
	}
	return w
}

// outcome is what the script returned.
type outcome struct {
	what       string
	now, count int64
	meta       string
	alive      []any
	differs    []any
}

// call runs the script.
func (s *redisStore) call(ctx context.Context, w *work) (o outcome, err error) {
	start := time.Now()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.redis.Calls++
		s.redis.Took += time.Since(start)
		if err != nil {
			s.redis.Errors++
		}
	}()
	client, err := s.connect(ctx)
	if err != nil {
		return o, err
	}
	keys := s.fixedKeys()
	args := []any{w.now.UnixMilli(), s.count, account.Lease.Milliseconds(), remembered.Milliseconds(), s.metaStamp, w.meta, w.alive, len(w.proxies)}
	for _, p := range w.proxies {
		args = append(args, p)
	}
	args = append(args, len(w.dead))
	for _, p := range w.dead {
		args = append(args, p)
	}
	for i, name := range w.names {
		keys = append(keys, s.accountKey(name))
		value, expires := "", int64(0)
		if after := w.after[i]; after != nil && (w.before[i].stamp == "" || w.before[i].unsaved || !same(name, w.before[i].account, after)) {
			value = newStamp() + string(encodeAccount(name, after))
			expires = w.now.Add(remembered).UnixMilli()
			if after.End > 0 {
				expires = after.End + time.Minute.Milliseconds()
			}
		}
		args = append(args, w.before[i].stamp, value, expires)
	}
	list, err := s.script.Run(ctx, client, keys, args...).Slice()
	if err != nil {
		return o, err
	}
	if len(list) != 6 {
		return o, fmt.Errorf("the script returned %d values", len(list))
	}
	o.what, _ = list[0].(string)
	o.now, o.count = number(list[1]), number(list[2])
	o.meta, _ = list[3].(string)
	o.alive, _ = list[4].([]any)
	o.differs, _ = list[5].([]any)
	if o.what == "done" {
		s.keep(w, args[len(args)-3*len(w.names):])
	}
	return o, nil
}

// remembered is how long what has no window is kept, and when a proxy was heard from.
const remembered = 2 * time.Hour

// keep takes over what was written.
func (s *redisStore) keep(w *work, args []any) {
	for i, name := range w.names {
		stamp := w.before[i].stamp
		if value, _ := args[3*i+1].(string); value != "" {
			stamp = value[:stampSize]
		}
		if w.after[i] != nil {
			s.accounts[name] = &copied{stamp: stamp, generation: s.meta.Generation, account: w.after[i]}
		}
	}
}

// learn takes over what Redis said. It reports whether the work is done.
func (s *redisStore) learn(w *work, o outcome) (done bool) {
	s.offset = time.UnixMilli(o.now).Sub(s.began.Round(0)) - time.Since(s.began)
	maps.DeleteFunc(s.seen, func(_ string, seen int64) bool { return o.now-seen <= account.Lease.Milliseconds() }) // Redis knows better
	for i := 0; i+1 < len(o.alive); i += 2 {
		if proxy, ok := o.alive[i].(string); ok {
			s.seen[proxy] = number(o.alive[i+1])
		}
	}
	switch o.what {
	case "done":
		s.count = o.count
		if w.meta != "" {
			s.metaStamp, s.unsavedMeta = w.meta[:stampSize], false
		}
		return true
	case "lost":
		s.log.Error("Redis went back to an older state; its counters are rebuilt from what proxies and this companion know", "exchanges_lost", s.count-o.count)
		s.reset(time.UnixMilli(o.now))
	case "meta":
		s.learnMeta(o)
	case "differs":
		for i := 0; i+1 < len(o.differs); i += 2 {
			at, _ := o.differs[i].(int64)
			value, _ := o.differs[i+1].(string)
			if at >= 0 && at < int64(len(w.names)) {
				s.learnAccount(w.names[at], value)
			}
		}
	}
	return false
}

// learnMeta takes over another meta, or that there is none.
func (s *redisStore) learnMeta(o outcome) {
	if o.meta == "" {
		s.log.Error("Redis has lost its counters; they are rebuilt from what proxies and this companion know")
		s.metaStamp = ""
		s.reset(time.UnixMilli(o.now))
		return
	}
	var m meta
	if len(o.meta) < stampSize || json.Unmarshal([]byte(o.meta[stampSize:]), &m) != nil {
		s.log.Error("a value in Redis is not one of a companion, and is replaced", "key", s.key("meta"))
		s.metaStamp = o.meta[:min(len(o.meta), stampSize)]
		s.reset(time.UnixMilli(o.now))
		return
	}
	s.meta, s.metaStamp, s.unsavedMeta, s.count = m, o.meta[:stampSize], false, o.count
	s.restoring = len(s.accounts) > 0
}

// reset begins a new generation.
func (s *redisStore) reset(now time.Time) {
	s.mu.Lock()
	s.stats.Resets++
	s.mu.Unlock()
	s.newGeneration(now)
}

// newGeneration makes another meta, which is not written yet: nothing is granted until all that was granted before is known again.
func (s *redisStore) newGeneration(now time.Time) {
	generation := rand.Uint32()
	for generation == 0 {
		generation = rand.Uint32()
	}
	s.unsavedMeta, s.restoring = true, len(s.accounts) > 0
	s.meta.Generation = generation
	s.meta.begin(now)
}

// learnAccount takes over another state of an account. What was copied before Redis lost its data is not given up for what is left there.
func (s *redisStore) learnAccount(name, value string) {
	c := &copied{generation: s.meta.Generation, account: decodeAccount(value)}
	if len(value) >= stampSize {
		c.stamp = value[:stampSize]
	}
	if old := s.accounts[name]; old != nil && old.generation != s.meta.Generation {
		if m := merged(c.account, old.account); !same(name, m, c.account) {
			c.account, c.unsaved = m, true
		}
	}
	s.accounts[name] = c
}
