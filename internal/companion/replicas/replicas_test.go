package replicas_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// resolver has one address for every name, after some panics.
type resolver struct{ panics atomic.Int32 }

func (r *resolver) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if r.panics.Add(-1) >= 0 {
		panic("a defect")
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func (r *resolver) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	panic("a defect of SRV")
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newServer(t *testing.T, waiting *atomic.Int64) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "vllm:num_requests_waiting %d\nvllm:num_requests_running 0\nvllm:kv_cache_usage_perc 0\n", waiting.Load())
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// A panic in one source is logged, that source starts again, and neither the process nor another source ends.
func TestAPanicInASource(t *testing.T) {
	var waiting atomic.Int64
	waiting.Store(3)
	at := newServer(t, &waiting)
	c := replicas.Default()
	name := func(n discover.Name) *discover.Name {
		n.Family, n.Interval = discover.FamilyAuto, 10*time.Millisecond
		return &n
	}
	c.Pools = []replicas.Pool{
		{Name: "host", DNS: name(discover.Name{Pool: "host", Host: "replicas.example", Port: int(at.Port())}), Plan: c.Scrape.Plan},
		{Name: "srv", DNS: name(discover.Name{Pool: "srv", SRV: "_http._tcp.replicas.example"}), Plan: c.Scrape.Plan},
	}
	log, r := new(lockedBuffer), new(resolver)
	r.panics.Store(1)
	found := make(chan string, 100)
	all, err := replicas.New(c, replicas.Options{
		Resolver: r, Log: slog.New(slog.NewTextHandler(log, nil)),
		Found: func(p *replicas.Pool, a *discover.Assignment) { found <- fmt.Sprint(p.Name, len(a.Endpoints)) },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- all.Run(ctx) }()
	require.Equal(t, "host1", <-found)
	require.Equal(t, []string{"pool srv: its list of endpoints could not be read yet"}, await(t, all.Missing, 1))
	require.Eventually(t, func() bool { return bytes.Contains([]byte(log.String()), []byte(`panic="a defect of SRV"`)) }, 10*time.Second, time.Millisecond)
	loaded, failed := all.Lists()
	require.EqualValues(t, 1, loaded)
	require.NotZero(t, failed, "the panic of one lookup is a failed lookup")
	cancel()
	require.NoError(t, <-done)
}

// await waits until f returns n lines.
func await(t *testing.T, f func() []string, n int) (lines []string) {
	require.Eventually(t, func() bool { lines = f(); return len(lines) == n }, 10*time.Second, time.Millisecond)
	return lines
}

func TestPublish(t *testing.T) {
	var waiting atomic.Int64
	waiting.Store(3)
	at := newServer(t, &waiting)
	c := replicas.Default()
	c.Scrape.Interval = 10 * time.Millisecond
	c.Pools = []replicas.Pool{{Name: "llama", Static: []string{at.String(), "127.0.0.1:1"}, Plan: c.Scrape.Plan}}
	all, err := replicas.New(c, replicas.Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { _ = all.Run(ctx) })
	published := make(chan []endpoint.Pool)
	wait.Go(func() {
		all.Publish(ctx, func(pools []endpoint.Pool, _ time.Time) {
			select {
			case published <- pools:
			case <-ctx.Done():
			}
		})
	})
	first := <-published
	require.Len(t, first[0].Endpoints, 2, "the first has every replica, and each was tried")
	ready, _ := (&endpoint.Snapshot{Pools: first}).Process(at.String())
	require.True(t, ready)
	waiting.Store(4)
	for pools := range published {
		if pools[0].Endpoints[1].Gauges.Waiting == 4 || pools[0].Endpoints[0].Gauges.Waiting == 4 {
			break
		}
	}
	<-published // of the heartbeat, at the latest
	cancel()
	wait.Wait()
}

func TestStaticListsAreChecked(t *testing.T) {
	c := replicas.Default()
	c.Pools = []replicas.Pool{{Name: "llama", Static: []string{"replica.example:80"}, Plan: c.Scrape.Plan}}
	all, err := replicas.New(c, replicas.Options{})
	require.NoError(t, err)
	require.ErrorContains(t, all.Run(t.Context()), "is not ip:port")
}
