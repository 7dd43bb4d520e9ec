package scrape

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// fleet stands for the replicas: it hands out connections without a network, so that the tests run in virtual time.
type fleet struct {
	mu       sync.Mutex
	answers  map[string]answer // by host + path
	requests map[string]int
}

type answer struct {
	status int
	body   string
	after  time.Duration
	cut    bool // the connection ends without an answer
}

func newFleet() *fleet {
	return &fleet{answers: map[string]answer{}, requests: map[string]int{}}
}

func (f *fleet) set(url string, a answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[url] = a
}

// count returns how many requests came for a URL since it was last asked.
func (f *fleet) count(url string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.requests[url]
	f.requests[url] = 0
	return n
}

// dial opens a connection to a replica; nobody listens where there is no answer.
func (f *fleet) dial(_ context.Context, _, address string) (net.Conn, error) {
	near, far := net.Pipe()
	go f.serve(far, address)
	return near, nil
}

func (f *fleet) serve(conn net.Conn, address string) {
	defer conn.Close()
	requests := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(requests)
		if err != nil {
			return
		}
		url := address + req.URL.Path
		f.mu.Lock()
		f.requests[url]++
		a, ok := f.answers[url]
		f.mu.Unlock()
		if !ok {
			return
		}
		gone := make(chan struct{})
		go func() { // a client that gives up closes the connection
			defer close(gone)
			_, _ = requests.Peek(1)
		}()
		if a.after > 0 {
			select {
			case <-time.After(a.after):
			case <-gone:
				return
			}
		}
		if a.cut {
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s", a.status, len(a.body), a.body)
		<-gone // the next request has begun
	}
}

const (
	interval = 100 * time.Millisecond
	timeout  = time.Second
)

func start(t *testing.T, f *fleet) *Scraper {
	return startPlans(t, f.dial, map[string]Plan{"llama": {Engine: "vllm"}})
}

func startPlans(t *testing.T, dial http1.DialFunc, plans map[string]Plan) *Scraper {
	s, err := New(plans, Options{Interval: interval, Timeout: timeout, Models: 10 * time.Second, Dial: dial})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func targets(addresses ...string) (list []Target) {
	for _, a := range addresses {
		list = append(list, Target{Address: a, Usable: true})
	}
	return list
}

// only returns the one endpoint that there is.
func only(t *testing.T, s *Scraper) endpoint.Endpoint {
	t.Helper()
	pools := s.Pools(time.Now())
	require.Len(t, pools, 1)
	require.Len(t, pools[0].Endpoints, 1)
	return pools[0].Endpoints[0]
}

func TestGaugesAndTheirAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5"), after: 7 * time.Millisecond})
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		require.Equal(t, endpoint.Endpoint{Address: "a:1"}, only(t, s), "nothing is known before the first answer")
		<-s.Tried()
		got := only(t, s)
		require.Equal(t, endpoint.Endpoint{Address: "a:1", Ready: true, Gauges: endpoint.Gauges{Known: true, Age: 7 * time.Millisecond, Waiting: 1, Running: 2, KVUse: 0.5}}, got)

		for range 20 { // scraped again and again, it stays young
			time.Sleep(37 * time.Millisecond)
			require.LessOrEqual(t, only(t, s).Gauges.Age, interval*11/10+7*time.Millisecond)
		}
	})
}

func TestIntervalIsKeptAndVaried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5"), after: 30 * time.Millisecond})
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		f.count("a:1/metrics")
		time.Sleep(100 * interval)
		require.InDelta(t, 100, f.count("a:1/metrics"), 5, "the time that a scrape takes is part of the interval")
		require.Zero(t, f.count("a:1/health"))
	})
}

// What is told when: a change of gauges or of readiness is, a scrape that brings the same is not.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		synctest.Wait()
		select {
		case <-s.Changed():
		default:
			t.Fatal("the first gauges are a change")
		}
		time.Sleep(10 * interval)
		select {
		case <-s.Changed():
			t.Fatal("nothing changed")
		default:
		}
		f.set("a:1/metrics", answer{status: 200, body: exposition("2", "2", "0.5")})
		<-s.Changed()
		require.Equal(t, 2, only(t, s).Gauges.Waiting)
		s.SetTargets("llama", nil)
		<-s.Changed()
		require.Empty(t, s.Pools(time.Now())[0].Endpoints)
	})
}

func TestReadiness(t *testing.T) {
	good := answer{status: 200, body: exposition("1", "2", "0.5")}
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		require.False(t, only(t, s).Ready, "never answered")

		f.set("a:1/metrics", good)
		time.Sleep(longestPause)
		require.True(t, only(t, s).Ready, "it came up")

		f.set("a:1/metrics", answer{status: 500})
		f.set("a:1/health", answer{status: 200})
		time.Sleep(10 * time.Second)
		e := only(t, s)
		require.True(t, e.Ready, "its metrics fail, its health does not")
		require.Greater(t, e.Gauges.Age, 9*time.Second, "the last gauges stay, and age")
		require.Equal(t, 1, e.Gauges.Waiting)

		f.set("a:1/health", answer{status: 503})
		time.Sleep(longestPause * 2)
		require.False(t, only(t, s).Ready, "both fail")

		f.set("a:1/metrics", good)
		time.Sleep(longestPause * 2)
		require.True(t, only(t, s).Ready, "back again")

		f.set("a:1/metrics", answer{cut: true})
		f.set("a:1/health", answer{cut: true})
		time.Sleep(interval * 2)
		require.True(t, only(t, s).Ready, "one failure is not the end")
		time.Sleep(interval * 8)
		require.False(t, only(t, s).Ready, "a killed replica is found within a second")

		f.set("a:1/metrics", good)
		s.SetTargets("llama", []Target{{Address: "a:1", Usable: false}})
		time.Sleep(longestPause * 2)
		require.False(t, only(t, s).Ready, "the source says that it drains")
		require.True(t, only(t, s).Gauges.Known)
		s.SetTargets("llama", targets("a:1"))
		require.True(t, only(t, s).Ready)
	})
}

// A model server answers /metrics late when it is busy: late is not dead.
func TestASlowReplicaStaysReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5"), after: 900 * time.Millisecond})
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		for range 100 {
			time.Sleep(77 * time.Millisecond)
			require.True(t, only(t, s).Ready)
		}
	})
}

// Gauges that get old by slowness alone, so that the proxies would half forget them, are told, if not of every replica; one that fails is another matter.
func TestSlownessIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		f := newFleet()
		both := func(a answer, during time.Duration) {
			f.set("a:1/metrics", a)
			f.set("b:1/metrics", a)
			time.Sleep(during)
		}
		s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{
			Interval: interval, Timeout: timeout, Stale: time.Second, Dial: f.dial, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		require.NoError(t, err)
		s.SetTargets("llama", targets("a:1", "b:1"))
		quick := answer{status: 200, body: exposition("1", "2", "0.5")}
		slow := quick
		slow.after = 800 * time.Millisecond
		both(slow, 10*time.Second)
		both(quick, 5*time.Second)
		before := s.Stats()["llama"].Late
		require.InDelta(t, 24, before, 5)
		both(answer{cut: true}, 5*time.Second)
		both(quick, 5*time.Second)
		require.Equal(t, before, s.Stats()["llama"].Late, "they were down, which is told elsewhere")
		s.Close()
		require.Equal(t, 1, strings.Count(log.String(), "raise stale"), log.String())
		require.Regexp(t, `level=WARN .* pool=llama endpoint=[ab]:1 age=8\d\dms interval=100ms stale=1s`, log.String())
	})
}

// One that hangs is given up at the timeout, and does not hold up the others.
func TestAHangingReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", answer{status: 200, after: time.Hour})
		f.set("a:1/health", answer{status: 200, after: time.Hour})
		f.set("b:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
		s := start(t, f)
		began := time.Now()
		s.SetTargets("llama", targets("a:1", "b:1"))
		time.Sleep(interval)
		synctest.Wait()
		require.True(t, s.Pools(time.Now())[0].Endpoints[1].Ready)
		require.Equal(t, []string{"pool llama: 1 of 2 endpoints not tried yet"}, s.Missing())
		<-s.Tried()
		require.LessOrEqual(t, time.Since(began), interval+2*timeout)
		require.False(t, s.Pools(time.Now())[0].Endpoints[0].Ready)
		require.Empty(t, s.Missing())
	})
}

func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		time.Sleep(10 * time.Second)
		require.InDelta(t, 8, f.count("a:1/metrics"), 3, "about 0.2, 0.4, 0.8, 1.6, then every 2 s")
	})
}

// A replica that answers without a metric is ready, and its gauges are unknown: neither as before nor low.
func TestAMissingMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "")})
		time.Sleep(2 * interval)
		require.Equal(t, endpoint.Endpoint{Address: "a:1", Ready: true}, only(t, s))
		require.NotZero(t, s.Stats()["llama"].Incomplete)
	})
}

// A change of the list leaves the replicas that stay alone.
func TestSetTargetsKeepsWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		for _, a := range []string{"a:1", "b:1", "c:1"} {
			f.set(a+"/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
		}
		s := start(t, f)
		s.SetTargets("llama", targets("a:1", "b:1"))
		<-s.Tried()
		s.SetTargets("llama", targets("b:1", "c:1"))
		pools := s.Pools(time.Now())
		require.Equal(t, "b:1", pools[0].Endpoints[0].Address)
		require.True(t, pools[0].Endpoints[0].Ready)
		require.Equal(t, endpoint.Endpoint{Address: "c:1"}, pools[0].Endpoints[1])
		time.Sleep(2 * interval)
		synctest.Wait()
		f.count("a:1/metrics")
		time.Sleep(10 * interval)
		require.Zero(t, f.count("a:1/metrics"), "one that left is not asked any more")
		require.True(t, s.Pools(time.Now())[0].Endpoints[1].Ready)
	})
}

// Another replica at the same address starts clean, and the proxies see that it is another one, whatever the sources and metrics say of times.
func TestAnotherReplicaAtTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		s := start(t, f)
		is := func(identity string, started int64) endpoint.Endpoint {
			s.SetTargets("llama", []Target{{Address: "a:1", Usable: true, Identity: identity, Started: started}})
			return only(t, s)
		}
		f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
		require.EqualValues(t, 1000, is("one", 1000).Started)
		time.Sleep(2 * interval)
		before := only(t, s)
		require.True(t, before.Ready)
		require.Equal(t, before, is("one", 1001), "the same one: nothing changed")
		for _, started := range []int64{2000, 2000, 0, 500} {
			after := is(fmt.Sprint("started ", started, " after ", before.Started), started)
			require.False(t, after.Ready)
			require.False(t, after.Gauges.Known)
			require.Greater(t, after.Started, before.Started+endpoint.StartJitter)
			before = after
			time.Sleep(2 * interval)
			require.True(t, only(t, s).Ready)
		}
	})
}

func TestTriedWaitsForEveryPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(map[string]Plan{"a": {Engine: "vllm"}, "b": {Engine: "sglang"}}, Options{Interval: interval, Timeout: timeout, Dial: newFleet().dial})
		require.NoError(t, err)
		defer s.Close()
		require.Equal(t, []string{"pool a: its list of endpoints could not be read yet", "pool b: its list of endpoints could not be read yet"}, s.Missing())
		s.SetTargets("a", nil)
		s.SetTargets("other", targets("x:1")) // not a pool of ours
		select {
		case <-s.Tried():
			t.Fatal("b is not known")
		default:
		}
		s.SetTargets("b", nil)
		<-s.Tried()
		require.Empty(t, s.Missing())
	})
}

func TestUnknownEngine(t *testing.T) {
	_, err := New(map[string]Plan{"p": {Engine: "vlm"}}, Options{})
	require.EqualError(t, err, `pool p: unknown engine "vlm", want one of jetstream, sglang, triton, triton-tensorrt-llm, trtllm, trtllm-serve, vllm, auto, custom`)
}

func TestCloseEndsThePollers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", answer{status: 200, after: time.Hour})
		s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{Interval: interval, Timeout: time.Minute, Dial: f.dial})
		require.NoError(t, err)
		s.SetTargets("llama", targets("a:1"))
		time.Sleep(interval)
		began := time.Now()
		s.Close()
		require.Zero(t, time.Since(began), "a scrape in progress is given up")
		s.SetTargets("llama", targets("b:1"))
		time.Sleep(time.Minute)
		require.Zero(t, f.count("b:1/metrics"))
	}) // and no goroutine is left: synctest would not end
}

// Over real sockets: connections are kept, redirects are not followed.
func TestOverHTTP(t *testing.T) {
	connections := make(map[string]bool)
	var mu sync.Mutex
	asked := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		connections[r.RemoteAddr] = true
		mu.Unlock()
		switch r.URL.Path {
		case "/metrics":
			_, _ = io.WriteString(w, exposition("1", "2", "0.5")+strings.Repeat("# filler\n", 5000))
			asked <- struct{}{}
		case "/moved":
			http.Redirect(w, r, "/metrics", http.StatusFound)
		}
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")

	s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{Interval: time.Millisecond, Timeout: timeout})
	require.NoError(t, err)
	defer s.Close()
	s.SetTargets("llama", targets(address))
	<-s.Tried()
	for range 20 {
		<-asked
	}
	require.True(t, only(t, s).Ready)
	mu.Lock()
	require.Len(t, connections, 1)
	mu.Unlock()

	client := http1.New(t.Context(), http1.Options{Address: address})
	defer client.Close()
	err = client.Get("/moved", s.deadline(), io.Discard)
	require.EqualError(t, err, "GET /moved: status 302")
}

// answering is a replica that costs next to nothing: it writes the same bytes for every request of a connection.
func answering(b *testing.B, body []byte) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	b.Cleanup(func() { listener.Close() })
	answer := append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", len(body)), body...)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				request := make([]byte, 4096) // a request comes in one piece
				for {
					if _, err := conn.Read(request); err != nil {
						return
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// One scrape of 64 KB over a socket. cpu-µs is what the process takes for it, the fake replica's writing included: 1,000 replicas at 100 ms
// are 10,000 scrapes a second, so 100 of it fill one core.
func BenchmarkScrape(b *testing.B) {
	s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{Interval: interval, Timeout: timeout})
	require.NoError(b, err)
	defer s.Close()
	p := &poller{key: key{answering(b, large(b)), s.pools["llama"].plan, "vllm", ""}, mapping: compiled["vllm"]}
	s.connect(b.Context(), p)
	b.ReportAllocs()
	began := cpuTime(b)
	for b.Loop() {
		if _, err := s.scrape(p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-began).Microseconds())/float64(b.N), "cpu-µs/scrape")
}

// A thousand replicas, each scraped once a second by its poller: what the pollers, timers and connections cost on top.
func BenchmarkFleet1000(b *testing.B) {
	address := answering(b, large(b))
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address) // whichever replica is meant
	}
	s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{Interval: time.Second, Timeout: 5 * time.Second, Dial: dial})
	require.NoError(b, err)
	defer s.Close()
	var list []Target
	for i := range 1000 {
		list = append(list, Target{Address: fmt.Sprintf("10.0.%d.%d:8000", i/250, i%250), Usable: true})
	}
	s.SetTargets("llama", list)
	<-s.Tried()
	b.ReportAllocs()
	began, before := cpuTime(b), s.Stats()["llama"].OK
	start := time.Now()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	scrapes := float64(s.Stats()["llama"].OK - before)
	b.ReportMetric(float64((cpuTime(b)-began).Microseconds())/scrapes, "cpu-µs/scrape")
	b.ReportMetric(scrapes/time.Since(start).Seconds(), "scrapes/s")
}
