package quota

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/e2e/redisbin"
	"github.com/inlet-proxy/inlet/internal/companion/quota/journal"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// begin is when virtual clocks begin: on the last minute but one of a month. It is in the future, where keys in Redis do not expire by its own clock.
var begin = time.Date(2096, 11, 30, 23, 58, 0, 0, time.UTC)

// clock is a virtual clock.
type clock struct {
	mu    sync.Mutex
	at    time.Time
	redis *redis.Client // whose time it is, nil for none
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	if c.redis != nil {
		if err := c.redis.Set(context.Background(), "{inlet}:clock", c.at.UnixMicro(), 0).Err(); err != nil {
			panic(err)
		}
	}
}

// virtualScript is the script on a virtual clock, which a companion has to know to the millisecond.
var virtualScript = strings.NewReplacer("redis.call('TIME')",
	"{math.floor(redis.call('GET', '{inlet}:clock') / 1000000), redis.call('GET', '{inlet}:clock') % 1000000}", "> 100", "> 0").Replace(exchangeScript)

// kind is a kind of store: open returns the stores of n companions that share it, all new and empty.
type kind struct {
	name string
	most int // companions
	open func(n int) (*clock, []Store)
}

// kinds are all kinds of stores. What must hold for one holds for all.
func kinds(t *testing.T) []kind {
	t.Helper()
	embedded := func(dir func() string) func(int) (*clock, []Store) {
		return func(int) (*clock, []Store) {
			c := &clock{at: begin}
			s, err := OpenEmbedded(EmbeddedOptions{Dir: dir(), Now: c.now, Tick: time.Millisecond, FS: quickDisk{}})
			require.NoError(t, err)
			return c, []Store{s}
		}
	}
	server, client := startRedis(t)
	return []kind{
		{"memory", 1, embedded(func() string { return "" })},
		{"journal", 1, embedded(t.TempDir)},
		{"redis", 3, func(n int) (*clock, []Store) {
			require.NoError(t, client.FlushAll(t.Context()).Err())
			c := &clock{at: begin, redis: client}
			c.add(0)
			var all []Store
			for range n {
				s, err := OpenRedis(t.Context(), RedisOptions{Addresses: []string{server.Address()}, Prefix: "inlet", script: virtualScript}, nil)
				require.NoError(t, err)
				all = append(all, s)
			}
			return c, all
		}},
	}
}

// check checks a property: through Redis, where a message takes many times as long, for a quarter of the -rapid.checks.
func (k kind) check(t *testing.T, property func(*rapid.T)) {
	t.Helper()
	if k.name == "redis" {
		const checks = "rapid.checks"
		all := flag.Lookup(checks).Value.String()
		n, err := strconv.Atoi(all)
		require.NoError(t, err)
		require.NoError(t, flag.Set(checks, strconv.Itoa(max(n/4, 1))))
		t.Cleanup(func() { require.NoError(t, flag.Set(checks, all)) })
	}
	rapid.Check(t, property)
}

func startRedis(t *testing.T, args ...string) (*redisbin.Server, *redis.Client) {
	t.Helper()
	server, err := redisbin.Start(t.Context(), t.TempDir(), args...)
	require.NoError(t, err)
	t.Cleanup(func() { server.Stop() })
	client := redis.NewClient(&redis.Options{Addr: server.Address(), DialerRetries: 1})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return server, client
}

func closeAll(t require.TestingT, all []Store) {
	for _, s := range all {
		require.NoError(t, s.Close())
	}
}

// TestStoresAreTheReference: whatever proxies say, each store says what account.Allocator says, whichever companion is asked.
func TestStoresAreTheReference(t *testing.T) {
	for _, k := range kinds(t) {
		t.Run(k.name, func(t *testing.T) {
			k.check(t, func(t *rapid.T) {
				c, stores := k.open(k.most)
				defer closeAll(t, stores)
				var reference *account.Allocator
				exchange := func(m *account.Message) {
					store := stores[rapid.IntRange(0, len(stores)-1).Draw(t, "companion")]
					copied := *m
					got, err := store.Exchange(context.Background(), m)
					require.NoError(t, err)
					if reference == nil {
						reference = account.NewAllocator(got.Generation, c.now(), false)
					}
					want := reference.Answer(c.now(), &copied)
					require.Equal(t, want, got)
				}
				exchange(&account.Message{Proxy: "first", Time: 1})
				t.Repeat(map[string]func(*rapid.T){
					"say": func(t *rapid.T) {
						m := &account.Message{Proxy: rapid.SampledFrom([]string{"p1", "p2", "p3"}).Draw(t, "proxy"), Generation: reference.Generation, Time: 1}
						for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID[string]).Draw(t, "names") {
							m.Accounts = append(m.Accounts, drawEntry(t, name, reference))
						}
						exchange(m)
					},
					"wait": func(t *rapid.T) {
						c.add(time.Duration(rapid.SampledFrom([]int{0, 10, 400, 1600, 3100, 61_000}).Draw(t, "ms")) * time.Millisecond)
					},
					"credit": func(t *rapid.T) {
						name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
						reset := rapid.Bool().Draw(t, "reset")
						got, err := stores[0].Credit(context.Background(), name, 7, reset)
						al := reference.Accounts[name]
						if al == nil || al.End > 0 && al.End <= c.now().UnixMilli() {
							require.ErrorIs(t, err, errUnknownAccount)
							return
						}
						if al.Allow(7); reset {
							al.Allow(-7)
							al.Reset()
						}
						require.NoError(t, err)
						require.Equal(t, counterOf(name, al), got)
					},
				})
			})
		})
	}
}

func drawEntry(t *rapid.T, name string, a *account.Allocator) account.Entry {
	n := func(what string, most int) int64 { return int64(rapid.IntRange(0, most).Draw(t, what)) }
	e := account.Entry{
		Name: name, Window: n("window", 2), Period: map[string]string{"a": "1m", "b": "1mo", "c": "-", "d": "10s flexi"}[name],
		Limit: []int64{0, 10, 100_000}[n("limit", 2)], Used: n("used", 8), Back: n("back", 2), Said: n("said", 2), Released: n("released", 4),
		Granted: n("granted", 12), Held: n("held", 3), Need: n("need", 8), Rate: n("rate", 3000), Seq: n("seq", 9),
	}
	e.Want = e.Need + n("more", 5)
	if al := a.Accounts[name]; al != nil && n("known", 3) > 0 {
		e.Start = al.Start
	}
	return e
}

// proxy is one that counts as the filter does, on the virtual clock.
type proxy struct {
	account.Table
	clock *clock
	store Store
}

func newProxy(c *clock, s Store, seed uint64) *proxy {
	return &proxy{account.NewMemory(account.Options{Accounts: 100, Rand: func() uint64 { seed++; return seed * 0x9e3779b97f4a7c15 }}, new(sync.Mutex)), c, s}
}

// say sends a message and hears the response, unless it is lost.
func (p *proxy) say(t require.TestingT, body []byte, lost bool) {
	m, err := account.ParseMessage(body)
	require.NoError(t, err)
	r, err := p.store.Exchange(context.Background(), &m)
	if err != nil || lost {
		p.Silence(p.clock.now())
		return
	}
	require.NoError(t, p.Heard(p.clock.now(), r.Append(nil)))
}

func (p *proxy) report(t require.TestingT, lost bool) {
	if body := p.Report(p.clock.now(), -1, nil, 100); body != nil {
		p.say(t, body, lost)
	}
}

// request takes one of each demand, and asks the companion once if need be.
func (p *proxy) request(t require.TestingT, lost bool, d ...account.Demand) (admitted bool, taken []account.Demand) {
	r := p.Take(p.clock.now(), d, time.Minute)
	if r.Outcome == account.Dry {
		p.say(t, p.Ask(p.clock.now(), -1, nil, d), lost)
		r = p.Take(p.clock.now(), d, time.Minute)
	}
	if r.Outcome != account.Admitted {
		require.NoError(t, p.Refund(p.clock.now(), d))
		return false, nil
	}
	return true, d
}

func demand(name string, limit int64, w account.Window, amount int64) account.Demand {
	return account.Demand{Key: account.KeyOf([]byte(name)), Name: []byte(name), Limit: limit, Window: w, Amount: amount, Count: true, Shared: true}
}

var (
	minute = account.Window{Unit: account.Minute}
	month  = account.Window{Unit: account.Month}
)

// settle brings stores to where they grant, and proxies to where they know.
func settle(t require.TestingT, c *clock, proxies ...*proxy) {
	for range 4 {
		for _, p := range proxies {
			p.say(t, (&account.Message{Proxy: "settling", Time: c.now().UnixMilli()}).Append(nil), false)
		}
		c.add(500 * time.Millisecond)
	}
	for _, p := range proxies {
		p.say(t, (&account.Message{Proxy: "settling", Time: c.now().UnixMilli()}).Append(nil), false)
	}
}

// tick has all proxies report, as they do every 20 ms: what they have used is known before they are taken for dead.
func tick(t require.TestingT, proxies []*proxy) {
	for _, p := range proxies {
		p.report(t, false)
	}
}

// TestTogetherExact: however requests fall on proxies and companions, and whatever messages are lost, no more than the limit is admitted; and
// all of it is, once messages get through.
func TestTogetherExact(t *testing.T) {
	for _, k := range kinds(t) {
		t.Run(k.name, func(t *testing.T) {
			k.check(t, func(t *rapid.T) {
				c, stores := k.open(k.most)
				defer closeAll(t, stores)
				var proxies []*proxy
				for i := range 3 {
					proxies = append(proxies, newProxy(c, stores[i%len(stores)], uint64(i)*1000))
				}
				settle(t, c, proxies...)
				const limit = 10
				admitted := 0
				send := func(p *proxy, lost bool) {
					if ok, _ := p.request(t, lost, demand("requests", limit, month, 1), demand("more", 1000, month, 1)); ok {
						admitted++
					}
				}
				for range rapid.IntRange(0, 25).Draw(t, "requests") {
					p := proxies[rapid.IntRange(0, 2).Draw(t, "proxy")]
					lost := rapid.IntRange(0, 4).Draw(t, "lost") == 0
					if rapid.Bool().Draw(t, "report") {
						p.report(t, lost)
					}
					send(p, lost)
					tick(t, proxies)
					c.add(time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond)
				}
				require.LessOrEqual(t, admitted, limit)
				for range limit/2 + 3 { // three requests each
					for _, p := range proxies {
						p.report(t, false)
						send(p, false)
					}
					c.add(20 * time.Millisecond)
				}
				require.Equal(t, limit, admitted)
				for _, p := range proxies {
					p.report(t, false)
				}
				list, all, err := stores[0].Counters(context.Background(), "requests", 10)
				require.NoError(t, err)
				require.Equal(t, 1, all)
				require.Equal(t, int64(limit), list[0].Used)
			})
		})
	}
}

// Companions that are asked at the same time, for the same accounts, grant no more than there is, and all of it.
func TestConcurrentCompanions(t *testing.T) {
	for _, k := range kinds(t) {
		t.Run(k.name, func(t *testing.T) {
			c, stores := k.open(k.most)
			defer closeAll(t, stores)
			settle(t, c, newProxy(c, stores[0], 99))
			const limit = 900
			admitted := make([]int, 6)
			var running sync.WaitGroup
			for i := range admitted {
				p := newProxy(c, stores[i%len(stores)], uint64(i)*1000)
				running.Go(func() {
					for refused := 0; refused < 3; {
						if ok, _ := p.request(t, false, demand("requests", limit, month, 1)); ok {
							admitted[i]++
						} else {
							refused++
							p.report(t, false)
						}
					}
				})
			}
			running.Wait()
			sum := 0
			for _, n := range admitted {
				sum += n
			}
			require.Equal(t, limit, sum, "%v", admitted)
		})
	}
}

// TestRestart: a month's use is there after the companion ended in order, and after it was killed. Proxies go on with what they have.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	c := &clock{at: begin.Add(-24 * time.Hour)}
	open := func(dir string) Store {
		s, err := OpenEmbedded(EmbeddedOptions{Dir: dir, Now: c.now, Tick: time.Millisecond})
		require.NoError(t, err)
		return s
	}
	s := open(dir)
	p := newProxy(c, s, 1)
	settle(t, c, p)
	const limit = 100
	use := func(n int) (admitted int) {
		for range n {
			if ok, _ := p.request(t, false, demand("requests", limit, month, 1)); ok {
				admitted++
			}
			p.report(t, false)
		}
		return admitted
	}
	require.Equal(t, 40, use(40))
	_, err := s.Credit(t.Context(), "requests", 5, false)
	require.NoError(t, err)

	require.NoError(t, s.Close())
	s = open(dir)
	p.store = s
	require.Equal(t, 30, use(30), "it grants at once: it knows all that it has granted")

	other := open(killed(t, dir))
	p.store = other
	require.Zero(t, use(1), "it may not know all")
	c.add(account.Lease/2 + time.Second)
	again := use(1) // or the proxy learns that it grants again
	q := newProxy(c, other, 7)
	require.Equal(t, limit+5-70-again, use(100))
	p = q
	require.Zero(t, use(10))
	list, _, err := other.Counters(t.Context(), "", 10)
	require.NoError(t, err)
	require.Equal(t, int64(limit+5), list[0].Used)
	closeAll(t, []Store{s, other})
}

// TestNeverMoreThanTheLimit: companions are killed and start again from what is on the disk, or Redis is flushed, at any moment, while messages are
// lost. Proxies that use nothing that they were not granted never admit more than the limit, and what was used stays used.
func TestNeverMoreThanTheLimit(t *testing.T) {
	for _, k := range kinds(t) {
		if k.name == "memory" {
			continue // it remembers nothing
		}
		t.Run(k.name, func(t *testing.T) {
			k.check(t, func(t *rapid.T) {
				w := newWorld(t, k)
				defer w.close(t)
				const limit = 8
				admitted := 0
				t.Repeat(map[string]func(*rapid.T){
					"request": func(t *rapid.T) {
						p := w.proxies[rapid.IntRange(0, 2).Draw(t, "proxy")]
						if ok, _ := p.request(t, rapid.IntRange(0, 3).Draw(t, "lost") == 0, demand("requests", limit, month, 1)); ok {
							admitted++
						}
						require.LessOrEqual(t, admitted, limit)
					},
					"report": func(t *rapid.T) { w.proxies[rapid.IntRange(0, 2).Draw(t, "proxy")].report(t, false) },
					"wait": func(t *rapid.T) {
						ms := rapid.SampledFrom([]int{5, 300, 700, 1600, 3100}).Draw(t, "ms")
						for tick(t, w.proxies); ms > 0; tick(t, w.proxies) { // they say something twice a second
							step := min(ms, 300)
							w.clock.add(time.Duration(step) * time.Millisecond)
							ms -= step
						}
					},
					"crash": func(t *rapid.T) {
						if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
							w.crash(t)
						}
					},
				})
				settle(t, w.clock, w.proxies...)
				for range limit/2 + 3 { // three requests each
					for _, p := range w.proxies {
						p.report(t, false)
						if ok, _ := p.request(t, false, demand("requests", limit, month, 1)); ok {
							admitted++
						}
					}
					w.clock.add(20 * time.Millisecond)
				}
				require.Equal(t, limit, admitted)
			})
		})
	}
}

// world is proxies and stores that can crash.
type world struct {
	clock   *clock
	proxies []*proxy
	stores  []Store
	dirs    []string // of journals, the last one in use
}

func newWorld(t *rapid.T, k kind) *world {
	w := new(world)
	if k.name == "redis" {
		w.clock, w.stores = k.open(2)
	} else {
		w.clock = &clock{at: begin.Add(-24 * time.Hour)}
		w.open(t, w.dir(t))
	}
	for i := range 3 {
		w.proxies = append(w.proxies, newProxy(w.clock, w.stores[i%len(w.stores)], uint64(i)*1000))
	}
	settle(t, w.clock, w.proxies...)
	return w
}

func (w *world) dir(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "quota")
	require.NoError(t, err)
	w.dirs = append(w.dirs, dir)
	return dir
}

// open starts a companion with a journal.
func (w *world) open(t *rapid.T, dir string) {
	s, err := OpenEmbedded(EmbeddedOptions{Dir: dir, Now: w.clock.now, Tick: time.Millisecond, FS: quickDisk{}})
	require.NoError(t, err)
	for s.Stats().Journal.Snapshots == 0 { // from here on none takes the place of another
		time.Sleep(100 * time.Microsecond)
	}
	w.stores = append(w.stores, s)
	for _, p := range w.proxies {
		p.store = s
	}
}

// crash ends what keeps the counters without a chance to save anything, and starts it again.
func (w *world) crash(t *rapid.T) {
	if w.dirs == nil {
		require.NoError(t, w.clock.redis.FlushAll(context.Background()).Err())
		w.clock.add(0)
		return
	}
	now := w.dirs[len(w.dirs)-1]
	next := w.dir(t)
	copyLive(t, next, now)
	w.open(t, next)
}

func (w *world) close(t *rapid.T) {
	closeAll(t, w.stores)
	for _, dir := range w.dirs {
		require.NoError(t, os.RemoveAll(dir))
	}
}

// TestGrantsAreOnTheDisk: a grant is on the disk before the proxy gets it, but for windows of at most a minute, which are over when the machine is back.
func TestGrantsAreOnTheDisk(t *testing.T) {
	for _, c := range []struct {
		period string
		waits  bool
	}{{"1s", false}, {"1m", false}, {"60s", false}, {"61s", true}, {"1h", true}, {"1mo", true}, {"1d flexi", true}, {"-", true}} {
		t.Run(c.period, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				disk := &slowDisk{synced: make(chan struct{})}
				s, err := OpenEmbedded(EmbeddedOptions{Dir: dir, FS: disk})
				require.NoError(t, err)
				time.Sleep(account.Lease) // until it grants
				disk.slow.Store(true)
				answered := false
				go func() {
					r, err := s.Exchange(context.Background(), &account.Message{Proxy: "p", Accounts: []account.Entry{{Name: "a", Period: c.period, Limit: 9, Seq: 1, Need: 1, Want: 1}}})
					answered = err == nil && r.Accounts[0].Granted == 1
				}()
				synctest.Wait()
				require.Equal(t, !c.waits, answered)
				close(disk.synced)
				synctest.Wait()
				require.True(t, answered)
				require.NoError(t, s.Close())
			})
		})
	}
}

// A full disk: counting goes on in memory, and is saved when there is space again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	disk := &fullDisk{}
	c := &clock{at: begin.Add(-24 * time.Hour)}
	log := new(lines)
	s, err := OpenEmbedded(EmbeddedOptions{
		Dir: dir, Now: c.now, Tick: time.Millisecond, FS: disk, Retry: time.Millisecond, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	require.NoError(t, err)
	p := newProxy(c, s, 1)
	settle(t, c, p)
	request := func() bool {
		ok, _ := p.request(t, false, demand("requests", 100, month, 1))
		p.report(t, false)
		return ok
	}
	require.True(t, request())
	disk.full.Store(true)
	for range 20 {
		require.True(t, request(), "nobody notices")
	}
	require.True(t, s.Stats().Journal.Failing)
	require.Contains(t, log.String(), "counters are kept in memory only")
	require.Error(t, s.SetDirectory(t.Context(), nil, []byte(`{}`)), "an administrator does")
	directory, err := s.Directory(t.Context())
	require.NoError(t, err)
	require.Nil(t, directory)
	_, err = s.Credit(t.Context(), "requests", 5, false)
	require.Error(t, err)
	disk.full.Store(false)
	until(t, "it heals", func() bool { return !s.Stats().Journal.Failing })
	require.NoError(t, s.Close())
	again, err := OpenEmbedded(EmbeddedOptions{Dir: dir, Now: c.now})
	require.NoError(t, err)
	list, _, err := again.Counters(t.Context(), "requests", 10)
	require.NoError(t, err)
	require.Equal(t, int64(21), list[0].Used)
	require.Zero(t, list[0].Credit)
	require.NoError(t, again.Close())
}

// What a companion did while its disk was full is not on the disk when it is killed: the one after it grants nothing before proxies have said what they
// have, however the one before it ended. Together no more than the limit is granted.
func TestKilledWhileTheDiskWasFull(t *testing.T) {
	for _, from := range []string{"the start", "later on"} {
		t.Run(from, func(t *testing.T) {
			dir := t.TempDir()
			disk := &fullDisk{}
			c := &clock{at: begin.Add(-24 * time.Hour)}
			open := func(dir string, disk journal.FS) Store {
				s, err := OpenEmbedded(EmbeddedOptions{Dir: dir, Now: c.now, Tick: time.Millisecond, FS: disk, Retry: time.Hour})
				require.NoError(t, err)
				return s
			}
			s := open(dir, disk)
			p, q := newProxy(c, s, 1), newProxy(c, s, 1000)
			settle(t, c, p)
			const limit = 30
			use := func(x *proxy, n int) (admitted int) {
				for range n {
					if ok, _ := x.request(t, false, demand("requests", limit, month, 1)); ok {
						admitted++
					}
					x.report(t, false)
				}
				return admitted
			}
			require.Equal(t, 5, use(p, 5))
			if from == "the start" {
				require.NoError(t, s.Close())
				disk.full.Store(true)
				s = open(dir, disk)
				p.store = s
			}
			disk.full.Store(true)
			require.Equal(t, 15, use(p, 15), "nobody notices")

			other := open(killed(t, dir), journal.Disk{})
			p.store, q.store = other, other
			require.Zero(t, use(q, 3), "it may not know all")
			for range 100 {
				c.add(20 * time.Millisecond)
				tick(t, []*proxy{p, q})
			}
			require.Equal(t, limit-20, use(q, limit))
			closeAll(t, []Store{other})
			require.Error(t, s.Close())
		})
	}
}

// killed returns what is on the disk when a companion that uses dir is killed.
func killed(t *testing.T, dir string) string {
	t.Helper()
	left := filepath.Join(t.TempDir(), "left")
	copyLive(t, left, dir)
	return left
}

// copyLive copies the folder of a companion that is running.
func copyLive(t require.TestingT, to, from string) {
	for os.CopyFS(to, os.DirFS(from)) != nil { // a file was removed or renamed meanwhile
		require.NoError(t, os.RemoveAll(to))
	}
}

// TestKilledBeforeAReleaseWasSaved: what a proxy gave back, and was told so, is free after a crash too, although only the journal's last tick would
// have said so. For concurrency no window ends it otherwise.
func TestKilledBeforeAReleaseWasSaved(t *testing.T) {
	dir := t.TempDir()
	c := &clock{at: begin.Add(-24 * time.Hour)}
	s, err := OpenEmbedded(EmbeddedOptions{Dir: dir, Now: c.now, Tick: time.Hour})
	require.NoError(t, err)
	p := newProxy(c, s, 1)
	settle(t, c, p)
	open := account.Demand{Key: account.KeyOf([]byte("open")), Name: []byte("open"), Limit: 4, Amount: 1, Shared: true}
	var taken [][]account.Demand
	for range open.Limit {
		ok, d := p.request(t, false, open)
		require.True(t, ok)
		taken = append(taken, d)
	}
	for _, d := range taken {
		require.NoError(t, p.Settle(c.now(), d, []int64{1}))
	}
	pass := func(p *proxy, n int) {
		for range n {
			c.add(20 * time.Millisecond)
			p.report(t, false)
		}
	}
	pass(p, 10)
	other, err := OpenEmbedded(EmbeddedOptions{Dir: killed(t, dir), Now: c.now})
	require.NoError(t, err)
	p.store = other
	q := newProxy(c, other, 9)
	pass(p, 100)
	for range open.Limit {
		ok, _ := q.request(t, false, open)
		require.True(t, ok)
	}
	closeAll(t, []Store{s, other})
}

// TestBounds: identities cannot use up the memory.
func TestBounds(t *testing.T) {
	c := &clock{at: begin}
	const most = 10_000
	s, err := OpenEmbedded(EmbeddedOptions{Now: c.now, maxAccounts: most})
	require.NoError(t, err)
	defer s.Close()
	m := &account.Message{}
	for i := range 200 {
		m.Accounts = append(m.Accounts, account.Entry{Period: "1m", Limit: 5, Name: fmt.Sprint(i)})
	}
	for i := range maxProxies + 10 {
		m.Proxy = strconv.Itoa(i)
		_, err := s.Exchange(t.Context(), &account.Message{Proxy: m.Proxy, Accounts: m.Accounts[:1]})
		require.Equal(t, i >= maxProxies, err != nil, "%d: %v", i, err)
	}
	require.Equal(t, maxProxies, s.Stats().Proxies)
	m.Proxy = "0"
	for i := range most/len(m.Accounts) + 10 {
		for j := range m.Accounts {
			m.Accounts[j].Name = fmt.Sprintf("%d-%d", i, j)
		}
		own := *m
		own.Accounts = append([]account.Entry(nil), m.Accounts...)
		r, err := s.Exchange(t.Context(), &own)
		require.NoError(t, err)
		if i < most/len(m.Accounts)-1 {
			require.Len(t, r.Accounts, len(m.Accounts))
		}
	}
	stats := s.Stats()
	require.Equal(t, most, stats.Accounts)
	require.NotZero(t, stats.Overflow)
	c.add(2 * time.Minute)
	m.Accounts = m.Accounts[:1]
	_, err = s.Exchange(t.Context(), m)
	require.NoError(t, err)
	require.Less(t, s.Stats().Accounts, 10, "windows that are over are forgotten")
}

// A clock that is set back gives no second quota for the same time.
func TestClockSetBack(t *testing.T) {
	for _, back := range []time.Duration{10 * time.Second, 10 * time.Minute} {
		c := &clock{at: begin.Add(time.Second)}
		s, err := OpenEmbedded(EmbeddedOptions{Now: c.now})
		require.NoError(t, err)
		p := newProxy(c, s, 1)
		settle(t, c, p)
		d := demand("requests", 4, minute, 1)
		admitted := 0
		for i := range 10 {
			if i == 5 {
				c.add(-back)
			}
			if ok, _ := p.request(t, false, d); ok {
				admitted++
			}
			p.report(t, false)
		}
		require.Equal(t, 4, admitted)
		require.NoError(t, s.Close())
	}
}

var _ io.Closer = Store(nil)
