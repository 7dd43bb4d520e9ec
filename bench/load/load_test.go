package load

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	var seen atomic.Int64
	var bodies sync.Map
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		number, ok := strings.CutPrefix(string(body), "hello ")
		if _, known := bodies.LoadOrStore(number, true); known || !ok || len(number) != len(Number) || r.Header.Get("x-key") != "k" {
			http.Error(w, "other request", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, "a")
		if seen.Add(1)%2 == 0 { // also chunked responses
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 2999))
	}))
	defer s.Close()
	l := Load{
		Address: s.Listener.Addr().String(), Request: NewRequest("/", []byte("hello "+Number), [2]string{"x-key", "k"}),
		Answer: 3000, Conns: 3,
	}

	r, err := l.Run(t.Context(), 50*time.Millisecond)
	require.NoError(t, err)
	require.EqualValues(t, seen.Load(), r.Requests)
	require.Positive(t, r.Rate())
	require.LessOrEqual(t, r.Percentile(0.5), r.Percentile(0.99))

	l.Answer = 2999
	_, err = l.Run(t.Context(), 50*time.Millisecond)
	require.ErrorContains(t, err, "3000 bytes, want 2999")

	l.Request = NewRequest("/", []byte("other"))
	_, err = l.Run(t.Context(), 50*time.Millisecond)
	require.ErrorContains(t, err, "400")
	require.ErrorContains(t, err, "other request")
}
