package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/internal/companion/kube"
	"github.com/inlet-proxy/inlet/internal/companion/quota"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// QuotaConfig is how quotas are shared among proxies.
type QuotaConfig struct {
	Dir   string              // of the journal; "" for none
	Redis *quota.RedisOptions // instead of counters in this process
	Keys  string              // file of the directory; "" for one that the admin API manages, if there is one
	Admin *AdminConfig        // nil: no admin API

	Kubernetes *kube.DirectorySource // the directory, in place of Keys
	cluster    *KubernetesConfig     // where that is
}

// AdminConfig is where the admin API is served.
type AdminConfig struct {
	Listen    string
	TokenFile string
}

func readQuota(o *conf.Object) *QuotaConfig {
	q := new(QuotaConfig)
	o.Object("store", func(o *conf.Object) {
		o.String("dir", &q.Dir, conf.NotEmpty)
		o.Object("redis", func(o *conf.Object) { q.Redis = readRedis(o) })
		if o.Has("dir") == o.Has("redis") {
			o.Errorf("", "want either dir, a folder for this companion alone, or redis, which several companions can share")
		}
	})
	o.String("keys", &q.Keys, conf.NotEmpty)
	o.Object("kubernetes", func(o *conf.Object) {
		q.Kubernetes = new(kube.DirectorySource)
		o.String("namespace", &q.Kubernetes.Namespace, conf.NotEmpty)
		o.String("configMap", &q.Kubernetes.ConfigMap, conf.NotEmpty)
		o.String("secret", &q.Kubernetes.Secret, conf.NotEmpty)
		if !o.Has("configMap") && !o.Has("secret") {
			o.Errorf("", "want configMap, secret, or both")
		}
	})
	if o.Has("keys") && o.Has("kubernetes") {
		o.Errorf("kubernetes", "the directory is either in a file, keys, or in kubernetes")
	}
	o.Object("admin", func(o *conf.Object) {
		q.Admin = &AdminConfig{Listen: "127.0.0.1:9003"}
		o.String("listen", &q.Admin.Listen, hostPort)
		o.Required("tokenFile")
		o.String("tokenFile", &q.Admin.TokenFile, conf.NotEmpty)
	})
	return q
}

func readRedis(o *conf.Object) *quota.RedisOptions {
	r := &quota.RedisOptions{Prefix: "inlet"}
	o.Required("addresses")
	listed := 0
	o.List("addresses", func(v *conf.Value) {
		var address string
		if listed++; v.String(&address, hostPort) {
			r.Addresses = append(r.Addresses, address)
		}
	})
	if o.Has("addresses") && listed == 0 {
		o.Errorf("addresses", "needs at least one address")
	}
	o.String("username", &r.Username, conf.NotEmpty)
	o.String("passwordFile", &r.PasswordFile, conf.NotEmpty)
	o.Object("tls", func(o *conf.Object) { r.TLS = replicas.ReadTLS(o) })
	o.String("prefix", &r.Prefix, quota.IsPrefix)
	if r.Username != "" && !o.Has("passwordFile") {
		o.Errorf("username", "goes with passwordFile")
	}
	return r
}

// check reads the files once, and reports on them. Stores are left alone: another companion may be using them.
func (c *QuotaConfig) check(out io.Writer) error {
	if c == nil {
		return nil
	}
	var bad []error
	if c.Keys != "" {
		text, err := os.ReadFile(c.Keys)
		var d *quota.Directory
		if err == nil {
			d, err = quota.ParseDirectory(text)
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("quota.keys: %s: %w", c.Keys, err))
		} else {
			fmt.Fprintf(out, "quota: %s: %d keys, %d apps, %d products\n", c.Keys, len(d.Keys), len(d.Apps), len(d.Products))
		}
	}
	files := map[string]string{}
	if c.Admin != nil {
		files["admin.tokenFile"] = c.Admin.TokenFile
	}
	if r := c.Redis; r != nil {
		if r.PasswordFile != "" {
			files["store.redis.passwordFile"] = r.PasswordFile
		}
		if r.TLS != nil {
			if _, err := r.TLS.Config(); err != nil {
				bad = append(bad, fmt.Errorf("quota.store.redis.tls: %w", err))
			}
		}
	}
	for _, what := range slices.Sorted(maps.Keys(files)) {
		if _, err := http1.ReadToken(files[what]); err != nil {
			bad = append(bad, fmt.Errorf("quota.%s: %w", what, err))
		}
	}
	return errors.Join(bad...)
}

// isLoopback reports whether only this machine can reach an address.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// sharedQuota is what serves quotas; its parts are nil without a configuration.
type sharedQuota struct {
	store   quota.Store
	service *quota.Service
	admin   http.Handler

	directory *kube.Directory // that must run; nil if it is not in Kubernetes
}

// openQuota opens the store and reads the directory. An error names the key of the configuration.
func openQuota(ctx context.Context, c *QuotaConfig, log *slog.Logger) (q sharedQuota, err error) {
	if c == nil {
		return q, nil
	}
	if err := c.check(io.Discard); err != nil {
		return q, err
	}
	store := "dir"
	switch {
	case c.Redis != nil:
		store = "redis"
		q.store, err = quota.OpenRedis(ctx, *c.Redis, log)
	default:
		if c.Dir == "" {
			log.Warn("quota has no store: its counters and its directory are lost when this process ends")
		}
		q.store, err = quota.OpenEmbedded(quota.EmbeddedOptions{Dir: c.Dir, Log: log})
	}
	if err != nil {
		return q, fmt.Errorf("quota.store.%s: %w", store, err)
	}
	o := quota.Options{Store: q.store, File: c.Keys, Managed: c.Keys == "" && c.Kubernetes == nil && c.Admin != nil, Log: log}
	if c.Kubernetes != nil {
		if q.directory, err = c.followDirectory(&o, log); err != nil {
			q.close(log)
			return q, err
		}
	}
	q.service, err = quota.New(ctx, o)
	if err == nil && c.Admin != nil {
		if !isLoopback(c.Admin.Listen) {
			log.Warn("the admin API can be reached from other machines, and is plain HTTP: put TLS in front of it", "listen", c.Admin.Listen)
		}
		q.admin, err = q.service.Admin(c.Admin.TokenFile)
	}
	if err != nil {
		q.close(log)
		return q, fmt.Errorf("quota: %w", err)
	}
	return q, nil
}

func (q *sharedQuota) close(log *slog.Logger) {
	if q.store == nil {
		return
	}
	if err := q.store.Close(); err != nil {
		log.Error("closing the quota store", "reason", err)
	}
}

// quotaHandler answers proxies' messages about quotas, or says why it does not.
func quotaHandler(s *quota.Service) http.Handler {
	if s != nil {
		return s
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "this companion shares no quotas: its configuration has no \"quota\"", http.StatusNotFound)
	})
}

var (
	quotaMessagesDesc = describe("inlet_companion_quota_exchanges_total",
		"Messages of proxies about quotas, by result: answered, refused (malformed), failed (the store failed, or is full).", "result")
	quotaEntriesDesc = describe("inlet_companion_quota_entries_total", "Accounts in these messages.")
	quotaGrantsDesc  = describe("inlet_companion_quota_grants_total", "Times that a proxy got more of an account.")
	quotaDryDesc     = describe("inlet_companion_quota_refusals_total", "Times that a proxy needed more of an account than there was left.")
	quotaAccounts    = describe("inlet_companion_quota_accounts", "Accounts that are kept.")
	quotaProxies     = describe("inlet_companion_quota_proxies", "Proxies that have a part of an account, or had one in a window that is not over.")
	quotaOverflow    = describe("inlet_companion_quota_overflow_total", "Accounts in messages that were not kept, since there were too many.")
	quotaResets      = describe("inlet_companion_quota_resets_total", "Times that the store had lost its counters or an older state of them, and they were rebuilt from what proxies said.")
	quotaClockSteps  = describe("inlet_companion_quota_clock_steps_total", "Times that the clock was set back by more than a minute.")
	quotaDocuments   = describe("inlet_companion_quota_documents_sent_total", "Directories of keys that were sent to proxies.")
	quotaDirectory   = describe("inlet_companion_quota_directory_errors_total", "Times that the directory of keys could not be read.")
	quotaKeysDesc    = describe("inlet_companion_quota_keys", "API keys in the directory.")

	journalFailing   = describe("inlet_companion_quota_journal_failing", "1 while the journal cannot be written: counters are in memory only.")
	journalErrors    = describe("inlet_companion_quota_journal_errors_total", "Writes, syncs and snapshots of the journal that failed.")
	journalDropped   = describe("inlet_companion_quota_journal_dropped_records_total", "Records that were not written while the journal failed.")
	journalBytes     = describe("inlet_companion_quota_journal_written_bytes_total", "Bytes appended to the journal.")
	journalSyncs     = describe("inlet_companion_quota_journal_syncs_total", "Times that the journal was synced to the disk.")
	journalSyncTime  = describe("inlet_companion_quota_journal_sync_duration_seconds_total", "Total duration of all syncs.")
	journalSnapshots = describe("inlet_companion_quota_journal_snapshots_total", "Snapshots written, each of which takes the place of the log before it.")

	redisUp     = describe("inlet_companion_quota_redis_up", "1 if the last call to Redis succeeded.")
	redisCalls  = describe("inlet_companion_quota_redis_calls_total", "Calls to Redis.")
	redisErrors = describe("inlet_companion_quota_redis_errors_total", "Calls to Redis that failed.")
	redisTook   = describe("inlet_companion_quota_redis_duration_seconds_total", "Total duration of all calls to Redis.")
)

func collectQuota(ch chan<- prometheus.Metric, s quota.Stats) {
	counter(ch, quotaMessagesDesc, float64(s.Messages), "answered")
	counter(ch, quotaMessagesDesc, float64(s.Refused), "refused")
	counter(ch, quotaMessagesDesc, float64(s.Failed), "failed")
	counter(ch, quotaEntriesDesc, float64(s.Entries))
	counter(ch, quotaGrantsDesc, float64(s.Grants))
	counter(ch, quotaDryDesc, float64(s.Dry))
	gauge(ch, quotaAccounts, float64(s.Store.Accounts))
	gauge(ch, quotaProxies, float64(s.Store.Proxies))
	counter(ch, quotaOverflow, float64(s.Store.Overflow))
	counter(ch, quotaResets, float64(s.Store.Resets))
	counter(ch, quotaClockSteps, float64(s.Store.ClockSteps))
	counter(ch, quotaDocuments, float64(s.Documents))
	counter(ch, quotaDirectory, float64(s.DirectoryErrors))
	gauge(ch, quotaKeysDesc, float64(s.Keys))
	if j := s.Store.Journal; j != nil {
		gauge(ch, journalFailing, oneIf(j.Failing))
		counter(ch, journalErrors, float64(j.Errors))
		counter(ch, journalDropped, float64(j.Dropped))
		counter(ch, journalBytes, float64(j.Bytes))
		counter(ch, journalSyncs, float64(j.Syncs))
		counter(ch, journalSyncTime, j.SyncTime.Seconds())
		counter(ch, journalSnapshots, float64(j.Snapshots))
	}
	if r := s.Store.Redis; r != nil {
		gauge(ch, redisUp, oneIf(r.Up))
		counter(ch, redisCalls, float64(r.Calls))
		counter(ch, redisErrors, float64(r.Errors))
		counter(ch, redisTook, r.Took.Seconds())
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
