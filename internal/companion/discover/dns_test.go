package discover_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/inlet-proxy/inlet/internal/companion/discover"
)

// records answers in place of the DNS.
type records struct {
	mu      sync.Mutex
	hosts   map[string][]netip.Addr
	broken  map[string]error // by host
	srv     []*net.SRV
	err     error
	srvErr  error
	lookups []time.Time
}

func (r *records) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *records) asked() (n int) {
	r.set(func() { n = len(r.lookups) })
	return n
}

func (r *records) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookups = append(r.lookups, time.Now())
	if r.err != nil {
		return nil, r.err
	}
	if err := r.broken[host]; err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, a := range r.hosts[host] {
		if network == "ip" || (network == "ip4") == a.Is4() {
			found = append(found, a)
		}
	}
	if len(found) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return found, nil
}

func (r *records) LookupSRV(_ context.Context, service, proto, _ string) (string, []*net.SRV, error) {
	if service != "" || proto != "" {
		return "", nil, errors.New("the name is whole")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return "", r.srv, errors.Join(r.err, r.srvErr)
}

var (
	errServfail = &net.DNSError{Err: "server misbehaving", Name: "x", IsTemporary: true}
	errNXDomain = &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}
)

func ips(texts ...string) (list []netip.Addr) {
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

func TestLookup(t *testing.T) {
	r := &records{
		hosts: map[string][]netip.Addr{
			"both": ips("10.0.0.2", "2001:db8::1", "10.0.0.1"), "six": ips("2001:db8::1"), "mapped": ips("::ffff:10.0.0.9"), "twice": ips("10.0.0.1", "10.0.0.1"),
		},
		srv: []*net.SRV{{Target: "both.", Port: 81}, {Target: "twice", Port: 82}, {Target: "twice.", Port: 82}},
	}
	for name, c := range map[string]struct {
		name discover.Name
		want []string
	}{
		"IPv4 if there is any": {discover.Name{Host: "both", Port: 80, Family: "auto"}, []string{"10.0.0.1:80", "10.0.0.2:80"}},
		"else IPv6":            {discover.Name{Host: "six", Port: 80, Family: "auto"}, []string{"[2001:db8::1]:80"}},
		"IPv6":                 {discover.Name{Host: "both", Port: 80, Family: "ipv6"}, []string{"[2001:db8::1]:80"}},
		"IPv4":                 {discover.Name{Host: "both", Port: 80, Family: "ipv4"}, []string{"10.0.0.1:80", "10.0.0.2:80"}},
		"IPv4 in IPv6":         {discover.Name{Host: "mapped", Port: 80, Family: "auto"}, []string{"10.0.0.9:80"}},
		"each once":            {discover.Name{Host: "twice", Port: 80, Family: "auto"}, []string{"10.0.0.1:80"}},
		"SRV":                  {discover.Name{SRV: "_http._tcp.x", Family: "auto"}, []string{"10.0.0.1:81", "10.0.0.1:82", "10.0.0.2:81"}},
	} {
		got, err := c.name.Lookup(t.Context(), r)
		require.NoError(t, err, name)
		require.Equal(t, c.want, addresses(&discover.Assignment{Endpoints: got}), name)
		for _, e := range got {
			require.True(t, e.Usable)
		}
	}
	r.srv = []*net.SRV{{Target: "both.", Port: 81, Priority: 10}, {Target: "twice", Port: 82, Priority: 20}, {Target: "six", Port: 81}, {Target: "both", Port: 81, Priority: 5}}
	got, err := discover.Name{SRV: "_http._tcp.x"}.Lookup(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, []discover.Endpoint{
		{Address: "10.0.0.1:81", Usable: true, Priority: 5},
		{Address: "10.0.0.1:82", Usable: true, Priority: 20},
		{Address: "10.0.0.2:81", Usable: true, Priority: 5},
		{Address: "[2001:db8::1]:81", Usable: true},
	}, got)

	r.srv = []*net.SRV{{Target: "."}}
	got, err = discover.Name{SRV: "_http._tcp.x"}.Lookup(t.Context(), r)
	require.NoError(t, err)
	require.Empty(t, got)
	r.srv = []*net.SRV{{Target: "none", Port: 1}}
	_, err = discover.Name{SRV: "_http._tcp.x"}.Lookup(t.Context(), r)
	require.EqualError(t, err, "target of _http._tcp.x: lookup none: no such host")
	r.srv = []*net.SRV{{Target: "both."}}
	_, err = discover.Name{SRV: "_http._tcp.x"}.Lookup(t.Context(), r)
	require.EqualError(t, err, "target of _http._tcp.x: both has port 0")
}

// A target that cannot be resolved is left out and said; the rest is there.
func TestTargetsThatAreLeftOut(t *testing.T) {
	const srv = "_http._tcp.x"
	r := &records{
		hosts:  map[string][]netip.Addr{"a": ips("10.0.0.1"), "c": ips("10.0.0.3")},
		broken: map[string]error{"slow": &net.DNSError{Err: "i/o timeout", Name: "slow", IsTimeout: true}},
	}
	for name, c := range map[string]struct {
		targets []string
		err     error // of the records
		want    []string
		skipped string
	}{
		"none is missing":          {[]string{"a.", "c."}, nil, []string{"10.0.0.1:80", "10.0.0.3:80"}, ""},
		"one without an address":   {[]string{"a.", "b.", "c."}, nil, []string{"10.0.0.1:80", "10.0.0.3:80"}, "target of _http._tcp.x: lookup b: no such host"},
		"one cannot be asked for":  {[]string{"slow.", "c."}, nil, []string{"10.0.0.3:80"}, "target of _http._tcp.x: lookup slow: i/o timeout"},
		"two of them":              {[]string{"b.", "slow.", "c."}, nil, []string{"10.0.0.3:80"}, "target of _http._tcp.x: lookup b: no such host\nlookup slow: i/o timeout"},
		"a name that is none":      {[]string{"a."}, &net.DNSError{Err: "invalid names", Name: srv}, []string{"10.0.0.1:80"}, "lookup _http._tcp.x: invalid names"},
		"not available and one is": {[]string{".", "a."}, nil, []string{"10.0.0.1:80"}, ""},
		"one at port 0":            {[]string{"a.", "c.:0"}, nil, []string{"10.0.0.1:80"}, "target of _http._tcp.x: c has port 0"},
		"one host at two ports":    {[]string{"a.:0", "a."}, nil, []string{"10.0.0.1:80"}, "target of _http._tcp.x: a has port 0"},
	} {
		t.Run(name, func(t *testing.T) {
			r.set(func() {
				r.srv, r.srvErr = nil, c.err
				for _, target := range c.targets {
					target, portless := strings.CutSuffix(target, ":0")
					record := &net.SRV{Target: target, Port: 80}
					if portless {
						record.Port = 0
					}
					r.srv = append(r.srv, record)
				}
			})
			n := discover.Name{Pool: "p", SRV: srv, Family: "auto", Interval: time.Second}
			got, err := n.Lookup(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, c.want, addresses(&discover.Assignment{Endpoints: got}))
			asked, err := n.Ask(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, got, asked.Endpoints)
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, r, n)
				time.Sleep(time.Minute)
				require.Equal(t, [][]string{c.want}, f.took())
				if c.skipped == "" {
					require.NoError(t, asked.Skipped)
					require.Zero(t, f.failed)
					return
				}
				require.EqualError(t, asked.Skipped, c.skipped)
				require.Equal(t, 1, f.failed, "counted once")
				require.Equal(t, 1, strings.Count(f.log.String(), "level=ERROR"), f.log)
			})
		})
	}
}

// What was known of a target stays while nobody can say more, and for the first answers that it is gone.
func TestATargetThatFailsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = time.Second
		r := &records{
			hosts: map[string][]netip.Addr{"a": ips("10.0.0.1"), "b": ips("10.0.0.2")}, broken: map[string]error{},
			srv: []*net.SRV{{Target: "a", Port: 80}, {Target: "b", Port: 80, Priority: 1}, {Target: "b", Port: 81, Priority: 1}},
		}
		f := follow(t, r, discover.Name{Pool: "p", SRV: "_http._tcp.x", Family: "auto", Interval: interval})
		time.Sleep(2 * interval)
		require.Equal(t, [][]string{{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:81"}}, f.took())
		r.set(func() { r.broken["b"] = errServfail })
		time.Sleep(20 * interval)
		require.Empty(t, f.took(), "it cannot be asked")
		r.set(func() { r.broken["b"], r.hosts["b"] = nil, nil })
		time.Sleep(3 * interval / 2)
		require.Empty(t, f.took(), "it may be back in a moment")
		time.Sleep(3 * interval)
		require.Equal(t, [][]string{{"10.0.0.1:80"}}, f.took())
		r.set(func() { r.hosts["b"], r.srv = ips("10.0.0.2"), r.srv[1:] })
		time.Sleep(2 * interval)
		require.Equal(t, [][]string{{"10.0.0.2:80", "10.0.0.2:81"}}, f.took(), "a target that is no longer listed is gone at once")
		r.set(func() { r.srvErr, r.srv = errServfail, nil })
		time.Sleep(20 * interval)
		require.Empty(t, f.took(), "nor can the records")
		r.set(func() { r.srvErr = errNXDomain })
		time.Sleep(5 * interval)
		require.Equal(t, [][]string{nil}, f.took(), "there are none any more")
	})
}

// A pool that was scaled to zero has no records: some answers in a row that say so are believed. A server that fails says nothing.
func TestScaledToZero(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *records)
		want   [][]string
	}{
		"no such name":   {func(r *records) { r.err = errNXDomain }, [][]string{nil}},
		"no addresses":   {func(r *records) { r.hosts["h"] = nil }, [][]string{nil}},
		"server failure": {func(r *records) { r.err = errServfail }, nil},
		"timeout":        {func(r *records) { r.err = &net.DNSError{Err: "i/o timeout", IsTimeout: true} }, nil},
		"a search that ends in a timeout": {func(r *records) {
			r.err = &net.DNSError{Err: "no such host", IsNotFound: true, IsTemporary: true}
		}, nil},
		"another error":     {func(r *records) { r.err = errors.New("connection refused") }, nil},
		"A gone, AAAA left": {func(r *records) { r.hosts["h"] = ips("2001:db8::1") }, [][]string{{"[2001:db8::1]:80"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const interval = time.Second
				r := &records{hosts: map[string][]netip.Addr{"h": ips("10.0.0.1", "2001:db8::1")}}
				f := follow(t, r, discover.Name{Pool: "p", Host: "h", Port: 80, Family: "auto", Interval: interval})
				time.Sleep(2 * interval)
				require.Equal(t, [][]string{{"10.0.0.1:80"}}, f.took())
				r.set(func() { c.change(r) })
				time.Sleep(3 * interval / 2)
				if len(c.want) > 0 {
					require.Empty(t, f.took(), "one answer is not believed")
				}
				time.Sleep(20 * interval)
				require.Equal(t, c.want, f.took())
				r.set(func() { r.err, r.hosts["h"] = nil, ips("10.0.0.9") })
				time.Sleep(2 * interval)
				require.Equal(t, [][]string{{"10.0.0.9:80"}}, f.took(), "scaled up again")
			})
		})
	}
}

// One answer without A records, while there are AAAA records, does not move a pool to other addresses and back.
func TestOneAnswerWithoutIPv4(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = time.Second
		r := &records{hosts: map[string][]netip.Addr{"h": ips("10.0.0.1", "2001:db8::1")}}
		f := follow(t, r, discover.Name{Pool: "p", Host: "h", Port: 80, Family: "auto", Interval: interval})
		time.Sleep(interval / 2)
		require.Equal(t, [][]string{{"10.0.0.1:80"}}, f.took())
		for range 10 {
			r.set(func() { r.hosts["h"] = ips("2001:db8::1") })
			time.Sleep(3 * interval / 2)
			r.set(func() { r.hosts["h"] = ips("10.0.0.1", "2001:db8::1") })
			time.Sleep(3 * interval / 2)
		}
		require.Empty(t, f.took())
	})
}

// Answers that say nothing lie between two that there is no such name: then they are not in a row.
func TestNotFoundNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = time.Second
		r := &records{hosts: map[string][]netip.Addr{"h": ips("10.0.0.1")}}
		f := follow(t, r, discover.Name{Pool: "p", Host: "h", Port: 80, Family: "ipv4", Interval: interval})
		time.Sleep(interval / 2)
		require.Equal(t, [][]string{{"10.0.0.1:80"}}, f.took())
		for i := range 20 {
			r.set(func() { r.err = []error{errNXDomain, errServfail, nil}[i%3] })
			for n := r.asked(); n == r.asked(); {
				time.Sleep(interval / 20)
			}
		}
		require.Empty(t, f.took())
	})
}

// followed runs Resolve and notes what it calls with.
type followed struct {
	mu     sync.Mutex
	lists  [][]string
	failed int
	log    *lockedBuffer
}

func follow(t *testing.T, r discover.Resolver, names ...discover.Name) *followed {
	f := &followed{log: new(lockedBuffer)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		discover.Resolve(ctx, names, r, slog.New(slog.NewTextHandler(f.log, nil)),
			func(_ string, a *discover.Assignment) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.lists = append(f.lists, addresses(a))
			},
			func(string, error) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.failed++
			})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

// took returns the lists since it was last asked.
func (f *followed) took() [][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	lists := f.lists
	f.lists = nil
	return lists
}

func TestResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 5 * time.Second
		r := &records{hosts: map[string][]netip.Addr{"h": ips("10.0.0.1")}}
		f := follow(t, r, discover.Name{Pool: "p", Host: "h", Port: 80, Family: "auto", Interval: interval})
		synctest.Wait()
		require.Equal(t, [][]string{{"10.0.0.1:80"}}, f.took(), "at once")

		time.Sleep(100 * interval)
		require.Empty(t, f.took(), "the same list is told once")
		r.set(func() {
			require.InDelta(t, 100, len(r.lookups), 3)
			pauses := map[time.Duration]bool{}
			for i, at := range r.lookups[1:] {
				pause := at.Sub(r.lookups[i])
				require.InDelta(t, interval, pause, float64(interval/10))
				pauses[pause] = true
			}
			require.Greater(t, len(pauses), 90, "varied")
			r.hosts["h"] = ips("10.0.0.2", "10.0.0.1")
		})
		time.Sleep(2 * interval)
		require.Equal(t, [][]string{{"10.0.0.1:80", "10.0.0.2:80"}}, f.took())

		r.set(func() { r.err = errors.New("server misbehaving") })
		time.Sleep(10 * interval)
		require.Empty(t, f.took(), "the last good list stays")
		r.set(func() { r.err = errNXDomain })
		time.Sleep(10 * interval)
		require.Equal(t, [][]string{nil}, f.took(), "it is told again and again that there is none")
		require.Equal(t, 2, f.failed, "each reason is told once")
		require.Equal(t, 2, strings.Count(f.log.String(), "level=ERROR"))
		r.set(func() { r.err, r.hosts["h"] = nil, ips("10.0.0.3") })
		time.Sleep(2 * interval)
		require.Equal(t, [][]string{{"10.0.0.3:80"}}, f.took())
	})
}

// A service without replicas has no records: that must not hold up the other pools. One that cannot be asked is another thing.
func TestANameThatIsNotThereYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &records{hosts: map[string][]netip.Addr{}, err: errors.New("server misbehaving")}
		f := follow(t, r, discover.Name{Pool: "p", Host: "h", Port: 80, Family: "auto", Interval: time.Second})
		time.Sleep(time.Minute)
		require.Empty(t, f.took())
		r.set(func() { r.err = nil })
		time.Sleep(2 * time.Second)
		require.Equal(t, [][]string{nil}, f.took())
		r.set(func() { r.hosts["h"] = ips("10.0.0.1") })
		time.Sleep(2 * time.Second)
		require.Equal(t, [][]string{{"10.0.0.1:80"}}, f.took())
	})
}

// dnsServer answers A and SRV questions on a loopback socket, as RFC 1035 and 2782 have it.
func dnsServer(t *testing.T) *net.Resolver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if answer, err := answerDNS(buffer[:n]); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func answerDNS(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil, errors.Join(err, errors.New("not a question"))
	}
	q := m.Questions[0]
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	add := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5}, Body: body})
	}
	switch {
	case q.Name.String() == "replicas.example." && q.Type == dnsmessage.TypeA:
		add(&dnsmessage.AResource{A: [4]byte{10, 0, 0, 2}})
		add(&dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}})
	case q.Name.String() == "replicas.example." || strings.HasSuffix(q.Name.String(), "failing.example.") && q.Type != dnsmessage.TypeA:
	case strings.HasSuffix(q.Name.String(), "failing.example."):
		m.RCode = dnsmessage.RCodeServerFailure
	case q.Name.String() == "_http._tcp.replicas.example." && q.Type == dnsmessage.TypeSRV:
		add(&dnsmessage.SRVResource{Port: 8001, Target: dnsmessage.MustNewName("replicas.example.")})
		add(&dnsmessage.SRVResource{Port: 8002, Target: dnsmessage.MustNewName("replicas.example.")})
	default:
		m.RCode = dnsmessage.RCodeNameError
	}
	return m.Pack()
}

// With Go's own resolver, over a socket.
func TestLookupOverDNS(t *testing.T) {
	r := dnsServer(t)
	got, err := discover.Name{Host: "replicas.example.", Port: 8000, Family: "auto"}.Lookup(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1:8000", "10.0.0.2:8000"}, addresses(&discover.Assignment{Endpoints: got}))

	got, err = discover.Name{SRV: "_http._tcp.replicas.example.", Family: "auto"}.Lookup(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1:8001", "10.0.0.1:8002", "10.0.0.2:8001", "10.0.0.2:8002"}, addresses(&discover.Assignment{Endpoints: got}))

	var dns *net.DNSError
	for _, host := range []string{"none.example.", "2001:db8::1"} {
		_, err = discover.Name{Host: host, Port: 8000, Family: "ipv4"}.Lookup(t.Context(), r)
		require.Error(t, err, host)
	}
	_, err = discover.Name{Host: "none.example.", Port: 8000, Family: "auto"}.Lookup(t.Context(), r)
	require.ErrorAs(t, err, &dns)
	require.True(t, dns.IsNotFound)

	// The server fails for A and has no AAAA: of both together Go's resolver would say that there is no such host.
	for _, host := range []string{"failing.example", "failing.example."} {
		_, err = discover.Name{Host: host, Port: 8000, Family: "auto"}.Lookup(t.Context(), r)
		require.ErrorAs(t, err, &dns)
		require.False(t, dns.IsNotFound, host)
	}

	got, err = discover.Name{Host: "2001:db8::1", Port: 8000, Family: "auto"}.Lookup(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, []string{"[2001:db8::1]:8000"}, addresses(&discover.Assignment{Endpoints: got}))
}

func TestStatic(t *testing.T) {
	got, err := discover.Static([]string{"[2001:DB8::1]:80", "10.0.0.1:80", "10.0.0.1:80"})
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1:80", "[2001:db8::1]:80"}, addresses(got))
	for _, bad := range []string{"", "10.0.0.1", "10.0.0.1:0", "replica:80"} {
		_, err := discover.Static([]string{bad})
		require.Error(t, err, bad)
	}
}
