package native

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// proxy is a process, in a world with replicas that are reached without a network.
type proxy struct {
	*Process
	dials atomic.Int64
	slow  atomic.Int64 // ns until a replica responds

	mu      sync.Mutex
	tasks   []func()
	lines   []string
	metrics map[string]int64
	see     func()
	anytime bool // Env.Anytime
}

func newProxy() *proxy {
	p := &proxy{Process: NewProcess(), metrics: make(map[string]int64)}
	p.companions.options.Dial = p.dial
	return p
}

// dial connects to a replica with two requests in its queue.
func (p *proxy) dial(context.Context, string, string) (net.Conn, error) {
	p.dials.Add(1)
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		for r := bufio.NewReader(far); ; {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			time.Sleep(time.Duration(p.slow.Load()))
			const page = "vllm:num_requests_waiting 2\nvllm:num_requests_running 0\nvllm:kv_cache_usage_perc 0\n"
			if _, err := fmt.Fprintf(far, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(page), page); err != nil {
				return
			}
		}
	}()
	return near, nil
}

func (p *proxy) Schedule(task func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks = append(p.tasks, task)
}

func (p *proxy) Call(string, *feed.Request, func(*filter.Reply)) error { panic("nobody is called") }

// turn is one of Envoy's main loop.
func (p *proxy) turn() {
	p.mu.Lock()
	tasks := p.tasks
	p.tasks = nil
	p.mu.Unlock()
	for _, task := range tasks {
		task()
	}
}

func (p *proxy) log(_ filter.Level, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, line)
}

func (p *proxy) logged(part string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		n += strings.Count(line, part)
	}
	return n
}

func (p *proxy) Define(_ Kind, name string, _ []string) (func([]string) Series, error) {
	return func(values []string) Series {
		return &sample{p, name + strings.Join(append([]string{""}, values...), " ")}
	}, nil
}

type sample struct {
	proxy *proxy
	name  string
}

func (s *sample) Record(n int64) { s.proxy.metrics[s.name] += n }

// configure makes one more configuration, with a filter that watches snapshots.
func (p *proxy) configure(document string) (*Config, error) {
	watch := filter.Factory{Name: "watch", New: func(_ *conf.Object, d *filter.Deps) filter.Filter {
		if p.see != nil {
			d.Watch(p.see)
		}
		return passing{}
	}}
	return p.Configure([]byte("filters: [watch: {}]\n"+document), []filter.Factory{watch}, Env{
		Log: p.log, Metrics: p, Main: func() Main { return p }, Anytime: p.anytime,
	})
}

type passing struct{ filter.Filter }

func (passing) Needs() filter.Needs { return 0 }

func section(more string, addresses ...string) string {
	return fmt.Sprintf("companion: {embedded: {scrape: {models: /v1/models}%s, pools: [{name: llama, static: [%s]}]}}", more, `"`+strings.Join(addresses, `","`)+`"`)
}

func (p *proxy) mustConfigure(t *testing.T, document string) *Config {
	t.Helper()
	c, err := p.configure(document)
	require.NoError(t, err)
	return c
}

// listed are the addresses of the pool, and how many of the replicas are ready.
func listed(c *Config) (addresses string, ready int) {
	if c.Snapshot() == nil {
		return "", 0
	}
	for _, e := range c.Snapshot().Pool("llama").Endpoints {
		addresses += e.Address + " "
		if e.Ready {
			ready++
		}
	}
	return addresses, ready
}

func TestEmbeddedCompanion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		var seen atomic.Int64
		p.see = func() { seen.Add(1) }
		c := p.mustConfigure(t, section("", "10.0.0.1:80", "10.0.0.2:80"))
		time.Sleep(time.Second)
		require.Zero(t, p.dials.Load(), "nothing happens before the main loop turns: Envoy may only validate")
		require.Nil(t, c.Snapshot())
		p.turn()
		time.Sleep(time.Second)
		addresses, ready := listed(c)
		require.Equal(t, "10.0.0.1:80 10.0.0.2:80 ", addresses)
		require.Equal(t, 2, ready)
		e := c.Snapshot().Pool("llama").Endpoints[0]
		require.Equal(t, 2, e.Gauges.Waiting)
		require.NotZero(t, seen.Load())
		e.Load.Requests.Add(1)
		require.EqualValues(t, 1, p.Counters.Open("10.0.0.1:80").Value())
		require.Equal(t, 1, p.logged("companion: every endpoint was tried; publishing snapshots"))
		require.Nil(t, c.Poller, "nobody is polled")

		// The gauges do not change; yet they are not taken for old.
		time.Sleep(10 * time.Second)
		s := c.Snapshot()
		require.InDelta(t, 1, s.Pools[0].Endpoints[0].Gauges.Trust(time.Since(s.Received), 2*time.Second), 0)
		c.Close()
		synctest.Wait()
		before := p.dials.Load()
		time.Sleep(time.Minute)
		require.Equal(t, before, p.dials.Load(), "the last configuration is gone")
	})
}

func TestUpdatesOfAnEmbeddedCompanion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		first := p.mustConfigure(t, section("", "10.0.0.1:80"))
		p.turn()
		time.Sleep(time.Second)
		require.EqualValues(t, 1, p.dials.Load())

		same := p.mustConfigure(t, section("", "10.0.0.1:80")+"\ncountTokens: false")
		require.Same(t, first.Snapshot(), same.Snapshot())
		first.Close()
		p.turn()
		time.Sleep(time.Second)
		require.EqualValues(t, 1, p.dials.Load(), "the replica is not even connected to again")
		require.Equal(t, same.Snapshot().Source, p.companions.running[0].source.Latest().Source)

		// Another section: the last snapshot stays until each of its replicas was tried.
		p.slow.Store(int64(500 * time.Millisecond))
		other := p.mustConfigure(t, section("", "10.0.0.1:80", "10.0.0.2:80"))
		same.Close()
		p.turn()
		time.Sleep(300 * time.Millisecond)
		addresses, ready := listed(other)
		require.Equal(t, "10.0.0.1:80 ", addresses)
		require.Equal(t, 1, ready)
		time.Sleep(2 * time.Second)
		addresses, ready = listed(other)
		require.Equal(t, "10.0.0.1:80 10.0.0.2:80 ", addresses)
		require.Equal(t, 2, ready)

		// Envoy drops a configuration that it finds wrong elsewhere.
		wrong := p.mustConfigure(t, section("", "10.0.0.9:80"))
		wrong.Close()
		p.turn()
		time.Sleep(time.Second)
		addresses, _ = listed(other)
		require.Equal(t, "10.0.0.1:80 10.0.0.2:80 ", addresses)

		// One that comes after the last one begins with what was known.
		other.Close()
		again := p.mustConfigure(t, section("", "10.0.0.2:80"))
		addresses, _ = listed(again)
		require.Equal(t, "10.0.0.1:80 10.0.0.2:80 ", addresses)
		again.Close()
		time.Sleep(time.Second) // for the replicas that respond slowly
	})
}

// Two listeners may have two sections: each gets what its own says.
func TestTwoSections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		a, b := p.mustConfigure(t, section("", "10.0.0.1:80")), p.mustConfigure(t, section("", "10.0.0.2:80"))
		p.turn()
		time.Sleep(time.Second)
		of := func(c *Config) string { addresses, _ := listed(c); return addresses }
		require.Equal(t, "10.0.0.1:80 ", of(a))
		require.Equal(t, "10.0.0.2:80 ", of(b))
		b.Close()
		time.Sleep(time.Second)
		require.Equal(t, "10.0.0.1:80 ", of(a))
		a.Close()
	})
}

func TestMetricsOfAnEmbeddedCompanion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		first := p.mustConfigure(t, section("", "10.0.0.1:80", "10.0.0.2:80"))
		first.RecordDue()
		require.Empty(t, p.metrics["inlet_companion_endpoints llama"])
		p.turn()
		time.Sleep(2500 * time.Millisecond)
		first.RecordDue()
		first.RecordDue()
		require.EqualValues(t, 2, p.metrics["inlet_companion_endpoints llama"])
		require.EqualValues(t, 2, p.metrics["inference_pool_ready_pods llama"])
		require.EqualValues(t, 2, p.metrics["llm_d_epp_ready_endpoints llama"])
		require.EqualValues(t, 4, p.metrics["inlet_companion_waiting_requests llama"])
		require.EqualValues(t, 0, p.metrics["inlet_companion_stale_endpoints llama"])
		require.EqualValues(t, 2, p.metrics["inlet_companion_pollers"])
		require.EqualValues(t, 1, p.metrics["inlet_companion_endpoint_lists_total loaded"])
		scrapes := p.metrics["inlet_companion_scrapes_total llama ok"]
		require.InDelta(t, 40, scrapes, 8)

		second := p.mustConfigure(t, section("", "10.0.0.1:80"))
		p.turn()
		time.Sleep(2500 * time.Millisecond)
		first.RecordDue()
		require.EqualValues(t, 1, p.metrics["inlet_companion_endpoints llama"], "the gauges are those of the newest section that has the pool")
		require.EqualValues(t, 3, p.metrics["inlet_companion_pollers"], "of both")
		require.Greater(t, p.metrics["inlet_companion_scrapes_total llama ok"], scrapes)

		third := p.mustConfigure(t, strings.Replace(section("", "10.0.0.1:80"), "llama", "gemma", 1))
		p.turn()
		time.Sleep(2500 * time.Millisecond)
		first.RecordDue()
		require.EqualValues(t, 1, p.metrics["inlet_companion_endpoints llama"], "of another listener")
		require.EqualValues(t, 2, p.metrics["inlet_companion_waiting_requests llama"])
		require.EqualValues(t, 1, p.metrics["inlet_companion_endpoints gemma"])
		scrapes = p.metrics["inlet_companion_scrapes_total llama ok"]
		time.Sleep(2500 * time.Millisecond)
		third.RecordDue()
		require.Greater(t, p.metrics["inlet_companion_scrapes_total llama ok"], scrapes, "an older section counts, too")
		first.Close()
		second.Close()
		require.Contains(t, p.metrics, "inlet_companion_endpoints llama")
		for name, n := range p.metrics {
			if strings.HasSuffix(name, " llama") && !strings.HasSuffix(name, "_total llama") {
				require.Zero(t, n, "%s: there is no such pool any more", name)
			}
		}
		require.EqualValues(t, 1, p.metrics["inlet_companion_pollers"])
		third.Close()
		require.Zero(t, p.metrics["inlet_companion_endpoints gemma"])
		require.Zero(t, p.metrics["inlet_companion_pollers"])
	})
}

// While a new section has not tried its replicas, the gauges are those of the one before, and stay when that goes.
func TestGaugesDuringAnUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		first := p.mustConfigure(t, section("", "10.0.0.1:80", "10.0.0.2:80"))
		p.turn()
		time.Sleep(2500 * time.Millisecond)
		p.slow.Store(int64(4 * time.Second))
		second := p.mustConfigure(t, strings.Replace(section("", "10.0.0.1:80"), "models:", "timeout: 10s, models:", 1))
		ready := func() int64 { return p.metrics["inference_pool_ready_pods llama"] }
		second.RecordDue()
		require.EqualValues(t, 2, ready())
		p.turn()
		time.Sleep(1500 * time.Millisecond)
		second.RecordDue()
		require.EqualValues(t, 2, ready(), "not tried yet")
		time.Sleep(10 * time.Second)
		second.RecordDue()
		require.EqualValues(t, 1, ready())
		first.Close()
		require.EqualValues(t, 1, ready())
		second.Close()
		time.Sleep(10 * time.Second) // for the replicas that respond slowly
	})
}

// Where samples need no request, an idle listener's gauges are right, too.
func TestMetricsWithoutRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		p.anytime = true
		c := p.mustConfigure(t, section("", "10.0.0.1:80"))
		p.turn()
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		require.EqualValues(t, 1, p.metrics["inference_pool_ready_pods llama"])
		c.Close()
		synctest.Wait()
		require.Zero(t, p.metrics["inference_pool_ready_pods llama"])
	})
}

// A panic of what looks at snapshots is logged once in a while, and the companion goes on.
func TestAPanicAtASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		p.see = func() { panic("a defect") }
		c := p.mustConfigure(t, section("", "10.0.0.1:80"))
		p.turn()
		time.Sleep(4 * time.Second)
		require.Equal(t, 1, p.logged("a snapshot could not be used"))
		require.Equal(t, 1, p.logged("panic: a defect"))
		_, ready := listed(c)
		require.Equal(t, 1, ready)
		c.Close()
	})
}

// silent is a DNS server that responds only while it is let.
type silent struct{ speaks atomic.Bool }

func (s *silent) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if !s.speaks.Load() {
		return nil, errors.New("no response")
	}
	return []netip.Addr{netip.MustParseAddr("10.0.0.7")}, nil
}

func (s *silent) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	panic("nobody asks")
}

// A pool whose list cannot be read does not take the others down: of it alone nothing is known, and the log says so, seldom.
func TestAPoolWithoutAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dns := newProxy(), new(silent)
		p.companions.options.Resolver = dns
		c := p.mustConfigure(t, strings.Replace(section("", "10.0.0.1:80"), "pools: [", "pools: [{name: gemma, dns: {host: gemma, port: 80}}, ", 1))
		p.turn()
		time.Sleep(4 * time.Second)
		require.Nil(t, c.Snapshot(), "it may only be slow")
		require.Equal(t, 1, p.logged("there is no list yet"))
		require.Zero(t, p.logged("not every endpoint"))

		time.Sleep(2 * time.Second)
		const waits = `not every endpoint was tried yet missing="pool gemma: its list of endpoints could not be read yet"`
		require.Equal(t, 1, p.logged(waits))
		_, ready := listed(c)
		require.Equal(t, 1, ready)
		require.Nil(t, c.Snapshot().Pool("gemma"), "not a pool without replicas: nothing is known of it")
		version := c.Snapshot().Version
		time.Sleep(time.Hour)
		require.Greater(t, c.Snapshot().Version, version)
		require.InDelta(t, 18, p.logged(waits), 2)
		require.Zero(t, p.logged("publishing snapshots"))

		dns.speaks.Store(true)
		time.Sleep(time.Minute)
		require.Len(t, c.Snapshot().Pool("gemma").Endpoints, 1)
		require.True(t, c.Snapshot().Pool("gemma").Endpoints[0].Ready)
		require.Equal(t, 1, p.logged("publishing snapshots"))
		dns.speaks.Store(false)
		time.Sleep(time.Minute)
		require.Len(t, c.Snapshot().Pool("gemma").Endpoints, 1)
		require.Equal(t, 1, p.logged("keeping the last good list"))
		c.Close()
	})
}

// A companion that starts never shows a pool as one in which nothing is ready before it has tried all of it.
func TestNoPoolOfUntriedReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dns := newProxy(), new(silent)
		dns.speaks.Store(true)
		p.companions.options.Resolver = dns
		dial := p.companions.options.Dial
		p.companions.options.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "10.0.0.7:80" {
				<-ctx.Done() // silent
				return nil, ctx.Err()
			}
			return dial(ctx, network, address)
		}
		c := p.mustConfigure(t, strings.NewReplacer("scrape: {", "scrape: {timeout: 20s, ", "pools: [", "stale: 1m, pools: [{name: gemma, dns: {host: gemma, port: 80}}, ").Replace(section("", "10.0.0.1:80")))
		p.turn()
		time.Sleep(10 * time.Second)
		require.Len(t, c.Snapshot().Pools, 1)
		require.Equal(t, 1, p.logged(`missing="pool gemma: 1 of 1 endpoints not tried yet"`))
		time.Sleep(time.Minute)
		require.Len(t, c.Snapshot().Pools, 2)
		require.False(t, c.Snapshot().Pool("gemma").Endpoints[0].Ready, "it was tried")
		c.Close()
		time.Sleep(time.Minute)
	})
}

// A file that scraping needs may come later than Envoy.
func TestAMissingFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		token := filepath.Join(t.TempDir(), "token")
		c := p.mustConfigure(t, strings.Replace(section("", "10.0.0.1:80"), "models:", "token: "+token+", models:", 1))
		p.turn()
		time.Sleep(time.Minute)
		require.Equal(t, 1, p.logged("cannot follow the replicas; trying again, and keeping the last snapshot"))
		require.Equal(t, 1, p.logged(token))
		require.Nil(t, c.Snapshot())
		c.Close()
	})
}

func TestSectionsThatAreRefused(t *testing.T) {
	const pools = "pools: [{name: llama, static: [\"10.0.0.1:80\"]}]"
	for document, want := range map[string]string{
		"companion: {}": "companion: 2:12: missing key \"cluster\", the cluster of a companion, or \"embedded\", a companion inside this Envoy",
		"companion: {cluster: c, embedded: {" + pools + "}}":                 "companion.embedded: 2:35: is a companion inside this Envoy, and cluster another one: remove one of the two",
		"companion: {wait: 20s, embedded: {" + pools + "}}":                  "goes with cluster: nobody polls an embedded companion",
		"companion: {embedded: {}}":                                          "missing key \"pools\"",
		"companion: {embedded: {pools: [{name: llama}]}}":                    "want exactly one of eds, static and dns, got 0 of them",
		"companion: {embedded: {listen: \"127.0.0.1:9002\", " + pools + "}}": "an embedded companion has no port",
		"companion: {embedded: {quota: {}, " + pools + "}}":                  "keys and products stand in the filter quota",
		"companion: {embedded: {tokens: [], " + pools + "}}":                 "run a companion process",
		"companion: {embedded: {poools: [], " + pools + "}}":                 "unknown key \"poools\" (did you mean \"pools\"?)",
	} {
		p := newProxy()
		_, err := p.configure(document)
		require.Error(t, err, document)
		p.mu.Lock()
		require.Contains(t, strings.Join(p.lines, "\n"), want, document)
		p.mu.Unlock()
	}
}

// The document of a route has no companion of its own, and knows the replicas from the listener's.
func TestRoutesOfAnEmbeddedCompanion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		listener := p.mustConfigure(t, section("", "10.0.0.1:80"))
		p.turn()
		time.Sleep(time.Second)
		watch := []filter.Factory{{Name: "watch", New: func(*conf.Object, *filter.Deps) filter.Filter { return passing{} }}}
		route, err := p.Configure([]byte("filters: [watch: {}]"), watch, Env{Log: p.log, Metrics: p})
		require.NoError(t, err)
		require.Same(t, listener.Snapshot(), route.Snapshot())
		_, err = p.Configure([]byte("filters: [watch: {}]\n"+section("", "10.0.0.1:80")), watch, Env{Log: p.log, Metrics: p})
		require.ErrorContains(t, err, "companion.embedded: 2:23: stands in the listener's configuration: remove it here, and the route uses that one")
		route.Close()
		listener.Close()
	})
}

// A configuration that Envoy drops takes its companion from the routes, too.
func TestRoutesWhenAConfigurationGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy()
		a := p.mustConfigure(t, section("", "10.0.0.1:80"))
		b := p.mustConfigure(t, "companion: {cluster: b}")
		c := p.mustConfigure(t, section("", "10.0.0.3:80"))
		p.Source("b").Apply(&endpoint.Snapshot{Source: 1, Version: 1})
		for range 2 {
			p.mustConfigure(t, section("", "10.0.0.4:80")).Close() // it was wrong elsewhere
		}
		time.Sleep(time.Second)
		p.turn()
		time.Sleep(time.Second)
		route, err := p.Configure([]byte("filters: [watch: {}]"), []filter.Factory{{Name: "watch", New: func(*conf.Object, *filter.Deps) filter.Filter { return passing{} }}}, Env{Log: p.log, Metrics: p})
		require.NoError(t, err)
		require.Same(t, c.source, route.from())
		a.Close()
		c.Close()
		require.Same(t, p.Source("b"), route.from(), "of the listener that is left")
		require.NotNil(t, route.Snapshot())
		b.Close()
		require.Nil(t, route.from(), "nobody asks any more")
		require.Nil(t, route.Snapshot())
		route.Close()
	})
}

// What a companion knew that ended long ago is no beginning for another one.
func TestTheLastSnapshotIsNotKeptForLong(t *testing.T) {
	for pause, want := range map[time.Duration]string{9 * time.Second: "10.0.0.1:80 ", 11 * time.Second: "", time.Hour: ""} {
		synctest.Test(t, func(t *testing.T) {
			p := newProxy()
			first := p.mustConfigure(t, section("", "10.0.0.1:80"))
			p.turn()
			time.Sleep(3 * time.Second)
			first.Close()
			time.Sleep(pause)
			next := p.mustConfigure(t, section("", "10.0.0.2:80"))
			addresses, _ := listed(next)
			next.Close()
			require.Equal(t, want, addresses, pause)
		})
	}
}
