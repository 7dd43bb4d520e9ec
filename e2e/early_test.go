package e2e_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestEarlyRelease: a request is forwarded while its body is still arriving, and one
// whose rest is refused never arrives whole; over HTTP/1.1 and HTTP/2 on both sides,
// with a length, and without one but with trailers.
func TestEarlyRelease(t *testing.T) {
	for _, abi := range abis {
		for _, upstream := range []string{"HTTP 1.1", "HTTP 2"} {
			t.Run(abi+", upstream "+upstream, func(t *testing.T) {
				r := newUploadee(t)
				pool := &edits{abi: abi, pools: map[string][]string{"one": {r.address}}}
				s := stack.ForTest(t, stack.Options{
					ABI: abi, NoCompanion: true, Pools: []stack.Pool{{Name: "one"}},
					Chain: "filters: [bbr: {models: [{name: m, targets: [{model: renamed, pool: one}]}]}]\ncountTokens: false\n",
					Edit: func(b *bootstrapv3.Bootstrap) {
						pool.apply(b)
						if upstream == "HTTP 2" {
							speakHTTP2(b.GetStaticResources().GetClusters()[0])
						}
					},
				})
				for _, downstream := range []string{"HTTP 1.1", "HTTP 2"} {
					for _, sized := range []bool{true, false} {
						t.Run(framing(downstream, sized), func(t *testing.T) { testEarly(t, s, r, downstream, sized) })
					}
				}
				require.Empty(t, s.EnvoyErrors())
			})
		}
	}
}

func framing(protocol string, sized bool) string {
	if sized {
		return protocol + ", with a length"
	}
	return protocol + ", without a length"
}

// speakHTTP2 makes a cluster use HTTP/2.
func speakHTTP2(c *clusterv3.Cluster) {
	//nolint:staticcheck // the fields that replace these need ten more lines for the same effect
	c.HttpProtocolOptions, c.Http2ProtocolOptions = nil, &corev3.Http2ProtocolOptions{}
}

// uploadee is a replica that reports how much of a request has arrived.
type uploadee struct {
	address string
	got     chan []byte // what has arrived so far, for each piece
	ended   chan ending
}

// ending is how a request ended at the replica.
type ending struct {
	err      error // nil: it is complete
	trailers http.Header
}

func newUploadee(t *testing.T) *uploadee {
	r := &uploadee{got: make(chan []byte, 1<<16), ended: make(chan ending, 1)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.address = l.Addr().String()
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: r, Protocols: &both}
	go func() { _ = server.Serve(l) }() // until Close, which is the only error
	t.Cleanup(func() { _ = server.Close() })
	return r
}

func (r *uploadee) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var body []byte
	piece := make([]byte, 64<<10)
	for {
		n, err := req.Body.Read(piece)
		body = append(body, piece[:n]...)
		r.got <- bytes.Clone(body)
		if err == nil {
			continue
		}
		if err == io.EOF {
			err = nil
		}
		r.ended <- ending{err, req.Trailer}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("content-type", "application/json")
		_, _ = io.WriteString(w, `{"model":"renamed"}`)
		return
	}
}

// until waits until the replica has a request that begins like this.
func (r *uploadee) until(t *testing.T, beginning string) {
	t.Helper()
	wait := time.After(patience)
	for {
		select {
		case body := <-r.got:
			if bytes.HasPrefix(body, []byte(beginning)) {
				return
			}
		case <-wait:
			require.Fail(t, "the request was not forwarded")
		}
	}
}

const (
	firstHalf  = `{"model":"m","messages":[{"role":"user","content":"`
	arrivesFor = `{"model":"renamed","messages":[{"role":"user","content":"`
)

func testEarly(t *testing.T, s *stack.Stack, r *uploadee, protocol string, sized bool) {
	text := strings.Repeat("some words, ", 20_000)
	for _, c := range []struct{ name, rest, code string }{
		{"sound", `"}],"n":12345678901234567890}`, ""},
		{"a second model", `"}],"mod\u0065l":"x"}`, "duplicate_key"},
		{"a second model and more", `"}],"model":"x","p":"` + text + `"}`, "duplicate_key"},
		{"a fault", `"}]]`, "invalid_json"},
		{"a fault and more", `"}]]` + text, "invalid_json"},
		{"no end", `"}]`, "invalid_json"},
		{"more behind the end", `"}]} {`, "invalid_json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer r.forget()
			body := firstHalf + text + c.rest
			from, to := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+chatPath, from)
			require.NoError(t, err)
			req.Header.Set("content-type", "application/json")
			if sized {
				req.ContentLength = int64(len(body))
			} else {
				req.Trailer = http.Header{"X-Trailer": {"1"}}
			}
			transport := &http.Transport{}
			if protocol == "HTTP 2" {
				transport.Protocols = new(http.Protocols)
				transport.Protocols.SetUnencryptedHTTP2(true)
			}
			defer transport.CloseIdleConnections()
			answers := make(chan answer, 1)
			go func() {
				resp, err := transport.RoundTrip(req)
				if err != nil {
					answers <- answer{err: err}
					return
				}
				defer func() { _ = resp.Body.Close() }()
				a := answer{status: resp.StatusCode}
				a.body, a.err = io.ReadAll(resp.Body)
				answers <- a
			}()
			_, err = io.WriteString(to, firstHalf+text)
			require.NoError(t, err)
			r.until(t, arrivesFor+text[:len(text)/2]) // before the rest is sent
			if _, err = io.WriteString(to, c.rest); err == nil {
				_ = to.Close()
			} else {
				require.ErrorIs(t, err, io.ErrClosedPipe) // the response came before
			}
			a := <-answers
			require.NoError(t, a.err)
			if c.code == "" {
				require.Equal(t, http.StatusOK, a.status, string(a.body))
				require.JSONEq(t, `{"model":"m"}`, string(a.body))
				end := r.end(t)
				require.NoError(t, end.err)
				if !sized {
					require.Equal(t, "1", end.trailers.Get("x-trailer"))
				}
				r.until(t, arrivesFor+text+c.rest)
				return
			}
			require.Equal(t, http.StatusBadRequest, a.status, string(a.body))
			require.Contains(t, string(a.body), `"code":"`+c.code+`"`)
			require.Error(t, r.end(t).err, "the replica must not take the request for complete")
		})
	}
}

// end waits for the end of the request at the replica.
func (r *uploadee) end(t *testing.T) ending {
	t.Helper()
	select {
	case e := <-r.ended:
		return e
	case <-time.After(patience):
		require.Fail(t, "no request has ended at the replica")
		return ending{}
	}
}

// forget prepares for the next request.
func (r *uploadee) forget() {
	for {
		select {
		case <-r.got:
		default:
			return
		}
	}
}
