package http1

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// piped is a connection on which the given pieces come, whatever is asked, and then its end.
func piped(pieces ...string) DialFunc {
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			if _, err := http.ReadRequest(bufio.NewReader(far)); err != nil {
				return
			}
			for _, p := range pieces {
				if _, err := io.WriteString(far, p); err != nil {
					return
				}
			}
		}()
		return near, nil
	}
}

func newClient(ctx context.Context, dial DialFunc) *Client {
	return New(ctx, Options{Address: "a:1", Dial: dial})
}

// ask gets one answer that comes in the given pieces.
func ask(t require.TestingT, pieces ...string) (body string, kept bool, err error) {
	c := newClient(context.Background(), piped(pieces...))
	defer c.Close()
	var b strings.Builder
	err = c.Get("/metrics", time.Now().Add(time.Minute), &b)
	require.Nil(t, c.large, "the piece was given back")
	return b.String(), c.conn != nil, err
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	z.Close()
	return b.String()
}

func TestAnswers(t *testing.T) {
	packed := zipped(strings.Repeat("hello ", 1000))
	for name, c := range map[string]struct {
		answer string
		body   string
		kept   bool
		err    string
	}{
		"length":               {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true, ""},
		"no reason, bare feed": {"HTTP/1.1 200\ncontent-length:5\n\nhello", "hello", true, ""},
		"empty":                {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true, ""},
		"to the end":           {"HTTP/1.1 200 OK\r\n\r\nhello", "hello", false, ""},
		"HTTP/1.0":             {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", false, ""},
		"close":                {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\nhello", "hello", false, ""},
		"chunked":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n", "hello", true, ""},
		"a long chunk line":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 252) + "\r\nhello\r\n0\r\n\r\n", "hello", true, ""},
		"trailer":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhellohello\r\n0\r\nx: y\r\n\r\n", "hellohello", true, ""},
		"chunked and length":   {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", false, ""},
		"more than said":       {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello", "hell", false, ""},
		"informational":        {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true, ""},
		"packed":               {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(packed), packed), strings.Repeat("hello ", 1000), true, ""},
		"redirect":             {"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 5\r\n\r\nhello", "", true, "GET /metrics: status 302"},
		"error to the end":     {"HTTP/1.1 503 Busy\r\n\r\nhello", "", false, "GET /metrics: status 503"},
		"long error":           {"HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000000), "", false, "GET /metrics: status 500"},
		"not changed":          {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", true, "GET /metrics: status 304"},
		"another status":       {"HTTP/1.1 303 See Other\r\n\r\nhello", "", false, "GET /metrics: status 303"},
		"nothing to say":       {"HTTP/1.1 204 No Content\r\n\r\n", "", true, "GET /metrics: status 204"},

		"nothing":               {"", "", false, "the server closed the connection: EOF"},
		"half a header":         {"HTTP/1.1 200 OK\r\nContent-", "", false, "unexpected EOF"},
		"half a body":           {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", "hello", false, "unexpected EOF"},
		"half a chunk":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello", "hello", false, "unexpected EOF"},
		"no last chunk":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "hello", false, "unexpected EOF"},
		"a wrong chunk":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n", "", false, "malformed chunked body"},
		"no end of a chunk":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n", "hell", false, "malformed chunked body"},
		"a negative chunk":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", "", false, "malformed chunked body"},
		"an endless size":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("0", 100000), "", false, "malformed chunked body"},
		"a chunk line too long": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 253) + "\r\nhello\r\n0\r\n\r\n", "", false, "malformed chunked body"},
		"an endless trailer":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("a: b\r\n", 100000), "", false, "malformed chunked body"},
		"an endless header":     {"HTTP/1.1 200 OK\r\n" + strings.Repeat("a: b\r\n", 100000), "", false, "the response header exceeds 64 KiB"},
		"two lengths":           {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "", false, `invalid or conflicting Content-Length "6"`},
		"a negative length":     {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "", false, `invalid or conflicting Content-Length "-5"`},
		"another coding":        {"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\nhello", "", false, `unsupported Content-Encoding "br"`},
		"another transfer":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nhello", "", false, `unsupported Transfer-Encoding "gzip, chunked"`},
		"packed, but it isn't":  {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", "", false, "unexpected EOF"},
		"no field":              {"HTTP/1.1 200 OK\r\nhello\r\n\r\n", "", false, `malformed header field "hello"`},
		"another protocol":      {"SSH-2.0-OpenSSH_9.2p1 Debian\r\n\r\n", "", false, `not an HTTP/1 response: it begins with "SSH-2.0-OpenSSH_9.2p1 Debian"`},
		"of that form":          {"HTTQ/1.1 200 OK\r\n\r\n", "", false, `not an HTTP/1 response: it begins with "HTTQ/1.1 200 OK"`},
		"HTTP/2":                {"HTTP/2.0 200 OK\r\n\r\n", "", false, `not an HTTP/1 response: it begins with "HTTP/2.0 200 OK"`},
		"no status":             {"HTTP/1.1\r\n\r\n", "", false, `not an HTTP/1 response: it begins with "HTTP/1.1"`},
		"half a status":         {"HTTP/1.1 20\r\n\r\n", "", false, `not an HTTP/1 response: it begins with "HTTP/1.1 20"`},
		"a long status":         {"HTTP/1.1 2000\r\n\r\n", "", false, `not an HTTP/1 response: it begins with "HTTP/1.1 2000"`},
		"a low status":          {"HTTP/1.1 099 x\r\n\r\n", "", false, `not an HTTP/1 response: it begins with "HTTP/1.1 099 x"`},
		"no number":             {"HTTP/1.1 2x0 OK\r\n\r\n", "", false, `not an HTTP/1 response: it begins with "HTTP/1.1 2x0 OK"`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, pieces := range [][]string{{c.answer}, strings.Split(c.answer, "")} {
				if len(pieces) > 10000 || name == "more than said" && len(pieces) > 1 { // what is more may come later
					continue
				}
				body, kept, err := ask(t, pieces...)
				require.Equal(t, c.body, body)
				require.Equal(t, c.kept, kept, "the connection can be used again")
				if c.err == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, c.err)
				}
			}
		})
	}
}

// However an answer is framed, packed and cut, its body is what was sent.
func TestAnswersOfAnyShape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Repeat(rapid.StringN(1, 50, -1).Draw(t, "text"), rapid.SampledFrom([]int{0, 1, 3, 3000}).Draw(t, "times"))
		sent, head := text, "HTTP/1.1 200 OK\r\n"
		if rapid.Bool().Draw(t, "packed") {
			sent, head = zipped(text), head+"Content-Encoding: gzip\r\n"
		}
		switch rapid.IntRange(0, 2).Draw(t, "framing") {
		case 0:
			sent = fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(sent), sent)
		case 1:
			sent = head + "\r\n" + sent
		case 2:
			var b strings.Builder
			for rest := sent; rest != ""; {
				n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
				fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			sent = head + "Transfer-Encoding: chunked\r\n\r\n" + b.String() + "0\r\n\r\n"
		}
		var pieces []string
		for rest := sent; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		body, _, err := ask(t, pieces...)
		require.NoError(t, err)
		require.Equal(t, text, body)
	})
}

// A header ends at the same place wherever the search for it was interrupted.
func TestASearchForTheEndOfAHeaderGoesOn(t *testing.T) {
	for header, want := range map[string]int{
		"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody\n\n": 25, "HTTP/1.1 200\nA: b\n\nbody": 19, "\r\nbody": 2, "\n": 1,
		"A\r\r\n\r\n": 6, "A\r\n\r\r\n": 0, "A\n\r": 0, "": 0,
	} {
		for searched := range max(1, want) {
			require.Equal(t, want, headLength([]byte(header), searched), "%q from %d", header, searched)
		}
	}
}

// A client that once read a long header keeps no more memory than another.
func TestAClientKeepsNoLongHeader(t *testing.T) {
	long := "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("a", 60<<10) + "\r\nContent-Length: 5\r\n\r\nhello"
	c := newClient(t.Context(), piped(long))
	defer c.Close()
	var b strings.Builder
	require.NoError(t, c.Get("/metrics", time.Now().Add(time.Minute), &b))
	require.Equal(t, "hello", b.String())
	require.NotNil(t, c.conn, "it is kept")
	require.Equal(t, headSize, len(c.small))
	require.Equal(t, headSize, len(c.buf))
}

// What both this reader and net/http's take, they read alike.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nx: y\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 200 OK\n\nhello"))
	f.Add([]byte("HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nhello"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		body, _, err := ask(t, string(answer))
		resp, otherErr := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if err != nil || otherErr != nil || resp.StatusCode != 200 || len(resp.Header["Content-Encoding"]) > 0 {
			return
		}
		if other, err := io.ReadAll(resp.Body); err == nil {
			require.Equal(t, string(other), body)
		}
	})
}

// A replica closes a connection that was idle for long: the request is made once more, on a new one, and only then.
func TestAConnectionThatIsGone(t *testing.T) {
	var dials atomic.Int32
	serving := atomic.Bool{}
	serving.Store(true)
	c := newClient(t.Context(), func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		if !serving.Load() {
			return piped()(ctx, network, address)
		}
		return piped("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")(ctx, network, address)
	})
	defer c.Close()
	for i := range 3 {
		require.NoError(t, c.Get("/", time.Now().Add(time.Minute), io.Discard))
		require.EqualValues(t, i+1, dials.Load(), "kept, found closed, opened again")
	}
	serving.Store(false)
	require.ErrorIs(t, c.Get("/", time.Now().Add(time.Minute), io.Discard), errGone)
	require.EqualValues(t, 4, dials.Load())
	require.ErrorIs(t, c.Get("/", time.Now().Add(time.Minute), io.Discard), errGone)
	require.EqualValues(t, 5, dials.Load(), "a new one that fails is no reason to try again")
}

func TestAClientEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newClient(ctx, func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }() // takes the request and never answers
			return near, nil
		})
		defer c.Close()
		done := make(chan error)
		go func() { done <- c.Get("/", time.Now().Add(time.Hour), io.Discard) }()
		synctest.Wait()
		cancel()
		require.Error(t, <-done)
	})
}

// Over a real TLS connection an answer comes in records, over a real socket in segments.
func TestLargeAnswersOverTLS(t *testing.T) {
	ca := newAuthority(t)
	text := strings.Repeat("filler 1\n", 300000)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		}
		_, _ = io.WriteString(w, text)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue("ip", "127.0.0.1")}}
	server.StartTLS()
	defer server.Close()
	c := New(t.Context(), Options{Address: server.Listener.Addr().String(), Access: &Access{TLS: &TLS{CAFile: ca.file("ca.pem")}}})
	defer c.Close()
	var conn net.Conn
	for _, path := range []string{"/length", "/chunked", "/length"} {
		var got strings.Builder
		require.NoError(t, c.Get(path, time.Now().Add(time.Minute), &got))
		require.True(t, got.String() == text, path)
		if conn != nil {
			require.Same(t, conn, c.conn, "the connection is kept")
		}
		conn = c.conn
	}
}
