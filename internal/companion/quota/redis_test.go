package quota

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/redisbin"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

func openRedis(t *testing.T, o RedisOptions) (Store, *lines) {
	t.Helper()
	if o.Prefix == "" {
		o.Prefix = "inlet"
	}
	log := new(lines)
	s, err := OpenRedis(t.Context(), o, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, log
}

// ask sends one message in real time and returns what is granted of the account.
func ask(t require.TestingT, s Store, m account.Message) (account.Grant, account.Reply) {
	m.Time = 1
	r, err := s.Exchange(t.(*testing.T).Context(), &m)
	require.NoError(t, err)
	require.Len(t, r.Accounts, len(m.Accounts))
	if len(r.Accounts) == 0 {
		return account.Grant{}, r
	}
	return r.Accounts[0], r
}

// sequence numbers messages.
var sequence atomic.Int64

func message(proxy string, e account.Entry) account.Message {
	if e.Name == "" {
		e.Name = "budget"
	}
	if e.Period == "" {
		e.Period = "1mo"
	}
	if e.Limit == 0 {
		e.Limit = 100
	}
	e.Want, e.Seq = max(e.Want, e.Need), sequence.Add(1)
	return account.Message{Proxy: proxy, Accounts: []account.Entry{e}}
}

// untilGranting waits until a store has settled.
func untilGranting(t *testing.T, s Store) {
	t.Helper()
	until(t, "it grants", func() bool {
		r, err := s.Exchange(t.Context(), &account.Message{Proxy: "waiting"})
		return err == nil && !r.Settling
	})
}

// A Redis that has lost everything gets it back from the companions that know, also what dead proxies have used; no proxy is counted twice.
func TestRedisIsFlushed(t *testing.T) {
	t.Parallel()
	server, client := startRedis(t)
	a, log := openRedis(t, RedisOptions{Addresses: []string{server.Address()}})
	b, _ := openRedis(t, RedisOptions{Addresses: []string{server.Address()}})
	untilGranting(t, a)
	dead, _ := ask(t, a, message("dead", account.Entry{Need: 30}))
	require.Equal(t, int64(30), dead.Granted)
	ask(t, a, message("dead", account.Entry{Start: dead.Start, Used: 30, Granted: 30}))
	alive, _ := ask(t, b, message("alive", account.Entry{Need: 20}))
	require.Equal(t, int64(20), alive.Granted)
	ask(t, b, message("alive", account.Entry{Start: dead.Start, Used: 15, Granted: 20}))
	other, _ := ask(t, a, message("alive", account.Entry{Name: "other", Need: 3}))
	require.Equal(t, int64(3), other.Granted)
	_, err := a.Credit(t.Context(), "budget", 5, false)
	require.NoError(t, err)

	require.NoError(t, client.FlushAll(t.Context()).Err())
	_, r := ask(t, a, message("alive", account.Entry{Start: dead.Start, Used: 15, Granted: 20, Need: 45}))
	require.True(t, r.Settling, "nothing is granted before everybody has said what he has")
	require.Contains(t, log.String(), "Redis has lost its counters")
	require.Equal(t, uint64(1), a.Stats().Resets)
	untilGranting(t, a)
	untilGranting(t, b)
	full, _ := ask(t, b, message("alive", account.Entry{Start: dead.Start, Used: 15, Granted: 20, Need: 61}))
	require.Equal(t, int64(20), full.Granted, "100 and 5 on top, 30 used by the dead one, which only companion a knew by itself")
	full, _ = ask(t, b, message("alive", account.Entry{Start: dead.Start, Used: 15, Granted: 20, Need: 60}))
	require.Equal(t, int64(75), full.Granted)
	back, _ := ask(t, b, message("dead", account.Entry{Start: dead.Start, Used: 30, Granted: 30, Said: 30}))
	require.Equal(t, int64(45), back.Total, "what it used is not counted twice")
	list, _, err := b.Counters(t.Context(), "other", 10)
	require.NoError(t, err)
	require.Equal(t, int64(3), list[0].Reserved, "no proxy has named it since")
}

// A Redis that restarts from an older snapshot: what is newer in the companion's memory counts.
func TestRedisGoesBack(t *testing.T) {
	t.Parallel()
	server, client := startRedis(t)
	a, log := openRedis(t, RedisOptions{Addresses: []string{server.Address()}})
	untilGranting(t, a)
	first, _ := ask(t, a, message("p", account.Entry{Need: 10}))
	ask(t, a, message("p", account.Entry{Start: first.Start, Used: 10, Granted: 10}))
	require.NoError(t, client.Save(t.Context()).Err())
	more, _ := ask(t, a, message("p", account.Entry{Start: first.Start, Used: 10, Granted: 10, Need: 50}))
	require.Equal(t, int64(60), more.Granted)
	ask(t, a, message("p", account.Entry{Start: first.Start, Used: 60, Granted: 60}))
	server.Kill()
	_, err := a.Exchange(t.Context(), &account.Message{Proxy: "q"})
	require.Error(t, err)
	require.False(t, a.Stats().Redis.Up)
	require.Contains(t, log.String(), "Redis does not respond")
	require.NoError(t, server.Restart(t.Context()))
	until(t, "it responds", func() bool {
		_, err := a.Exchange(t.Context(), &account.Message{Proxy: "q"})
		return err == nil
	})
	require.Contains(t, log.String(), "Redis went back to an older state")
	require.Contains(t, log.String(), "Redis responds")
	require.Equal(t, uint64(1), a.Stats().Resets)
	untilGranting(t, a)
	q, _ := ask(t, a, message("q", account.Entry{Need: 41}))
	require.Zero(t, q.Granted, "60 are used")
	q, _ = ask(t, a, message("q", account.Entry{Need: 40}))
	require.Equal(t, int64(40), q.Granted)
}

// A Redis that restarts with all it had goes on at once.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	server, _ := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	a, _ := openRedis(t, RedisOptions{Addresses: []string{server.Address()}})
	untilGranting(t, a)
	first, r := ask(t, a, message("p", account.Entry{Need: 10}))
	server.Kill()
	require.NoError(t, server.Restart(t.Context()))
	var again account.Reply
	until(t, "it responds", func() bool {
		m := message("p", account.Entry{Start: first.Start, Used: 10, Granted: 10, Need: 10})
		var err error
		again, err = a.Exchange(t.Context(), &m)
		return err == nil
	})
	require.Equal(t, r.Generation, again.Generation)
	require.Equal(t, int64(20), again.Accounts[0].Granted)
	require.Zero(t, a.Stats().Resets)
}

// Three real servers: all keys of an exchange are on one of them, whichever address the companion begins with.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	c, err := redisbin.StartCluster(t.Context(), 3, t.TempDir)
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	var stores []Store
	for _, address := range c.Addresses() {
		s, log := openRedis(t, RedisOptions{Addresses: []string{address}})
		require.Contains(t, log.String(), "cluster=true")
		stores = append(stores, s)
	}
	all, _ := openRedis(t, RedisOptions{Addresses: c.Addresses(), Prefix: "inlet"})
	stores = append(stores, all)
	untilGranting(t, stores[0])
	granted := int64(0)
	for i := range 12 {
		g, _ := ask(t, stores[i%len(stores)], message(fmt.Sprint("p", i), account.Entry{Need: 10}))
		granted += g.Granted
	}
	require.Equal(t, int64(100), granted)
	many := account.Message{Proxy: "p"}
	for i := range 50 {
		many.Accounts = append(many.Accounts, account.Entry{Name: fmt.Sprint("account", i), Period: "1m", Limit: 5, Need: 1, Want: 1})
	}
	r, err := all.Exchange(t.Context(), &many)
	require.NoError(t, err)
	require.Len(t, r.Accounts, 50)
	_, n, err := stores[1].Counters(t.Context(), "", 10)
	require.NoError(t, err)
	require.Equal(t, 51, n)
	require.NoError(t, stores[0].SetDirectory(t.Context(), nil, []byte("{}")))
	text, err := stores[2].Directory(t.Context())
	require.NoError(t, err)
	require.Equal(t, "{}", string(text))
}

// Companions on one Redis have one directory, and a change reaches the proxies of each.
func TestDirectoryInRedis(t *testing.T) {
	server, client := startRedis(t)
	s1, log := openRedis(t, RedisOptions{Addresses: []string{server.Address()}})
	s2, log2 := openRedis(t, RedisOptions{Addresses: []string{server.Address()}})
	a, b := startAdmin(t, Options{Store: s1, Managed: true}), startAdmin(t, Options{Store: s2, Managed: true})
	a.ok("POST", "/v1/developers", `{"name": "ann"}`)
	until(t, "the other one knows", func() bool { return b.keysOf().Get("developers.0.name").Str == "ann" })
	until(t, "both add something", func() bool {
		status, _ := b.do("POST", "/v1/developers", `{"name": "bob"}`)
		return status == 201
	})
	until(t, "the first one knows", func() bool { return a.keysOf().Get("developers.1.name").Str == "bob" })

	// Redis loses it, or goes back: no proxy notices, and no revoked key comes back.
	before := a.keysOf().Raw
	older := client.Get(t.Context(), "{inlet}:directory").Val()
	b.ok("POST", "/v1/developers", `{"name": "zoe"}`)
	until(t, "both know", func() bool { return strings.Contains(a.keysOf().Raw, "zoe") })
	newest := a.keysOf().Raw
	require.NotEqual(t, before, newest)
	for _, lose := range []func() error{
		func() error { return client.FlushAll(t.Context()).Err() },
		func() error { return client.Set(t.Context(), "{inlet}:directory", older, 0).Err() },
	} {
		require.NoError(t, lose())
		until(t, "it is given back", func() bool {
			require.Equal(t, newest, a.keysOf().Raw)
			return strings.Contains(client.Get(t.Context(), "{inlet}:directory").Val(), "zoe")
		})
	}
	require.Contains(t, log.String()+log2.String(), "Redis lost changes of the directory")
}

func TestRedisAccess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	right, wrong := filepath.Join(dir, "right"), filepath.Join(dir, "wrong")
	require.NoError(t, os.WriteFile(right, []byte("right\n"), 0o600))
	require.NoError(t, os.WriteFile(wrong, []byte("wrong\n"), 0o600))
	server, err := redisbin.Start(t.Context(), t.TempDir(), "--requirepass", "right", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	require.NoError(t, err)
	t.Cleanup(func() { server.Stop() })
	addresses := []string{server.Address()}
	open := func(o RedisOptions) error {
		o.Addresses, o.Prefix = addresses, "inlet"
		s, err := OpenRedis(t.Context(), o, nil)
		if err == nil {
			_ = s.Close()
		}
		return err
	}
	require.ErrorContains(t, open(RedisOptions{}), "NOAUTH")
	require.ErrorContains(t, open(RedisOptions{PasswordFile: wrong}), "WRONGPASS")
	require.ErrorIs(t, open(RedisOptions{PasswordFile: filepath.Join(dir, "none")}), os.ErrNotExist)
	_, log := openRedis(t, RedisOptions{Addresses: addresses, PasswordFile: right})
	require.Contains(t, log.String(), "policy=allkeys-lru")
	require.NotContains(t, log.String(), "right")

	client := redis.NewClient(&redis.Options{Addr: server.Address(), Password: "right"})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	user := func(rules ...any) {
		require.NoError(t, client.Do(t.Context(), append([]any{"ACL", "SETUSER", "inlet", "reset", "on", ">right", "~{inlet}:*"}, rules...)...).Err())
	}
	allowed := []any{
		"+hello", "+ping", "+info", "+eval", "+evalsha", "+scan", "+mget", "+get", "+set", "+getrange", "+time", "+pexpire", "+pexpireat",
		"+zadd", "+zcount", "+zscore", "+zrangebyscore", "+zremrangebyscore",
	}
	inlet := RedisOptions{Username: "inlet", PasswordFile: right}
	user(append(allowed, "-eval", "-evalsha")...)
	require.ErrorContains(t, open(inlet), "NOPERM")
	user(allowed...)
	inlet.Addresses = addresses
	s, _ := openRedis(t, inlet)
	untilGranting(t, s)
	g, _ := ask(t, s, message("p", account.Entry{Need: 3}))
	require.Equal(t, int64(3), g.Granted)
	_, all, err := s.Counters(t.Context(), "", 1)
	require.NoError(t, err)
	require.Equal(t, 1, all)
	require.NoError(t, s.SetDirectory(t.Context(), nil, []byte("{}")))
	_, err = s.Directory(t.Context())
	require.NoError(t, err)
}

// A Redis that is not there when the companion starts is no reason not to serve snapshots. Proxies keep their directory meanwhile.
func TestRedisComesLater(t *testing.T) {
	server, _ := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	first, _ := openRedis(t, RedisOptions{Addresses: []string{server.Address()}})
	require.NoError(t, first.SetDirectory(t.Context(), nil, []byte("developers: [{name: ann}]")))
	server.Kill()
	s, log := openRedis(t, RedisOptions{Addresses: []string{server.Address()}})
	require.Contains(t, log.String(), "Redis does not respond")
	c := startAdmin(t, Options{Store: s, Managed: true})
	m := account.Message{Proxy: "a"}
	status, text := c.post(string(m.Append(nil)))
	require.Equal(t, 503, status, text)
	require.Equal(t, uint64(1), c.Stats().Failed)
	require.NoError(t, server.Restart(t.Context()))
	until(t, "the directory is there", func() bool {
		status, text = c.post(string(m.Append(nil)))
		return status == 200 && bytes.Contains([]byte(text), []byte(`"ann"`))
	})
	require.True(t, s.Stats().Redis.Up)
}

func TestMerged(t *testing.T) {
	share := func(n int64) map[string]*account.Share {
		return map[string]*account.Share{"p": {Used: n, Granted: 10 - n}}
	}
	older := &account.Allocation{Period: "1m", Start: 1, Credit: 3, Shares: share(3)}
	newer := &account.Allocation{Period: "1m", Start: 2, Shares: share(1)}
	same := &account.Allocation{Period: "1m", Start: 1, Credit: 1, Shares: map[string]*account.Share{"p": {Used: 5, Granted: 1}, "q": {Back: 1}}}
	require.Nil(t, merged(nil, nil))
	require.Equal(t, older, merged(older, nil))
	require.Equal(t, older, merged(nil, older))
	require.Equal(t, newer, merged(older, newer))
	require.Equal(t, newer, merged(newer, older))
	want := &account.Allocation{Period: "1m", Start: 1, Credit: 3, Shares: map[string]*account.Share{"p": {Used: 5, Granted: 7}, "q": {Back: 1}}}
	require.Equal(t, want, merged(older, same))
	require.Equal(t, want, merged(same, older))
	require.Equal(t, int64(3), older.Shares["p"].Used, "it is left as it was")

	before := &account.Allocation{Period: "1m", Shares: map[string]*account.Share{"p": {Window: 1, Used: 9}}}
	after := &account.Allocation{Period: "1m", Folded: 9, Shares: map[string]*account.Share{"p": {Window: 2, Used: 2}}}
	require.Equal(t, after, merged(before, after), "a proxy that begins again counts once")
	require.Equal(t, after, merged(after, before))
}

func TestRedisClockIsTheServers(t *testing.T) {
	server, client := startRedis(t)
	c := &clock{at: begin.Add(100 * 24 * time.Hour), redis: client} // far from this machine's
	c.add(0)
	s, _ := openRedis(t, RedisOptions{Addresses: []string{server.Address()}, script: virtualScript})
	_, r := ask(t, s, message("p", account.Entry{Period: "1m"}))
	require.Equal(t, c.now().UnixMilli(), r.Now)
	c.add(account.Lease / 2)
	// Q23: four at one time, one by a slower clock, and the first again.
	granted := int64(0)
	for range 4 {
		g, _ := ask(t, s, message("p", account.Entry{Period: "1m", Limit: 4, Used: granted, Granted: granted, Need: 1, Start: r.Accounts[0].Start}))
		granted = g.Granted
	}
	require.Equal(t, int64(4), granted)
	c.add(-10 * time.Second)
	g, _ := ask(t, s, message("p", account.Entry{Period: "1m", Limit: 4, Used: 4, Granted: 4, Need: 1, Start: r.Accounts[0].Start}))
	require.Equal(t, int64(4), g.Granted)
	require.Zero(t, g.Free)
}
