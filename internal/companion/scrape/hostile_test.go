package scrape

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// hostile are replicas that no scraper should meet, by what they do with a connection on which a request came.
var hostile = map[string]func(net.Conn){
	"endless": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		forever(c, strings.Repeat("filler 1\n", 1000))
	},
	"100 MB": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
		forever(c, strings.Repeat("filler 1\n", 1000))
	},
	"one endless line": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nvllm:num_requests_waiting{a=\"")
		forever(c, strings.Repeat("x", 10000))
	},
	"endless chunks": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		forever(c, strings.Repeat("1\r\n\n\r\n", 1000))
	},
	"endless header": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		forever(c, strings.Repeat("a: b\r\n", 1000))
	},
	"a bomb": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"+bomb)
	},
	"drip": func(c net.Conn) {
		for _, b := range []byte("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat(" ", 100000)) {
			time.Sleep(timeout / 20)
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
		}
	},
	"silence": func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
	"no HTTP": func(c net.Conn) { _, _ = io.WriteString(c, "\x00\xff\xfe hello") },
	"wrong chunks": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	},
	"redirect": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: /metrics\r\nContent-Length: 0\r\n\r\n")
	},
	"not UTF-8": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n\xff\xfe{\"\xc0\xaf\"} 1\nvllm:num_requests_waiting{a=\"\xff\"} \xff\n")
	},
}

// bomb is 27 MB, packed.
var bomb = zipped(strings.Repeat("filler 1\n", 3_000_000))

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	z.Close()
	return b.String()
}

func forever(c net.Conn, text string) {
	for b := []byte(text); ; {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// Each of them costs no more than the timeout and a bounded memory, and tells nothing.
func TestHostileReplicas(t *testing.T) {
	for name, answer := range hostile {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startPlans(t, func(context.Context, string, string) (net.Conn, error) {
					near, far := net.Pipe()
					go func() {
						defer far.Close()
						if _, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
							answer(far)
						}
					}()
					return near, nil
				}, map[string]Plan{"p": {Engine: "vllm"}})
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				began := time.Now()
				s.SetTargets("p", targets("a:1"))
				<-s.Tried()
				require.LessOrEqual(t, time.Since(began), interval+2*timeout, "the scrape and the look at its health")
				runtime.ReadMemStats(&after)
				require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(20<<20))
				got := only(t, s)
				got.Ready = false // one of them answers /health well
				require.Equal(t, endpoint.Endpoint{Address: "a:1"}, got)
				s.Close()
				time.Sleep(timeout) // for the one that drips to see it
			})
		})
	}
}

// Of 2,000 replicas half are down, refusing, silent or dripping in turn: the others' gauges are as fresh as before.
func TestHalfOfALargeFleetIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		var list []Target
		for i := range 2000 {
			address := fmt.Sprintf("%04d:1", i)
			list = append(list, Target{Address: address, Usable: true})
			if i%2 == 0 {
				f.set(address+"/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
			}
		}
		var open, most atomic.Int32
		s := startPlans(t, func(ctx context.Context, network, address string) (net.Conn, error) {
			var n int
			_, _ = fmt.Sscanf(address, "%d:1", &n)
			switch n % 8 {
			case 1:
				return nil, errors.New("connection refused")
			case 3: // a host that is not there
				<-ctx.Done()
				return nil, ctx.Err()
			}
			near, far := net.Pipe()
			most.Store(max(most.Load(), open.Add(1)))
			counted := &closing{Conn: near, closed: func() { open.Add(-1) }}
			if n%8 == 5 {
				go hostile["silence"](far)
			} else {
				go f.serve(far, address)
			}
			return counted, nil
		}, map[string]Plan{"p": {Engine: "vllm"}})
		s.SetTargets("p", list)
		<-s.Tried()
		for range 8 {
			time.Sleep(interval)
			for i, e := range s.Pools(time.Now())[0].Endpoints {
				require.Equal(t, i%2 == 0, e.Ready, e.Address)
				if e.Ready {
					require.LessOrEqual(t, e.Gauges.Age, interval*12/10)
				}
			}
		}
		require.LessOrEqual(t, most.Load(), int32(2000))
		s.SetTargets("p", nil)
		synctest.Wait()
		require.Zero(t, open.Load(), "no connection is left")
	})
}

type closing struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *closing) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}
