package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// book is an owner of a journal: names and values. A record is name=value.
type book struct {
	*Journal
	mu     sync.Mutex
	values map[string]string
	log    lines
}

// lines is a log, to which the journal's goroutine writes.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func open(dir string, change func(*Options)) (*book, error) {
	b := &book{values: map[string]string{}}
	o := Options{
		Dir: dir, SyncIdle: time.Millisecond, Retry: time.Millisecond, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Load: func(record []byte) error {
			name, value, ok := strings.Cut(string(record), "=")
			if !ok {
				return fmt.Errorf("%q is no record", record)
			}
			b.values[name] = value
			return nil
		},
		Snapshot: func(emit func([]byte) error) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			for name, value := range b.values {
				if err := emit([]byte(name + "=" + value)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	if change != nil {
		change(&o)
	}
	var err error
	b.Journal, err = Open(o)
	return b, err
}

func mustOpen(t require.TestingT, dir string, change func(*Options)) *book {
	b, err := open(dir, change)
	require.NoError(t, err)
	return b
}

func (b *book) set(name, value string, durable bool) *Group {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.values[name] = value
	return b.Append([]byte(name+"="+value), durable)
}

// until waits for a condition that a goroutine of the journal brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		require.True(t, time.Now().Before(deadline), what)
	}
}

func TestWhatWasAppendedIsThereAgain(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, nil)
	require.NoError(t, b.set("a", "1", true).Synced())
	require.NoError(t, b.set("b", "2", false).Written())
	b.set("a", "3", false)
	b.set("c", strings.Repeat("x", 1<<20), false)
	require.NoError(t, b.Close())
	require.Error(t, b.Append([]byte("d=1"), true).Synced(), "closed")

	again := mustOpen(t, dir, nil)
	require.Equal(t, b.values, again.values)
	require.NoError(t, again.Close())
	require.Empty(t, again.log.String())
}

// A log that ends anywhere, as after a crash, is cut after its last complete record. What was damaged is never read as something else.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, nil)
	until(t, "the first snapshot", func() bool { return b.Stats().Snapshots > 0 })
	for i := range 5 {
		require.NoError(t, b.set(fmt.Sprint("n", i), fmt.Sprint(i), true).Synced())
	}
	require.NoError(t, b.Close())
	name := filepath.Join(dir, "log-1")
	whole, err := os.ReadFile(name)
	require.NoError(t, err)

	check := func(text []byte) (n int) {
		own := t.TempDir()
		snapshot, err := os.ReadFile(filepath.Join(dir, "snapshot-1"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(own, "snapshot-1"), snapshot, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(own, "log-1"), text, 0o600))
		got := mustOpen(t, own, nil)
		for i := range len(got.values) {
			require.Equal(t, fmt.Sprint(i), got.values[fmt.Sprint("n", i)])
		}
		n = len(got.values)
		require.NoError(t, got.set("later", "x", true).Synced())
		require.NoError(t, got.Close())
		again := mustOpen(t, own, nil)
		require.Equal(t, got.values, again.values)
		require.NoError(t, again.Close())
		return n
	}
	for end := 0; end < len(whole); end += 3 {
		require.Less(t, check(whole[:end]), 5+1)
	}
	require.Equal(t, 5, check(whole))
	require.Equal(t, 5, check(append(bytes.Clone(whole), make([]byte, 100)...)), "zeros after the end, as some file systems leave")
	for at := len(header()); at < len(whole); at += 3 {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x10
		require.Less(t, check(damaged), 5, "byte %d", at)
	}
}

func TestTornTailIsSaid(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "log-1"), append(appendRecord([]byte(header()), []byte("a=1")), "half"...), 0o600))
	b := mustOpen(t, dir, nil)
	require.NoError(t, b.Close())
	require.Equal(t, map[string]string{"a": "1"}, b.values)
	require.Contains(t, b.log.String(), "kept_bytes=33 cut_bytes=4")
}

// A machine that dies while a log is begun may leave it with its length and without its text. Nothing was in it yet.
func TestLogOfZeros(t *testing.T) {
	for _, n := range []int{0, 1, 22, 4096} {
		dir := t.TempDir()
		b := mustOpen(t, dir, nil)
		require.NoError(t, b.set("a", "1", true).Synced())
		require.NoError(t, b.Close())
		require.NoError(t, os.WriteFile(filepath.Join(dir, "log-2"), make([]byte, n), 0o600))
		again := mustOpen(t, dir, nil)
		require.Equal(t, b.values, again.values)
		require.False(t, again.Clean())
		require.NoError(t, again.Close())
		require.Contains(t, again.log.String(), fmt.Sprintf("kept_bytes=0 cut_bytes=%d", n))
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	snapshot := appendRecord(appendRecord([]byte(header()), []byte("a=1")), nil)
	for name, c := range map[string]struct {
		file string
		text []byte
		want string
	}{
		"newer":                {"log-1", []byte("inlet-quota-journal 2\n"), "has format 2, and this companion reads format 1: start the companion that wrote it, or give this one an empty folder"},
		"newer snapshot":       {"snapshot-3", []byte("inlet-quota-journal 12\n"), "has format 12"},
		"snapshot of zeros":    {"snapshot-1", make([]byte, 22), "incomplete"},
		"zeros and more":       {"log-1", []byte("\x00\x00\n"), "is not a file of a journal"},
		"something else":       {"log-1", []byte("hello\n"), "is not a file of a journal"},
		"damaged snapshot":     {"snapshot-1", snapshot[:len(snapshot)-1], "incomplete"},
		"snapshot without end": {"snapshot-1", snapshot[:len(snapshot)-headBytes], "incomplete"},
		"record of another":    {"log-1", appendRecord([]byte(header()), []byte("hello")), "is no record"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, c.file)
			require.NoError(t, os.WriteFile(path, c.text, 0o600))
			_, err := open(dir, nil)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, path)
			left, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, c.text, left, "it is left as it is")
		})
	}
}

func TestSecondCompanionIsRefused(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, nil)
	_, err := open(dir, nil)
	require.ErrorContains(t, err, fmt.Sprintf("%s is used by another companion (process %d)", dir, os.Getpid()))
	require.NoError(t, b.set("a", "1", true).Synced(), "the first one goes on")
	require.NoError(t, b.Close())
	again := mustOpen(t, dir, nil)
	require.Equal(t, b.values, again.values)
	require.NoError(t, again.Close())
}

// The log is replaced by a snapshot while writers go on, and nothing is lost.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, func(o *Options) { o.MinLog = 2000 })
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 500 {
				g := b.set(fmt.Sprintf("w%d-%d", w, i%20), fmt.Sprint(i), i%50 == 0)
				if i%50 == 0 {
					_ = g.Synced()
				}
			}
		})
	}
	writers.Wait()
	require.NoError(t, b.Close())
	require.Greater(t, b.Stats().Snapshots, uint64(2))
	require.Zero(t, b.Stats().Errors, b.log.String())
	names, err := Disk{}.List(dir)
	require.NoError(t, err)
	require.LessOrEqual(t, len(names), 5, "old files are removed: %v", names)
	again := mustOpen(t, dir, nil)
	require.Equal(t, b.values, again.values)
	require.NoError(t, again.Close())
}

// faulty is a disk with so much space left, on which syncs may fail.
type faulty struct {
	Disk
	mu    sync.Mutex
	space int // bytes; negative: no limit
	sync  error
}

func (f *faulty) set(space int, sync error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.space, f.sync = space, sync
}

func (f *faulty) Create(name string) (File, error) {
	file, err := f.Disk.Create(name)
	return &faultyFile{file, f}, err
}

type faultyFile struct {
	File
	disk *faulty
}

func (f *faultyFile) Write(p []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.space < 0 || len(p) <= f.disk.space {
		if f.disk.space >= 0 {
			f.disk.space -= len(p)
		}
		return f.File.Write(p)
	}
	n, err := f.File.Write(p[:f.disk.space])
	f.disk.space = 0
	return n, errors.Join(err, syscall.ENOSPC)
}

func (f *faultyFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return errors.Join(f.disk.sync, f.File.Sync())
}

// A full disk, or one that fails, stops nobody. When it works again everything is saved.
func TestDiskThatFails(t *testing.T) {
	for name, fail := range map[string]func(*faulty){
		"full":         func(f *faulty) { f.set(0, nil) },
		"nearly full":  func(f *faulty) { f.set(20, nil) },
		"full in time": func(f *faulty) { f.set(200, nil) },
		"sync":         func(f *faulty) { f.set(-1, syscall.EIO) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			disk := &faulty{space: -1}
			b := mustOpen(t, dir, func(o *Options) { o.FS = disk })
			require.NoError(t, b.set("a", "1", true).Synced())
			fail(disk)
			for i := 0; b.set("b", fmt.Sprint(i), true).Synced() == nil; i++ {
				require.Less(t, i, 100, "it never fails")
			}
			require.Error(t, b.Err())
			require.True(t, b.Stats().Failing)
			b.set("c", "3", true)
			tried := b.Stats().Errors
			until(t, "it is tried again", func() bool { return b.Stats().Errors > tried+2 })
			names, err := disk.List(dir)
			require.NoError(t, err)
			require.LessOrEqual(t, len(names), 5, "no attempt leaves a file behind: %v", names)
			require.Equal(t, 1, strings.Count(b.log.String(), "cannot be written"), "it is said once:\n%s", b.log.String())

			disk.set(-1, nil)
			until(t, "it heals", func() bool { return b.Err() == nil })
			require.NoError(t, b.set("d", "4", true).Synced())
			require.Contains(t, b.log.String(), "is written again")
			require.NotZero(t, b.Stats().Errors)
			// As after a crash: nothing is closed.
			copied := t.TempDir()
			require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
			again := mustOpen(t, copied, nil)
			require.Equal(t, b.values, again.values)
			require.NoError(t, again.Close())
			require.NoError(t, b.Close())
		})
	}
}

// A companion starts on a full disk too, with what was saved before.
func TestStartOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, nil)
	b.set("a", "1", true)
	require.NoError(t, b.Close())
	disk := &faulty{space: 0}
	full := mustOpen(t, dir, func(o *Options) { o.FS = disk })
	require.Equal(t, b.values, full.values)
	require.Error(t, full.set("b", "2", true).Synced())
	require.Error(t, full.Close())
	again := mustOpen(t, dir, nil)
	require.Equal(t, b.values, again.values)
	require.NoError(t, again.Close())
}

// Only what was closed in order is clean, once, and only if that can be forgotten.
func TestClean(t *testing.T) {
	dir := t.TempDir()
	cleanAt := func(disk FS) bool {
		b := mustOpen(t, dir, func(o *Options) { o.FS = disk })
		require.NoError(t, b.set("a", "1", true).Synced())
		require.NoError(t, b.Close())
		return b.Clean()
	}
	copied := func(change func(dir string)) bool {
		other := t.TempDir()
		require.NoError(t, os.CopyFS(other, os.DirFS(dir)))
		change(other)
		b := mustOpen(t, other, nil)
		require.NoError(t, b.Close())
		return b.Clean()
	}
	require.False(t, cleanAt(Disk{}), "it is new")
	require.True(t, cleanAt(Disk{}))
	require.True(t, copied(func(string) {}))
	require.False(t, copied(func(dir string) {
		logs, err := filepath.Glob(filepath.Join(dir, "log-*"))
		require.NoError(t, err)
		require.NoError(t, os.Truncate(logs[len(logs)-1], 20))
	}), "it is not the log that it was")
	require.False(t, cleanAt(keeper{}), "who cannot forget it does not believe it")
	require.True(t, cleanAt(Disk{}))

	full := mustOpen(t, dir, func(o *Options) { o.FS = &faulty{space: 0} })
	require.True(t, full.Clean(), "to forget it needs no space")
	require.Error(t, full.set("b", "2", true).Synced())
	require.False(t, copied(func(string) {}), "while it is in use")
	require.Error(t, full.Close())
	require.False(t, cleanAt(Disk{}), "not all was saved")
}

// keeper is a disk that removes nothing.
type keeper struct{ Disk }

func (keeper) Remove(string) error { return errors.New("kept") }

// TestFileSizeLimit has a process of its own that may not write large files: a real error of the operating system in the middle of a write.
func TestFileSizeLimit(t *testing.T) {
	const variable = "JOURNAL_WITH_SMALL_FILES"
	if dir := os.Getenv(variable); dir != "" {
		writeSmallFiles(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileSizeLimit$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	again := mustOpen(t, dir, nil)
	require.Equal(t, "healed", again.values["last"], string(out))
	require.Equal(t, strings.Repeat("x", 3000), again.values["big"])
	require.NoError(t, again.Close())
}

func writeSmallFiles(t *testing.T, dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	b := mustOpen(t, dir, nil)
	require.NoError(t, b.set("a", "1", true).Synced())
	limit := func(n uint64) {
		var r syscall.Rlimit
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r))
		r.Cur = n
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r))
	}
	var before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	limit(1000)
	require.ErrorIs(t, b.set("big", strings.Repeat("x", 3000), true).Synced(), syscall.EFBIG)
	require.Error(t, b.Err())
	limit(before.Cur)
	until(t, "it heals", func() bool { return b.Err() == nil })
	require.NoError(t, b.set("last", "healed", true).Synced())
	require.NoError(t, b.Close())
}

// TestProperty kills the process, so to speak, at any moment: what was synced is there, and nothing that never was.
func TestProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		disk := &faulty{space: -1}
		var b *book
		synced := map[string]string{}
		last := map[string]string{}
		start := func() {
			b = mustOpen(t, dir, func(o *Options) { o.FS, o.MinLog = disk, 300 })
			for name, value := range synced {
				require.Equal(t, value, b.values[name], "what was synced is there")
			}
			maps.Copy(synced, b.values)
			last = maps.Clone(b.values)
		}
		start()
		n := 0
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				n++
				name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
				last[name] = fmt.Sprint(n)
				if b.set(name, last[name], true).Synced() == nil {
					synced[name] = last[name]
				} else {
					delete(synced, name) // either value may be there
				}
			},
			"fill":  func(t *rapid.T) { disk.set(rapid.IntRange(0, 100).Draw(t, "space"), nil) },
			"clear": func(t *rapid.T) { disk.set(-1, nil) },
			"restart": func(t *rapid.T) {
				_ = b.Close()
				disk.set(-1, nil)
				start()
			},
		})
		_ = b.Close()
	})
}

func TestHeadersOfRecords(t *testing.T) {
	r := appendRecord(nil, []byte("abc"))
	require.Equal(t, uint32(3), binary.LittleEndian.Uint32(r))
	_, _, _, err := readFile(io.MultiReader(strings.NewReader(header()), bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})), nil)
	require.ErrorIs(t, err, errTorn, "a length that cannot be is no reason to reserve memory")
}
