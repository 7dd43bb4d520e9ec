package relay_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// pipes is a listener whose connections are in memory, so that they obey the test's clock.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A proxy on a slow line has some time for what it tells; one that lets it trickle in forever is given up.
func TestATellHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{})
		listener := make(pipes)
		server := &http.Server{Handler: r}
		served := make(chan error)
		go func() { served <- server.Serve(listener) }()
		body := endpoint.AppendReport(nil, &endpoint.Report{Notes: note(1, 2)})
		for _, pause := range []time.Duration{2 * time.Second, time.Hour} {
			client, conn := net.Pipe()
			listener <- conn
			began, over := time.Now(), make(chan struct{})
			go func() {
				fmt.Fprintf(client, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", endpoint.ReportPath("a"), len(body))
				_, _ = client.Write(body[:3])
				select {
				case <-time.After(pause):
					_, _ = client.Write(body[3:])
				case <-over:
				}
			}()
			answer, err := http.ReadResponse(bufio.NewReader(client), nil)
			require.NoError(t, err)
			require.NoError(t, answer.Body.Close())
			if pause < time.Minute {
				require.Equal(t, http.StatusNoContent, answer.StatusCode)
			} else {
				require.Equal(t, http.StatusBadRequest, answer.StatusCode)
				require.Less(t, time.Since(began), 10*time.Second)
			}
			close(over)
			require.NoError(t, client.Close())
		}
		require.EqualValues(t, 1, r.Stats().Relay.Reports)
		close(listener)
		require.ErrorIs(t, <-served, net.ErrClosed)
	})
}

// A tell that breaks off is refused, and nothing of it counts.
func TestATellThatBreaksOff(t *testing.T) {
	r := relay.New(relay.Options{})
	r.Publish(newFleet(1).now())
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodPost, endpoint.ReportPath("a"), iotest.ErrReader(errors.New("reset"))))
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Empty(t, r.Proxies())
	require.EqualValues(t, 1, r.Stats().Relay.Refused)
}

// A proxy that was away while another one died is told, also when the dead one is forgotten altogether by then.
func TestADeadProxyIsTakenBackFromWhoWasAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{Heartbeat: 24 * time.Hour, MaxWait: time.Minute, Lease: time.Second})
		f := newFleet(2)
		r.Publish(f.now())
		l := listener{id: "l"}
		tell(t, r, "dead", []int64{4})
		l.poll(t, r)
		require.Equal(t, []int64{4, 0}, l.peers())
		version := l.have.Version
		time.Sleep(lease)
		r.Publish(f.now())
		time.Sleep(2 * time.Minute)
		r.Publish(f.now())
		require.Empty(t, r.Proxies(), "forgotten")
		l.poll(t, r)
		require.Equal(t, version, l.have.Version)
		require.Equal(t, []int64{0, 0}, l.peers())
		require.Equal(t, http.StatusNotModified, get(r, l.path(0)).Code)
	})
}
