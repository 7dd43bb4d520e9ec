// Package journal keeps what must survive a restart in a folder: a snapshot of everything, and a log of what changed since.
//
// A record says what is so, not what changed: a record that is read twice, or an old one before a newer one, does no harm. So a snapshot
// needs no moment at which nothing changes: it is written while the log behind it goes on.
//
// # Files
//
// log-7 has all records since snapshot-7 was begun. When it has grown to several times the size of a snapshot, log-8 is begun, snapshot-8 is
// written, and the files before it are removed. What is read at start is the newest complete snapshot and every log from it on.
//
// The file "closed" says that the journal was closed in order. It is removed when the journal is opened, before anything is appended.
//
// # Durability
//
// Records are appended in groups, by one goroutine: what arrives while the disk is busy is written together next time. Append returns the
// group, of which a caller can await that it is written, so that it survives the end of this process, or synced, so that it survives that
// of the machine.
//
// # A disk that fails
//
// Once a file could not be written or synced, nothing more is appended to it: what a kernel does with such a file is not known. Records are
// dropped, and it is tried every second to write a new snapshot and a new log. With that everything is saved again, since the owner has it all
// in memory.
package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options are how a journal is opened. Dir, Load and Snapshot are required.
type Options struct {
	Dir string
	// Load gets every record, in order. An error makes Open fail.
	Load func(record []byte) error
	// Snapshot passes records that say everything to emit. It is called in a goroutine of its own, after Open has returned. The records
	// are not kept.
	Snapshot func(emit func(record []byte) error) error

	FS       FS            // Disk
	Log      *slog.Logger  // none
	MinLog   int64         // a log is not replaced before it has this size; 4 MiB
	SyncIdle time.Duration // records that nobody awaits are synced after this; 1 s
	Retry    time.Duration // a failed disk is tried again after this; 1 s
}

// Stats is what the journal counts.
type Stats struct {
	Records, Bytes uint64 // that were appended
	Syncs          uint64
	SyncTime       time.Duration // of all of them
	Errors         uint64        // failed writes, syncs and snapshots
	Dropped        uint64        // records that were not written because the disk failed
	Snapshots      uint64
	Failing        bool
}

// Journal is an open journal. Its methods are safe for concurrent use.
type Journal struct {
	opts Options
	lock *os.File

	clean bool // of Clean

	mu      sync.Mutex
	pending *Group // not yet taken by the writer
	wake    chan struct{}
	stats   Stats
	closed  bool
	fault   error // why the disk is failing

	done chan struct{} // closed when the writer has ended

	// Of the writer:
	seq        int
	file       File
	size       int64 // of the file
	base       int64 // of the latest snapshot
	unsynced   bool
	compaction chan compacted // receives once while a snapshot is being written
	due        bool           // the snapshot that belongs to the log is still to be written
}

type compacted struct {
	size int64
	err  error
}

// Group are records that are written together.
type Group struct {
	buf     []byte
	records uint64
	sync    bool
	written chan struct{}
	synced  chan struct{}
	err     error // set before the channels are closed
}

// Written waits until the records are in the operating system's hands.
func (g *Group) Written() error {
	<-g.written
	return g.err
}

// Synced waits until the records are on the disk. The group must have been appended to with durable.
func (g *Group) Synced() error {
	<-g.synced
	return g.err
}

// Open reads the journal in a folder, which is made if need be, and locks it.
func Open(o Options) (*Journal, error) {
	if o.FS == nil {
		o.FS = Disk{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	def := func(d *time.Duration) {
		if *d <= 0 {
			*d = time.Second
		}
	}
	def(&o.SyncIdle)
	def(&o.Retry)
	if o.MinLog <= 0 {
		o.MinLog = 4 << 20
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	locked, err := lock(o.Dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{opts: o, lock: locked, pending: newGroup(), wake: make(chan struct{}, 1), done: make(chan struct{})}
	if err := j.load(); err != nil {
		_ = locked.Close()
		return nil, err
	}
	j.clean = j.endedInOrder()
	go j.run()
	return j, nil
}

// endMark is the file that says that the journal was closed in order, and with which last log. It is there only between a Close and the next Open.
const endMark = "closed"

// endedInOrder reports whether the journal was closed in order, and takes the mark away: what happens from here on may never get to the
// disk. To remove a file needs no space. A mark that stays would be believed the next time, so it is not believed now either: as long as
// it cannot be removed nothing is known for sure.
func (j *Journal) endedInOrder() bool {
	name := filepath.Join(j.opts.Dir, endMark)
	f, err := j.opts.FS.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	var text []byte
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(f, 64))
		err = errors.Join(err, f.Close())
	}
	err = errors.Join(err, j.opts.FS.Remove(name), j.opts.FS.SyncDir(j.opts.Dir))
	if err != nil {
		j.opts.Log.Warn("the quota journal's mark of an orderly end cannot be used: the start is taken for one after a crash", "reason", err)
		return false
	}
	return string(text) == endText(j.seq, j.size)
}

// endText is what the mark says: the last log and its size, so that it goes with no other files.
func endText(seq int, size int64) string { return fmt.Sprintf("log-%d %d\n", seq, size) }

// markEnd says that everything that was appended is on the disk.
func (j *Journal) markEnd() error {
	f, err := j.opts.FS.Create(filepath.Join(j.opts.Dir, endMark))
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, endText(j.seq, j.size))
	return errors.Join(err, f.Sync(), f.Close(), j.opts.FS.SyncDir(j.opts.Dir))
}

// Clean reports whether the journal was closed in order before it was opened: then nothing that was appended is missing.
func (j *Journal) Clean() bool { return j.clean }

func newGroup() *Group { return &Group{written: make(chan struct{}), synced: make(chan struct{})} }

func (j *Journal) path(kind string, seq int) string {
	return filepath.Join(j.opts.Dir, kind+"-"+strconv.Itoa(seq))
}

// files returns the numbers of the files of a kind, in order.
func (j *Journal) files(kind string) ([]int, error) {
	names, err := j.opts.FS.List(j.opts.Dir)
	if err != nil {
		return nil, err
	}
	var seqs []int
	for _, name := range names {
		text, ok := strings.CutPrefix(name, kind+"-")
		if n, err := strconv.Atoi(text); ok && err == nil && n > 0 && strconv.Itoa(n) == text {
			seqs = append(seqs, n)
		}
	}
	slices.Sort(seqs)
	return seqs, nil
}

// load reads the newest snapshot and the logs from it on. j.seq is then the highest number of any file.
func (j *Journal) load() error {
	snapshots, err := j.files("snapshot")
	if err != nil {
		return err
	}
	logs, err := j.files("log")
	if err != nil {
		return err
	}
	from := 0
	if n := len(snapshots); n > 0 {
		from = snapshots[n-1]
		if err := j.loadFile("snapshot", from); err != nil {
			return err
		}
	}
	j.seq = from
	for _, seq := range logs {
		if seq >= from {
			if err := j.loadFile("log", seq); err != nil {
				return err
			}
			j.seq = max(j.seq, seq)
		}
	}
	return nil
}

func (j *Journal) loadFile(kind string, seq int) error {
	path := j.path(kind, seq)
	f, err := j.opts.FS.Open(path)
	if err != nil {
		return err
	}
	complete, valid, rest, err := readFile(f, j.opts.Load)
	err = errors.Join(err, f.Close())
	switch {
	case errors.Is(err, errTorn) && kind == "log":
		j.opts.Log.Warn("the quota journal ends with an incomplete record, as after a crash: it is cut there", "file", path, "kept_bytes", valid, "cut_bytes", rest)
		return nil
	case err == nil && kind == "snapshot" && !complete:
		err = errTorn // it was renamed when it was complete, so it was damaged later
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	j.base = valid
	j.size = valid // of the log that is read last
	return nil
}

// Append adds a record to the next group and returns it. durable makes the group be synced, too. The record is copied.
func (j *Journal) Append(record []byte, durable bool) *Group {
	j.mu.Lock()
	g := j.pending
	if j.closed {
		j.mu.Unlock()
		return failed(errClosed)
	}
	g.buf = appendRecord(g.buf, record)
	g.records++
	g.sync = g.sync || durable
	j.mu.Unlock()
	j.poke()
	return g
}

var errClosed = errors.New("the journal is closed")

func failed(err error) *Group {
	g := newGroup()
	g.finish(err)
	return g
}

func (g *Group) finish(err error) {
	g.err = err
	close(g.written)
	close(g.synced)
}

func (j *Journal) poke() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Err returns why the disk is failing, nil if it is not.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.fault
}

// Stats returns the present counts.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Failing = j.fault != nil
	return s
}

// Close writes and syncs what was appended, and unlocks the folder.
func (j *Journal) Close() error {
	j.mu.Lock()
	closed := j.closed
	j.closed = true
	j.mu.Unlock()
	if !closed {
		j.poke()
	}
	<-j.done
	return j.Err()
}

// run is the writer.
func (j *Journal) run() {
	defer close(j.done)
	defer j.lock.Close() //nolint:errcheck // it ends the lock all the same
	j.begin()
	idle := time.NewTicker(j.opts.SyncIdle)
	defer idle.Stop()
	retry := time.NewTicker(j.opts.Retry)
	defer retry.Stop()
	for {
		select {
		case <-j.wake:
			if j.writePending() {
				j.end()
				return
			}
		case <-idle.C:
			if j.unsynced {
				_ = j.sync() // a failure is noted
			}
		case <-retry.C:
			switch {
			case j.compaction != nil:
			case j.file == nil:
				j.begin()
			case j.due:
				j.compact()
			}
		case c := <-j.compaction:
			j.compacted(c)
		}
	}
}

// end writes what is left of the journal when it is closed.
func (j *Journal) end() {
	if j.compaction != nil {
		j.compacted(<-j.compaction)
	}
	if j.unsynced {
		_ = j.sync() // a failure is noted
	}
	if j.file == nil {
		return
	}
	if err := j.file.Close(); err != nil {
		j.file = nil
		j.failed(err)
		return
	}
	if j.Err() != nil {
		return // what was dropped is not saved again yet
	}
	if err := j.markEnd(); err != nil {
		j.opts.Log.Warn("the quota journal's mark of an orderly end could not be written: the next start is one as after a crash", "reason", err)
	}
}

// begin begins a new log, and a snapshot with everything that is known by now.
func (j *Journal) begin() {
	f, err := j.create(j.seq + 1)
	if err != nil {
		j.failed(err)
		return
	}
	if j.unsynced {
		_ = j.sync() // before a record of the new log is said to be on the disk; a failure is noted
	}
	if j.file != nil {
		if err := j.file.Close(); err != nil {
			j.opts.Log.Warn("closing a log of the quota journal", "reason", err)
		}
	}
	j.seq++
	j.file, j.size, j.unsynced = f, int64(len(header())), false
	j.compact()
}

// create makes a log with its header, or nothing.
func (j *Journal) create(seq int) (File, error) {
	name := j.path("log", seq)
	f, err := j.opts.FS.Create(name)
	if err != nil {
		return nil, err
	}
	if _, err = io.WriteString(f, header()); err == nil {
		err = errors.Join(f.Sync(), j.opts.FS.SyncDir(j.opts.Dir))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), j.opts.FS.Remove(name))
	}
	return f, nil
}

// compact begins to write the snapshot that belongs to the log.
func (j *Journal) compact() {
	j.due = false
	j.compaction = make(chan compacted, 1)
	go func(seq int, result chan<- compacted) {
		size, err := j.snapshot(seq)
		result <- compacted{size, err}
	}(j.seq, j.compaction)
}

// snapshot writes a snapshot under another name, so that one that is there is complete.
func (j *Journal) snapshot(seq int) (size int64, err error) {
	temporary := filepath.Join(j.opts.Dir, "snapshot.tmp")
	f, err := j.opts.FS.Create(temporary)
	if err != nil {
		return 0, err
	}
	buf := []byte(header())
	flush := func() error {
		n, err := f.Write(buf)
		size += int64(n)
		buf = buf[:0]
		return err
	}
	err = j.opts.Snapshot(func(record []byte) error {
		buf = appendRecord(buf, record)
		if len(buf) < 1<<20 {
			return nil
		}
		return flush()
	})
	if err == nil {
		buf = appendRecord(buf, nil)
		err = flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, errors.Join(err, j.opts.FS.Remove(temporary))
	}
	if err := j.opts.FS.Rename(temporary, j.path("snapshot", seq)); err != nil {
		return 0, err
	}
	return size, j.opts.FS.SyncDir(j.opts.Dir)
}

// compacted ends a compaction.
func (j *Journal) compacted(c compacted) {
	j.compaction = nil
	if c.err != nil {
		// The log goes on: nothing is lost with the files that are there.
		j.due = true
		j.mu.Lock()
		j.stats.Errors++
		j.mu.Unlock()
		j.opts.Log.Warn("the quota journal's snapshot could not be written, and is tried again", "reason", c.err)
		return
	}
	j.base = c.size
	j.mu.Lock()
	healed := j.fault != nil && j.file != nil
	if j.file != nil {
		j.fault = nil
	}
	j.stats.Snapshots++
	j.mu.Unlock()
	if healed {
		j.opts.Log.Info("the quota journal is written again; everything is saved")
	}
	for _, kind := range []string{"snapshot", "log"} {
		seqs, err := j.files(kind)
		for _, seq := range seqs {
			if seq < j.seq {
				err = errors.Join(err, j.opts.FS.Remove(j.path(kind, seq)))
			}
		}
		if err != nil {
			j.opts.Log.Warn("an old file of the quota journal could not be removed", "reason", err)
		}
	}
}

// writePending writes the pending group. It reports whether the journal is closed.
func (j *Journal) writePending() (closed bool) {
	j.mu.Lock()
	g := j.pending
	j.pending = newGroup()
	closed = j.closed
	j.mu.Unlock()
	if len(g.buf) == 0 {
		return closed
	}
	if j.file == nil {
		j.mu.Lock()
		j.stats.Dropped += g.records
		err := j.fault
		j.mu.Unlock()
		g.finish(err)
		return closed
	}
	n, err := j.file.Write(g.buf)
	if err != nil {
		if n > 0 {
			_ = j.file.Truncate(j.size) // what is left of it is cut when it is read, too
		}
		j.failed(err)
		g.finish(err)
		return closed
	}
	j.size += int64(n)
	j.unsynced = true
	j.mu.Lock()
	j.stats.Records += g.records
	j.stats.Bytes += uint64(n)
	j.mu.Unlock()
	close(g.written)
	if g.sync {
		g.err = j.sync()
	}
	close(g.synced)
	if j.file != nil && j.compaction == nil && !j.due && !closed && j.size > max(j.opts.MinLog, 4*j.base) {
		j.begin()
	}
	return closed
}

// sync makes what was written durable.
func (j *Journal) sync() error {
	start := time.Now()
	err := j.file.Sync()
	j.mu.Lock()
	j.stats.Syncs++
	j.stats.SyncTime += time.Since(start)
	j.mu.Unlock()
	if err != nil {
		j.failed(fmt.Errorf("syncing: %w", err))
		return err
	}
	j.unsynced = false
	return nil
}

// failed notes that the disk fails, and gives the log up.
func (j *Journal) failed(err error) {
	if j.file != nil {
		_ = j.file.Close() // it is given up
	}
	j.file, j.unsynced = nil, false
	j.mu.Lock()
	first := j.fault == nil
	j.fault = err
	j.stats.Errors++
	j.mu.Unlock()
	if first {
		j.opts.Log.Error("the quota journal cannot be written: counters are kept in memory only, until it can be written again", "reason", err)
	}
}
