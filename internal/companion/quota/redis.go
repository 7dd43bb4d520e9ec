package quota

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// RedisOptions are how Redis is reached.
type RedisOptions struct {
	Addresses    []string // of one server, or of some of a cluster
	Username     string
	PasswordFile string     // "" for none
	TLS          *http1.TLS // nil: none
	Prefix       string     // of all keys

	// script is what a test runs instead of the exchange, with a clock of its own.
	script string
}

// IsPrefix accepts what can begin all keys.
func IsPrefix(s string) string { return isName(s) }

// redisStore is the Store that several companions share. The arithmetic is that of account.Allocator, here as in the embedded store: a batch of
// messages is answered from copies of the accounts, and one script writes the result if the accounts are still what they were. If not, it
// returns them, and the batch is answered again.
//
// So the copies also are what can be given back to a Redis that has lost its data.
type redisStore struct {
	opts RedisOptions
	log  *slog.Logger

	reading sync.Mutex
	saved   edition // of the directory, the newest one that was seen

	connecting sync.Mutex
	client     redis.UniversalClient // nil until a server has answered
	script     *redis.Script

	mu      sync.Mutex
	pending []*job
	wake    chan struct{}
	stats   StoreStats
	redis   RedisStats

	stop context.CancelFunc
	done chan struct{}

	view // of the worker
}

// job is what the worker does for one caller.
type job struct {
	names   []string // of the accounts
	proxy   string   // whose message it is, "" for none
	apply   func(now time.Time, a *account.Allocator) error
	err     error
	applied chan struct{}
}

// Time limits of calls to Redis.
const (
	redisDial = 500 * time.Millisecond
	redisCall = time.Second
)

//go:embed exchange.lua
var exchangeScript string

// OpenRedis opens a store that several companions can share. A Redis that does not respond is an error of later calls only; one that refuses this
// companion is one here.
func OpenRedis(ctx context.Context, o RedisOptions, log *slog.Logger) (Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if o.PasswordFile != "" {
		if _, err := http1.ReadToken(o.PasswordFile); err != nil {
			return nil, fmt.Errorf("the password of Redis: %w", err)
		}
	}
	if o.TLS != nil {
		if _, err := o.TLS.Config(); err != nil {
			return nil, err
		}
	}
	if o.script == "" {
		o.script = exchangeScript
	}
	redis.SetLogger(quietLogger{log})
	s := &redisStore{opts: o, log: log, script: redis.NewScript(o.script), wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.view.forget()
	_, err := s.connect(ctx)
	var refused redis.Error
	switch {
	case errors.As(err, &refused):
		return nil, fmt.Errorf("redis: %w", err)
	case err != nil:
		log.Error("Redis does not respond: proxies get no more of shared limits until it does", "reason", err)
	}
	run, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.run(run)
	return s, nil
}

// quietLogger takes what the client logs of its own accord; errors of calls are logged by the store.
type quietLogger struct{ log *slog.Logger }

func (q quietLogger) Printf(_ context.Context, format string, v ...any) {
	q.log.Debug("redis client: " + fmt.Sprintf(format, v...))
}

// connect returns the client. It is made when a server has said what it is: alone, or part of a cluster.
func (s *redisStore) connect(ctx context.Context) (redis.UniversalClient, error) {
	s.connecting.Lock()
	defer s.connecting.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	o := &redis.UniversalOptions{
		Addrs: s.opts.Addresses, DialTimeout: redisDial, ReadTimeout: redisCall, WriteTimeout: redisCall, ContextTimeoutEnabled: true,
		MaxRetries: -1, DialerRetries: 1, MaxRedirects: 3, // a batch that fails is sent again by the proxies
		CredentialsProviderContext: s.credentials,
	}
	if s.opts.TLS != nil {
		config, err := s.opts.TLS.Config()
		if err != nil {
			return nil, err
		}
		o.TLSConfig = config
	}
	info, address, err := s.ask(ctx, o)
	if err != nil {
		return nil, err
	}
	if policy := infoField(info, "maxmemory_policy"); policy != "noeviction" && policy != "" {
		s.log.Warn("Redis may evict counters of quotas: set its maxmemory-policy to noeviction", "server", address, "policy", policy)
	}
	var client redis.UniversalClient
	if o.IsClusterMode = infoField(info, "cluster_enabled") == "1"; o.IsClusterMode {
		client = redis.NewClusterClient(o.Cluster())
	} else {
		if len(o.Addrs) > 1 {
			s.log.Warn("Redis is not a cluster: of the addresses only this one is used", "server", address)
			o.Addrs = []string{address}
		}
		client = redis.NewClient(o.Simple())
	}
	// The script needs all its keys on one server, and commands that the user must be allowed to send.
	if err := s.try(ctx, client); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	s.log.Info("connected to Redis", "server", address, "version", infoField(info, "redis_version"), "cluster", o.IsClusterMode)
	s.client = client
	return client, nil
}

// ask asks the first server that responds what it is.
func (s *redisStore) ask(ctx context.Context, o *redis.UniversalOptions) (info, address string, err error) {
	for _, address := range s.opts.Addresses {
		simple := *o
		simple.Addrs = []string{address}
		client := redis.NewClient(simple.Simple())
		text, e := client.Info(ctx).Result()
		_ = client.Close() // it only asked
		if e == nil {
			return text, address, nil
		}
		err = errors.Join(err, fmt.Errorf("%s: %w", address, e))
	}
	return "", "", err
}

// try runs the script once without any effect: the time is wrong.
func (s *redisStore) try(ctx context.Context, client redis.UniversalClient) error {
	keys := append(s.fixedKeys(), s.accountKey("a"), s.accountKey("b"))
	_, err := s.script.Run(ctx, client, keys, 0, 0, 0, 0, "", "", 0, 0, 0).Slice()
	return err
}

func (s *redisStore) credentials(context.Context) (username, password string, err error) {
	if s.opts.PasswordFile != "" {
		password, err = http1.ReadToken(s.opts.PasswordFile) // each time, so that it can be replaced
	}
	return s.opts.Username, password, err
}

// infoField returns a field of what INFO says.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// All keys have one hash tag. One request needs counters of its product, app, model and address, and one message those of many requests: they
// must be on one server of a cluster to be changed in one step.
func (s *redisStore) key(name string) string { return "{" + s.opts.Prefix + "}:" + name }

func (s *redisStore) accountKey(name string) string { return s.key("account:" + name) }

func (s *redisStore) fixedKeys() []string {
	return []string{s.key("meta"), s.key("seen"), s.key("count")}
}

// Exchange implements Store.
func (s *redisStore) Exchange(ctx context.Context, m *account.Message) (account.Reply, error) {
	var reply account.Reply
	names := make([]string, len(m.Accounts))
	for i := range m.Accounts {
		names[i] = m.Accounts[i].Name
	}
	err := s.do(ctx, &job{names: names, proxy: m.Proxy, apply: func(now time.Time, a *account.Allocator) error {
		reply = a.Answer(now, m)
		return nil
	}})
	if err != nil {
		return account.Reply{}, err // and reply may still be written to
	}
	return reply, nil
}

// do has the worker apply a job.
func (s *redisStore) do(ctx context.Context, j *job) error {
	j.applied = make(chan struct{})
	s.mu.Lock()
	if len(s.pending) > 4*maxProxies {
		s.mu.Unlock()
		return errBusy
	}
	s.pending = append(s.pending, j)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	select {
	case <-j.applied:
		return j.err
	case <-s.done:
		return errors.New("the companion is shutting down")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Credit implements Store.
func (s *redisStore) Credit(ctx context.Context, name string, amount int64, reset bool) (Counter, error) {
	var c Counter
	err := s.do(ctx, &job{names: []string{name}, apply: func(now time.Time, a *account.Allocator) error {
		al := a.Accounts[name]
		if al == nil || al.End > 0 && al.End <= now.UnixMilli() {
			return errUnknownAccount
		}
		if reset {
			al.Reset()
		} else {
			al.Allow(amount)
		}
		c = counterOf(name, al)
		return nil
	}})
	if err != nil {
		return Counter{}, err
	}
	return c, nil
}

// Counters implements Store.
func (s *redisStore) Counters(ctx context.Context, contains string, limit int) (list []Counter, all int, err error) {
	client, err := s.connect(ctx)
	if err != nil {
		return nil, 0, err
	}
	prefix := s.accountKey("")
	node := redis.Cmdable(client)
	if cluster, ok := client.(*redis.ClusterClient); ok {
		if node, err = cluster.MasterForKey(ctx, prefix); err != nil {
			return nil, 0, err
		}
	}
	now, err := node.Time(ctx).Result()
	if err != nil {
		return nil, 0, err
	}
	var names []string
	for cursor := uint64(0); ; {
		var keys []string
		if keys, cursor, err = node.Scan(ctx, cursor, globEscape(prefix)+"*", 1000).Result(); err != nil {
			return nil, 0, err
		}
		for _, key := range keys {
			if name := strings.TrimPrefix(key, prefix); strings.Contains(name, contains) {
				names = append(names, name)
			}
		}
		if cursor == 0 {
			break
		}
	}
	slices.Sort(names)
	names = slices.Compact(names) // a scan may return a key twice
	for some := range slices.Chunk(names, 500) {
		keys := make([]string, len(some))
		for i, name := range some {
			keys[i] = s.accountKey(name)
		}
		values, err := client.MGet(ctx, keys...).Result()
		if err != nil {
			return nil, 0, err
		}
		for i, value := range values {
			text, _ := value.(string)
			al := decodeAccount(text)
			if al == nil || al.End > 0 && al.End <= now.UnixMilli() {
				continue
			}
			if all++; all <= limit {
				list = append(list, counterOf(some[i], al))
			}
		}
	}
	return list, all, nil
}

// globEscape makes a text stand for itself in a pattern.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// Stats implements Store.
func (s *redisStore) Stats() StoreStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, r := s.stats, s.redis
	all.Redis = &r
	return all
}

// Close implements Store.
func (s *redisStore) Close() error {
	s.stop()
	<-s.done
	s.connecting.Lock()
	defer s.connecting.Unlock()
	if s.client == nil {
		return nil
	}
	return s.client.Close()
}

// stampSize is the length of what a value in Redis begins with. It is another one for each value.
const stampSize = 16

func newStamp() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// encodeAccount is the value of an account in Redis, without its stamp. It is the record of the journal.
func encodeAccount(name string, al *account.Allocation) []byte {
	r := wholeRecord(name, al)
	return r.encode()
}

// decodeAccount reads a value. What cannot be read is as good as nothing: nil.
func decodeAccount(value string) *account.Allocation {
	var r record
	if len(value) < stampSize || json.Unmarshal([]byte(value[stampSize:]), &r) != nil {
		return nil
	}
	al := &account.Allocation{Period: r.Window, Start: r.Start, End: r.End, Limit: r.Limit, Credit: r.Credit, Folded: r.Folded, Shares: r.Shares}
	if al.Shares == nil {
		al.Shares = map[string]*account.Share{}
	}
	return al
}

// meta is what all companions agree on.
type meta struct {
	Generation uint32 `json:"generation"`
	Started    int64  `json:"started"` // ms
	Settled    int64  `json:"settled"`
}

// begin sets when the generation began, and when it grants.
func (m *meta) begin(now time.Time) {
	m.Started, m.Settled = now.UnixMilli(), now.Add(account.Lease/2).UnixMilli()
}

func number(v any) int64 {
	text, _ := v.(string)
	n, _ := strconv.ParseInt(text, 10, 64) // 0, as of nothing
	return n
}

// merged is the most of two states of an account: what Redis has, and what this companion remembers of before Redis lost it.
func merged(a, b *account.Allocation) *account.Allocation {
	switch {
	case a == nil || b != nil && a.Period == b.Period && a.Start < b.Start:
		return b
	case b == nil || a.Period != b.Period || a.Start > b.Start:
		return a
	}
	m := cloneAccount(a)
	m.Credit, m.Folded = max(m.Credit, b.Credit), max(m.Folded, b.Folded)
	for proxy, o := range b.Shares {
		s := m.Shares[proxy]
		switch {
		case s == nil || s.Window < o.Window: // what a proxy used in a window that it gave up is Folded
			own := *o
			m.Shares[proxy] = &own
			continue
		case s.Window > o.Window:
			continue
		}
		s.Granted, s.Released = max(s.Granted, o.Granted), max(s.Released, o.Released)
		s.Used, s.Back, s.Known, s.Seq = max(s.Used, o.Used), max(s.Back, o.Back), max(s.Known, o.Known), max(s.Seq, o.Seq)
	}
	return m
}

func cloneAccount(a *account.Allocation) *account.Allocation {
	c := *a
	c.Shares = make(map[string]*account.Share, len(a.Shares))
	for proxy, s := range a.Shares {
		own := *s
		c.Shares[proxy] = &own
	}
	return &c
}

// same reports whether two states are one.
func same(name string, a, b *account.Allocation) bool {
	return a == b || a != nil && b != nil && bytes.Equal(encodeAccount(name, a), encodeAccount(name, b))
}
