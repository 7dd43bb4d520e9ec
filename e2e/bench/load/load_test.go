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
		if seen.Add(1)%2 == 0 { // also chunked answers
			_, _ = io.WriteString(w, "a")
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 3000))
	}))
	defer s.Close()
	address := s.Listener.Addr().String()

	r, err := Run(t.Context(), address, NewRequest("/", []byte("hello "+Number), [2]string{"x-key", "k"}), 3, 50*time.Millisecond)
	require.NoError(t, err)
	require.EqualValues(t, seen.Load(), r.Requests)
	require.EqualValues(t, seen.Load()*3000+seen.Load()/2, r.Bytes)
	require.Positive(t, r.Rate())
	require.LessOrEqual(t, r.Percentile(0.5), r.Percentile(0.99))

	_, err = Run(t.Context(), address, NewRequest("/", []byte("other")), 1, 50*time.Millisecond)
	require.ErrorContains(t, err, "400")
	require.ErrorContains(t, err, "other request")
}
