package picker

import (
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Which replica has which prompts in its prefix cache: learnt when a request is sent,
// taken back when it was not computed, and shared with the other workers and proxies.

// remember has the fleet remember prefixes in an index of the given size.
func (f *fleet) remember(memory int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.memory != memory {
		f.memory = memory
		f.index.SetSize(memory)
	}
}

// insertBatch is how many blocks of a prompt are inserted while the lock is held once:
// some microseconds of work, for which other threads may have to wait.
const insertBatch = 64

// learn notes that a replica has, or will have in a moment, a prompt's blocks.
func (f *fleet) learn(m *member, chain []uint64) {
	for end := len(chain); end > 0; end -= insertBatch {
		f.mu.Lock()
		f.insert(m, chain[max(0, end-insertBatch):end])
		f.mu.Unlock()
	}
}

// insert needs the lock.
func (f *fleet) insert(m *member, chain []uint64) {
	if f.memory > 0 {
		f.index.Insert(m.slot, chain)
	}
}

// unlearn notes that a replica does not have blocks of a prompt after all. It returns how
// many of the first it has in any case: it has responded to a prompt with them.
func (f *fleet) unlearn(m *member, blocks []uint64) (kept int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.index.Forget(m.slot, blocks)
}

// computed notes that a replica has begun its response to a prompt.
func (f *fleet) computed(m *member, chain []uint64) {
	for end, known := len(chain), false; end > 0 && !known; end -= insertBatch {
		f.mu.Lock()
		known = f.index.Computed(m.slot, chain[max(0, end-insertBatch):end])
		f.mu.Unlock()
	}
}

// grown returns by how much the index has grown since it was last asked.
func (f *fleet) grown() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.index.Len() - f.reported
	f.reported += n
	return n
}

// exchange reports to the other workers which prompts went where, and learns the same from
// them. It is called by workers that have a ring. What any of them has learnt itself is
// reported to the other proxies.
func (f *fleet) exchange(others filter.Peers) error {
	report := func([]byte) {}
	if others != nil {
		report = others.Tell
	}
	return f.ring.Exchange(f.learnNotes, report)
}

// receive learns what other proxies report, and passes it on to the other workers.
func (f *fleet) receive(notes []byte) error {
	if f.memory == 0 {
		return nil
	}
	f.learnNotes(notes)
	if f.ring == nil {
		return nil
	}
	return f.ring.Forward(notes)
}

// learnNotes learns what others report.
func (f *fleet) learnNotes(notes []byte) {
	for n, rest, ok := endpoint.CutNote(notes); ok; n, rest, ok = endpoint.CutNote(rest) {
		f.received = n.AppendChain(f.received[:0])
		if m := f.findID(n.Replica); m != nil {
			if f.believesReports(m) {
				f.learn(m, f.received)
			}
		} else if m := f.findID(endpoint.Unlearnt(n.Replica)); m != nil {
			if kept := f.unlearn(m, f.received); kept > 0 && f.ring != nil {
				f.ring.Report(m.id, f.received[:kept]) // the others forget it: they do not know what it responded to here
			}
		}
	}
}

// receive implements what filter.Peers asks of who learns.
func (f *Filter) receive(notes []byte) {
	f.readSnapshot() // which replicas there are
	if err := f.fleet.receive(notes); err != nil {
		f.deps.Log(filter.Debug, "picker: "+err.Error())
	}
}

// learn notes where a prompt is computed, for others too.
func (f *Filter) learn(m *member, s *state) {
	f.fleet.learn(m, s.chain)
	f.report(s, m.id, s.chain)
}

// unlearn takes back what learn noted, except what the replica had before, or has
// responded to for others.
func (f *Filter) unlearn(m *member, s *state) {
	rest := s.chain[min(s.hitBlocks, len(s.chain)):]
	if len(rest) > 0 {
		rest = rest[f.fleet.unlearn(m, rest):]
	}
	if len(rest) > 0 {
		f.report(s, endpoint.Unlearnt(m.id), rest)
	}
}

// report reports a prompt to others. Where all threads share the fleet, these are the other
// proxies. Elsewhere they are the workers, of which one reports to the proxies.
func (f *Filter) report(s *state, id uint64, chain []uint64) {
	if f.fleet.ring != nil {
		f.fleet.ring.Report(id, chain)
		return
	}
	if f.deps.Peers == nil {
		return
	}
	for end := len(chain); end > 0; end -= endpoint.MaxNote {
		s.note = endpoint.AppendNote(s.note[:0], id, chain[max(0, end-endpoint.MaxNote):end])
		f.deps.Peers.Tell(s.note)
	}
}
