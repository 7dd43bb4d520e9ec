package scrape

import (
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// lockedLog is a log that a test reads while replicas are scraped.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lockedLog) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}

// The log has each turn of a replica once, however many scrapes it lasts.
func TestEachTurnIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		f := newFleet()
		s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{
			Interval: interval, Timeout: timeout, Dial: f.dial, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		require.NoError(t, err)
		told := regexp.MustCompile(`(?m)level=(\w+) msg="([^"]*)"(.*)$`)
		during := func(metrics, health answer, want ...string) {
			t.Helper()
			log.Reset()
			f.set("a:1/metrics", metrics)
			f.set("a:1/health", health)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			var got []string
			for _, m := range told.FindAllStringSubmatch(log.String(), -1) {
				got = append(got, strings.Join(m[1:], ""))
			}
			require.Equal(t, want, got)
		}
		good, bad, cut := answer{status: 200, body: exposition("1", "2", "0.5")}, answer{status: 500}, answer{cut: true}
		f.set("a:1/metrics", good)
		s.SetTargets("llama", targets("a:1"))
		const name = " pool=llama endpoint=a:1 "
		during(good, good, "INFOreadiness changed"+name+"ready=true asleep=false")
		during(good, good)
		during(bad, good, "WARNscrape failed"+name+`reason="GET /metrics: status 500"`)
		during(good, good, "INFOscrape succeeded again"+strings.TrimRight(name, " "))
		during(cut, cut, "WARNscrape failed"+name+`reason="the server closed the connection: EOF"`, "INFOreadiness changed"+name+"ready=false asleep=false")
		during(good, good, "INFOscrape succeeded again"+strings.TrimRight(name, " "), "INFOreadiness changed"+name+"ready=true asleep=false")
		s.Close()
	})
}

// Slowness that lasts is told again and again, however many replicas are slow, but at most once in a while.
func TestSlownessThatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		f := newFleet()
		s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{
			Interval: interval, Timeout: timeout, Stale: time.Second, Dial: f.dial, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		require.NoError(t, err)
		for _, a := range []string{"a:1", "b:1"} {
			f.set(a+"/metrics", answer{status: 200, body: exposition("1", "2", "0.5"), after: 800 * time.Millisecond})
		}
		s.SetTargets("llama", targets("a:1", "b:1"))
		time.Sleep(lateEvery)
		synctest.Wait()
		require.Equal(t, 1, strings.Count(log.String(), "raise stale"))
		time.Sleep(2 * lateEvery)
		synctest.Wait()
		require.Equal(t, 3, strings.Count(log.String(), "raise stale"))
		s.Close()
	})
}
