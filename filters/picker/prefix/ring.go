package prefix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// Bounds of what the ring takes of the store: 2 MiB.
const (
	ringSlots  = 64
	batchBytes = 32 << 10
	// queueBytes is what may wait for a tick.
	queueBytes = 8 * batchBytes
)

// The keys carry the number of the form that is written under them: shared data
// outlives a wasm VM.
const (
	ringHeadKey   = "inlet.prefix.2"
	ringSlotsKeys = "inlet.prefix.2/"
)

// A batch is its number in the ring (u64), a hash of the worker that wrote it
// (u64), whether other proxies reported it (u8), then notes until its end, in
// the form of endpoint.AppendNote. All little-endian.
const batchHeader = 8 + 8 + 1

// Ring brings what one worker learns to the others, for workers that share
// nothing but a store. It is a ring of batches; its head is the number of the
// next one. A worker that has something to report takes a number by
// compare-and-swap and then writes that batch. The others see by the head that
// there is something to read. A worker that comes late, or reads slowly, misses
// what was overwritten: the index is a guess in any case.
//
// A Ring belongs to one worker, which calls it from one thread.
type Ring struct {
	store  kv.Store
	worker uint64
	slots  [ringSlots]string // keys

	queue []byte // notes to be reported
	ends  []int  // ends of the notes in queue
	lost  int    // notes that did not fit into the queue

	seen uint32   // cas of the head as last read; 0: never
	next uint64   // number of the next batch to read
	late []uint64 // numbers that were taken but not written when their turn came

	batch []byte
}

// NewRing returns the ring of a worker. The id must be unique among those of one
// Envoy.
func NewRing(store kv.Store, worker string) *Ring {
	r := &Ring{store: store, worker: xxhash.Sum64String(worker)}
	for i := range r.slots {
		r.slots[i] = ringSlotsKeys + strconv.Itoa(i)
	}
	return r
}

// Report has the next Exchange report to the others that a replica, named by a
// hash of its address, has a prompt's blocks.
func (r *Ring) Report(replica uint64, chain []uint64) {
	for end := len(chain); end > 0; end -= endpoint.MaxNote {
		r.report(replica, chain[max(0, end-endpoint.MaxNote):end])
	}
}

func (r *Ring) report(replica uint64, chain []uint64) {
	if len(r.queue)+8*len(chain) > queueBytes {
		r.lost++
		return
	}
	r.queue = endpoint.AppendNote(r.queue, replica, chain)
	r.ends = append(r.ends, len(r.queue))
}

// Lost returns how many prompts could not be reported since the last call.
func (r *Ring) Lost() int {
	n := r.lost
	r.lost = 0
	return n
}

// Exchange reports what is in the queue, and learns what others reported. What any
// worker has learnt itself, this one among them, goes to report, too. An error does no
// harm: the rest is done at the next Exchange.
func (r *Ring) Exchange(learn, report func(notes []byte)) error {
	written := r.flush(report)
	return errors.Join(written, r.read(learn, report))
}

// flush writes the queue, in batches.
func (r *Ring) flush(report func(notes []byte)) error {
	begin, done := 0, 0 // bytes and notes that were written
	defer func() { r.drop(begin, done) }()
	for done < len(r.ends) {
		last := done
		for last+1 < len(r.ends) && r.ends[last+1]-begin <= batchBytes-batchHeader {
			last++
		}
		notes := r.queue[begin:r.ends[last]]
		if err := r.write(notes, false); err != nil {
			return err
		}
		report(notes)
		begin, done = r.ends[last], last+1
	}
	return nil
}

// Forward passes on to the other workers what other proxies reported.
func (r *Ring) Forward(notes []byte) error {
	for len(notes) > 0 {
		end := 0
		for _, rest, ok := endpoint.CutNote(notes); ok && len(notes)-len(rest) <= batchBytes-batchHeader; _, rest, ok = endpoint.CutNote(rest) {
			end = len(notes) - len(rest)
		}
		if end == 0 {
			return nil
		}
		if err := r.write(notes[:end], true); err != nil {
			return err
		}
		notes = notes[end:]
	}
	return nil
}

// write writes a batch.
func (r *Ring) write(notes []byte, passed bool) error {
	number, err := r.take()
	if err != nil {
		return err
	}
	kind := byte(0)
	if passed {
		kind = 1
	}
	r.batch = binary.LittleEndian.AppendUint64(r.batch[:0], number)
	r.batch = binary.LittleEndian.AppendUint64(r.batch, r.worker)
	r.batch = append(append(r.batch, kind), notes...)
	if err := r.store.Set(r.slots[number%ringSlots], r.batch, 0); err != nil {
		return fmt.Errorf("write a batch of prefixes: %w", err)
	}
	return nil
}

// drop removes what was written from the queue.
func (r *Ring) drop(bytes, notes int) {
	n := copy(r.queue, r.queue[bytes:])
	r.queue = r.queue[:n]
	n = copy(r.ends, r.ends[notes:])
	r.ends = r.ends[:n]
	for i := range r.ends {
		r.ends[i] -= bytes
	}
}

// rounds bounds the attempts to take a number.
const rounds = 16

// take returns the number of a batch that nobody else writes.
func (r *Ring) take() (uint64, error) {
	for range rounds {
		number, cas, err := r.head()
		if err != nil {
			return 0, err
		}
		if cas == 0 {
			cas = kv.Create
		}
		err = r.store.Set(ringHeadKey, binary.LittleEndian.AppendUint64(nil, number+1), cas)
		if err == nil {
			return number, nil
		}
		if !errors.Is(err, kv.ErrMismatch) {
			return 0, fmt.Errorf("take a place in the ring of prefixes: %w", err)
		}
	}
	return 0, kv.ErrBusy
}

// head returns the number of the next batch; 0 and no cas if there is none yet.
func (r *Ring) head() (uint64, uint32, error) {
	value, cas, err := r.store.Get(ringHeadKey)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return 0, 0, nil
	case err != nil:
		return 0, 0, fmt.Errorf("read the ring of prefixes: %w", err)
	case len(value) != 8:
		return 0, cas, nil // written by something else: start again
	}
	return binary.LittleEndian.Uint64(value), cas, nil
}

// read learns from the batches that were written since the last time, and from
// those that were late then.
func (r *Ring) read(learn, report func(notes []byte)) error {
	head, cas, err := r.head()
	if err != nil || cas == 0 || cas == r.seen && len(r.late) == 0 {
		return err
	}
	late := r.late
	r.late = r.late[:0]
	for i, number := range late {
		if number >= head || head-number > ringSlots {
			continue // overwritten by now, or the ring started again
		}
		if err := r.readBatch(number, learn, report); err != nil {
			r.late = append(r.late, late[i:]...)
			return err
		}
	}
	if r.next > head || head-r.next > ringSlots {
		r.next = head - min(head, ringSlots)
	}
	for ; r.next < head; r.next++ {
		if err := r.readBatch(r.next, learn, report); err != nil {
			return err
		}
	}
	r.seen = cas
	return nil
}

// readBatch learns from the batch of a number. Its writer may be between two
// calls. It is not waited for: it is looked for again until its place in the ring is
// taken.
func (r *Ring) readBatch(number uint64, learn, report func(notes []byte)) error {
	value, _, err := r.store.Get(r.slots[number%ringSlots])
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("read a batch of prefixes: %w", err)
	}
	if len(value) < batchHeader || binary.LittleEndian.Uint64(value) < number {
		r.late = append(r.late, number)
		return nil
	}
	r.learn(value, learn, report)
	return nil
}

// learn reads a batch of another worker. One that is newer than expected is as
// good; its turn comes again.
func (r *Ring) learn(value []byte, learn, report func(notes []byte)) {
	if binary.LittleEndian.Uint64(value[8:]) == r.worker {
		return
	}
	notes := value[batchHeader:]
	learn(notes)
	if passed := value[batchHeader-1] == 1; !passed {
		report(notes)
	}
}
