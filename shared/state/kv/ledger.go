package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The keys carry the number of the form that is written under them: shared data outlives a wasm VM, so two builds can meet in it.
const (
	directoryKey = "inlet.ledger.1"  // who takes part, and which of their records changed
	recordPrefix = "inlet.ledger.1/" // + worker: what that worker counts
)

// Ledger is a set of [Counters] over a [Store], for workers that share nothing else.
//
// Each worker writes one record, with its own non-zero counts. A small directory lists the workers with the sequence number of each
// one's record; its cas is the version word of the whole ledger. So a tick in which nothing happened is one Get of the directory, and a
// tick in which a neighbour counted is one more Get for that neighbour's record. The value of a counter is the worker's own count plus
// what the others last published.
//
// A worker with nothing to count is not in the directory and writes nothing at all. One that counts renews its entry at half the lease;
// an entry that did not move for a lease is a dead worker's: its counts are dropped by each of the others and one of them takes it off
// the list. Silence is measured by the reader's own clock from the moment when it saw the entry move, so no two clocks are compared.
//
// A Ledger belongs to one worker, which calls it from one thread. It is the only Ledger with that worker id at a time; after a crash the
// same id may be taken up again, and then replaces the dead one's counts at its first tick.
type Ledger struct {
	store  Store
	worker string
	key    string // of this worker's record
	now    func() time.Time
	lease  time.Duration

	byName map[string]*ledgerCounter
	open   []*ledgerCounter // in the order of Open: the order of a record

	touched bool   // Add was called since the last publication
	pending bool   // what was published last, or part of it, may not be what the others see
	seq     uint64 // of the last record that this worker wrote
	beat    uint64 // renewals of the entry

	listed  bool      // this worker's entry stood in the directory when it was last read or written
	renewed time.Time // when this worker's entry moved last
	ticked  time.Time // when Tick ran last

	seen    uint32 // cas of the directory as last read; 0 = never
	reread  bool   // a counter was opened that the others' records may hold
	entries []entry
	peers   []*peer
	scratch []byte
}

// ledgerCounter is one counter as this worker sees it.
type ledgerCounter struct {
	ledger *Ledger
	name   string
	own    int64
	others int64
	// published is own as the others know it.
	published int64
}

func (c *ledgerCounter) Add(delta int64) {
	c.own += delta
	c.ledger.touched = true
}

func (c *ledgerCounter) Value() int64 { return c.own + c.others }

// peer is another worker as this one knows it.
type peer struct {
	worker string
	key    string // of its record
	seq    uint64 // of the record that was read last, 0 if it is to be read again
	entry  entry  // as last read from the directory
	moved  time.Time
	shares []share
	// expired: the entry did not move for a lease, so the record does not count until it does.
	expired bool
	gone    bool // no longer in the directory
}

// share is what a peer counts on one counter that this worker has open.
type share struct {
	counter *ledgerCounter
	count   int64
}

// NewLedger returns the ledger of the given worker. The id must be unique among the live workers of one Envoy. The lease is how long a
// worker may be silent before its counts expire: three ticks is a good value.
func NewLedger(s Store, worker string, now func() time.Time, lease time.Duration) *Ledger {
	t := now()
	return &Ledger{
		store: s, worker: worker, key: recordPrefix + worker, now: now, lease: lease,
		byName: make(map[string]*ledgerCounter),
		// Starting from the clock, a successor with the same id does not repeat the numbers of the one before, which the others may
		// still remember.
		seq: uint64(t.UnixNano()), ticked: t,
	}
}

// Open returns the counter of that name. What the others already count on it is seen after the next Tick.
func (l *Ledger) Open(name string) Counter {
	if c := l.byName[name]; c != nil {
		return c
	}
	name = strings.Clone(name)
	c := &ledgerCounter{ledger: l, name: name}
	l.byName[name] = c
	l.open = append(l.open, c)
	l.reread = true
	return c
}

// Tick publishes this worker's counts if they changed or half the lease is over, and takes over what the others published. After an
// error (ErrBusy, or the store's own) the ledger is unharmed: own counts are exact, the others' are as old as the last good tick, and the
// next Tick does what this one left.
func (l *Ledger) Tick() error {
	now := l.now()
	if now.Sub(l.ticked) >= l.lease {
		// This worker itself was away for a lease (a stopped process, a clock that was set): the silence that it sees says nothing
		// about the others.
		for _, p := range l.peers {
			p.moved = now
		}
	}
	l.ticked = now

	writeErr := l.publish(now)
	readErr := l.refresh(now)
	if writeErr != nil {
		return writeErr
	}
	return readErr
}

// Close takes this worker off the list, so that the others drop its counts at their next tick. The ledger must not be used after.
func (l *Ledger) Close() error {
	if !l.listed {
		return nil
	}
	return l.leave()
}

// publish writes this worker's record if the counts changed, then its entry in the directory. That order matters: a worker
// that sees the new sequence number finds the record that belongs to it, or a later one.
func (l *Ledger) publish(now time.Time) error {
	change := l.pending || l.touched && l.changed()
	renew := l.listed && now.Sub(l.renewed) >= l.lease/2
	if !change && !renew {
		l.touched = false
		return nil
	}
	if l.idle() {
		if l.listed {
			if err := l.leave(); err != nil {
				return err
			}
		}
		l.settle()
		return nil
	}
	if !change {
		var stands bool
		if err := l.changeDirectory(func() bool { stands = l.renew(); return stands }); err != nil {
			return err
		}
		if stands {
			l.renewed = now
			return nil
		}
		// The others took this worker for dead, and may have emptied its record.
	}
	l.pending = true
	l.seq++
	l.scratch = l.appendRecord(l.scratch[:0])
	if err := l.store.Set(l.key, l.scratch, 0); err != nil {
		return fmt.Errorf("write the record of worker %s: %w", l.worker, err)
	}
	if err := l.changeDirectory(l.enter); err != nil {
		return err
	}
	l.listed, l.renewed = true, now
	l.settle()
	return nil
}

// changed reports whether a count differs from what was published. A request that came and went within one tick changes nothing.
func (l *Ledger) changed() bool {
	for _, c := range l.open {
		if c.own != c.published {
			return true
		}
	}
	return false
}

func (l *Ledger) settle() {
	for _, c := range l.open {
		c.published = c.own
	}
	l.touched, l.pending = false, false
}

func (l *Ledger) idle() bool {
	for _, c := range l.open {
		if c.own != 0 {
			return false
		}
	}
	return true
}

func (l *Ledger) leave() error {
	if err := l.changeDirectory(l.drop(l.worker)); err != nil {
		return err
	}
	l.listed = false
	return l.store.Set(l.key, tombstone, 0)
}

// enter puts this worker's entry into the directory, with the sequence number of the record just written.
func (l *Ledger) enter() bool {
	if l.renew() {
		return true
	}
	l.beat++
	l.entries = append(l.entries, entry{worker: l.worker, seq: l.seq, beat: l.beat})
	return true
}

// renew moves this worker's entry on, and reports whether there is one.
func (l *Ledger) renew() bool {
	for i := range l.entries {
		if l.entries[i].worker == l.worker {
			l.beat++
			l.entries[i] = entry{worker: l.worker, seq: l.seq, beat: l.beat}
			return true
		}
	}
	return false
}

// drop returns a change that takes a worker off the list.
func (l *Ledger) drop(worker string) func() bool {
	return func() bool {
		before := len(l.entries)
		l.entries = slices.DeleteFunc(l.entries, func(e entry) bool { return e.worker == worker })
		return len(l.entries) != before
	}
}

// changeDirectory reads the directory into l.entries, applies change and writes it back, until no other worker wrote in between. A
// change that returns false leaves the directory as it is.
func (l *Ledger) changeDirectory(change func() bool) error {
	for range casRounds {
		value, cas, err := l.store.Get(directoryKey)
		switch {
		case errors.Is(err, ErrNotFound):
			value, cas = nil, Create
		case err != nil:
			return fmt.Errorf("read the ledger: %w", err)
		}
		if l.entries, err = l.decodeDirectory(value); err != nil {
			l.entries = l.entries[:0] // written by something else: start again, each worker enters itself
		}
		if !change() {
			return nil
		}
		l.scratch = appendDirectory(l.scratch[:0], l.entries)
		err = l.store.Set(directoryKey, l.scratch, cas)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrMismatch) {
			return fmt.Errorf("write the ledger: %w", err)
		}
	}
	return fmt.Errorf("ledger: %w", ErrBusy)
}

// refresh takes over what the others published since the last time.
func (l *Ledger) refresh(now time.Time) error {
	value, cas, err := l.store.Get(directoryKey)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	if cas != l.seen || l.reread {
		if err := l.readPeers(value, now); err != nil {
			return err
		}
		l.seen = cas
	}
	return l.expire(now)
}

// readPeers compares the directory with what is known and reads the records that moved.
func (l *Ledger) readPeers(directory []byte, now time.Time) error {
	var err error
	if l.entries, err = l.decodeDirectory(directory); err != nil {
		return err
	}
	for _, p := range l.peers {
		p.gone = true
		if l.reread {
			p.seq = 0
		}
	}
	l.reread = false
	l.listed = false
	for _, e := range l.entries {
		if e.worker == l.worker {
			l.listed = true
			continue
		}
		p := l.peer(e.worker, now)
		p.gone = false
		if p.entry != e {
			p.entry, p.moved, p.expired = e, now, false
		}
	}
	for _, p := range l.peers {
		if p.gone {
			p.clear()
		} else if !p.expired && p.seq != p.entry.seq {
			err = errors.Join(err, l.readRecord(p)) // one bad record does not hide the others
		}
	}
	l.peers = slices.DeleteFunc(l.peers, func(p *peer) bool { return p.gone })
	if !l.listed && !l.idle() {
		l.pending = true // the others took this worker for dead: enter again at the next tick
	}
	return err
}

// peer returns the peer with that id, a new one if it is not known.
func (l *Ledger) peer(worker string, now time.Time) *peer {
	for _, p := range l.peers {
		if p.worker == worker {
			return p
		}
	}
	p := &peer{worker: worker, key: recordPrefix + worker, moved: now}
	l.peers = append(l.peers, p)
	return p
}

// clear takes back what the peer added to the counters.
func (p *peer) clear() {
	for _, s := range p.shares {
		s.counter.others -= s.count
	}
	p.shares = p.shares[:0]
	p.seq = 0 // to be read again
}

// expire drops the counts of workers that did not move for a lease, and takes them off the list.
func (l *Ledger) expire(now time.Time) error {
	for _, p := range l.peers {
		if now.Sub(p.moved) < l.lease {
			continue
		}
		p.clear()
		p.expired = true
		if err := l.bury(p.entry); err != nil {
			return err
		}
	}
	return nil
}

// bury takes a dead worker off the list and empties its record. The worker may turn out to be alive at any point of this. If its entry
// moved, it stays. If it comes too late for that, it finds no entry and writes a new record, with a new sequence number, before it enters
// again: so a record with the number of the buried entry is one that nobody will read.
func (l *Ledger) bury(dead entry) error {
	dropped := false
	err := l.changeDirectory(func() bool {
		before := len(l.entries)
		l.entries = slices.DeleteFunc(l.entries, func(e entry) bool { return e == dead })
		dropped = len(l.entries) != before
		return dropped
	})
	if err != nil || !dropped {
		return err
	}
	key := recordPrefix + dead.worker
	value, cas, err := l.store.Get(key)
	if err == nil && recordSeq(value) == dead.seq {
		err = l.store.Set(key, tombstone, cas)
	}
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrMismatch) {
		return fmt.Errorf("empty the record of worker %s: %w", dead.worker, err)
	}
	return nil
}

// readRecord replaces what is known of the peer by its record.
func (l *Ledger) readRecord(p *peer) error {
	value, _, err := l.store.Get(p.key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("read the record of worker %s: %w", p.worker, err)
	}
	p.clear()
	bad := err == nil && !isTombstone(value) && !l.take(p, value)
	if bad {
		p.clear() // not the half of it
	}
	p.seq = p.entry.seq // read, whatever came of it: a bad record is not read again until it is another one, or Open asks for it
	if bad {
		return fmt.Errorf("record of worker %s: %w", p.worker, errMalformed)
	}
	return nil
}

// take takes over what the peer's record counts. It reports whether the record is well-formed.
func (l *Ledger) take(p *peer, record []byte) bool {
	if recordSeq(record) == 0 {
		return false
	}
	// The record may already be a later one than the entry says: then it is read once more when the entry says so, to the same effect.
	for b := record[recordHeader:]; len(b) > 0; {
		name, rest, ok := cutString(b)
		if !ok {
			return false
		}
		count, n := binary.Varint(rest)
		if n <= 0 {
			return false
		}
		b = rest[n:]
		// Counters that this worker has not open are of no use here. Open has them read again when they become so.
		if c := l.byName[string(name)]; c != nil {
			c.others += count
			p.shares = append(p.shares, share{c, count})
		}
	}
	return true
}

// The forms in the store:
//
//	directory: format, then per worker: id, seq and beat (uvarint)
//	record:    format, seq (uint64), then per counter: name, count (zigzag varint)
//
// A string is its length (uvarint) and its bytes.
const (
	format       = 1
	recordHeader = 1 + 8
)

// tombstone is the record of a worker that left. Not empty, because a zero-length value has no address to pass to a host.
var tombstone = []byte{format}

type entry struct {
	worker    string
	seq, beat uint64
}

var errMalformed = errors.New("kv: malformed ledger")

func appendDirectory(b []byte, entries []entry) []byte {
	b = append(b, format)
	for _, e := range entries {
		b = appendString(b, e.worker)
		b = binary.AppendUvarint(b, e.seq)
		b = binary.AppendUvarint(b, e.beat)
	}
	return b
}

// decodeDirectory decodes into l.entries. The ids of workers that are known already are not allocated again.
func (l *Ledger) decodeDirectory(b []byte) ([]entry, error) {
	entries := l.entries[:0]
	if len(b) == 0 {
		return entries, nil
	}
	if b[0] != format {
		return entries, errMalformed
	}
	b = b[1:]
	for len(b) > 0 {
		worker, rest, ok := cutString(b)
		if !ok {
			return entries, errMalformed
		}
		seq, n := binary.Uvarint(rest)
		if n <= 0 {
			return entries, errMalformed
		}
		beat, m := binary.Uvarint(rest[n:])
		if m <= 0 {
			return entries, errMalformed
		}
		b = rest[n+m:]
		entries = append(entries, entry{worker: l.workerName(worker), seq: seq, beat: beat})
	}
	return entries, nil
}

func (l *Ledger) workerName(b []byte) string {
	if string(b) == l.worker {
		return l.worker
	}
	for _, p := range l.peers {
		if p.worker == string(b) {
			return p.worker
		}
	}
	return string(b)
}

func (l *Ledger) appendRecord(b []byte) []byte {
	b = append(b, format)
	b = binary.LittleEndian.AppendUint64(b, l.seq)
	for _, c := range l.open {
		if c.own != 0 {
			b = appendString(b, c.name)
			b = binary.AppendVarint(b, c.own)
		}
	}
	return b
}

func isTombstone(record []byte) bool { return len(record) <= 1 }

// recordSeq returns the record's sequence number, 0 if it has none that this build can read.
func recordSeq(record []byte) uint64 {
	if len(record) < recordHeader || record[0] != format {
		return 0
	}
	return binary.LittleEndian.Uint64(record[1:])
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func cutString(b []byte) (s, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}
