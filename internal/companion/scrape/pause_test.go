package scrape

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The pause doubles with each failure up to its bound, which is never below the interval; it varies by a tenth either way, and what
// an attempt took is part of it, but for a tenth.
func TestPauseAfter(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		interval time.Duration
		failures int
		want     time.Duration
	}{
		{100 * ms, 0, 100 * ms},
		{100 * ms, 1, 200 * ms},
		{100 * ms, 2, 400 * ms},
		{100 * ms, 4, 1600 * ms},
		{100 * ms, 5, longestPause},
		{100 * ms, 1000, longestPause},
		{longestPause / 2, 1, longestPause},
		{3 * longestPause / 4, 1, longestPause},
		{longestPause, 3, longestPause},
		{5 * longestPause, 0, 5 * longestPause},
		{5 * longestPause, 1, 5 * longestPause},
		{5 * longestPause, 9, 5 * longestPause},
	} {
		s := &Scraper{opts: Options{Interval: c.interval}}
		least, most, seen := time.Hour, time.Duration(0), map[time.Duration]bool{}
		for range 1000 {
			d := s.pauseAfter(c.failures, 0)
			least, most = min(least, d), max(most, d)
			seen[d] = true
		}
		tenth := float64(c.want) / 10
		require.InDelta(t, float64(c.want)-tenth, least, tenth/10, "%v", c)
		require.InDelta(t, float64(c.want)+tenth, most, tenth/10, "%v", c)
		require.Greater(t, len(seen), 100, "not in step")

		require.InDelta(t, float64(c.want)/2, s.pauseAfter(c.failures, c.want/2), tenth*1.01, "what it took is part of it")
		require.InDelta(t, tenth, s.pauseAfter(c.failures, 2*c.want), tenth/9, "it is not asked without a break")
		require.InDelta(t, tenth, s.pauseAfter(c.failures, c.want*95/100), tenth, "%v", c)
	}
}

// A replica is ready until an attempt fails more than three intervals after its last good answer, to the nanosecond.
func TestReadinessEndsAfterThreeIntervals(t *testing.T) {
	for after, ready := range map[time.Duration]bool{
		0: true, interval: true, 3 * interval: true, 3*interval + 1: false, time.Hour: false,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet()
			s := start(t, f)
			of := s.pools["llama"]
			p := &poller{key: key{"a:1", of.plan, "vllm", ""}, kind: vllm, mapping: compiled["vllm"], pools: map[*pool]bool{of: true}}
			s.connect(t.Context(), p)
			defer p.own.Close()
			try := func(a answer, health int) {
				f.set("a:1/metrics", a)
				f.set("a:1/health", answer{status: health})
				s.attempt(t.Context(), p)
			}
			good, bad := answer{status: 200, body: exposition("1", "2", "0.5")}, answer{status: 500}
			try(bad, 503)
			require.False(t, p.answered, "it never answered")
			try(good, 503)
			require.True(t, p.answered)
			time.Sleep(after)
			try(bad, 503)
			require.Equal(t, ready, p.answered, after)

			// What a health check says counts as much as what a scrape does.
			try(bad, 200)
			require.True(t, p.answered)
			time.Sleep(after)
			try(bad, 503)
			require.Equal(t, ready, p.answered, after)
		})
	}
}

// What brings the same as before is no change, also with LoRA adapters, which are read again each time.
func TestUnchangedAdaptersAreNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lora := func(running string) answer {
			return answer{status: 200, body: exposition("1", "2", "0.5") + `vllm:lora_requests_info{max_lora="2",running_lora_adapters="` + running + `",waiting_lora_adapters="c"} 5` + "\n"}
		}
		f := newFleet()
		f.set("a:1/metrics", lora("a,b"))
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		synctest.Wait()
		<-s.Changed()
		before := only(t, s).LoRA
		require.Equal(t, []string{"a", "b"}, before.Running)
		time.Sleep(10 * interval)
		select {
		case <-s.Changed():
			t.Fatal("nothing changed")
		default:
		}
		require.Same(t, before, only(t, s).LoRA)
		f.set("a:1/metrics", lora("a"))
		<-s.Changed()
		require.Equal(t, []string{"a"}, only(t, s).LoRA.Running)
	})
}

// A scrape that is given up because the companion ends, or the replica left, is no failure.
func TestAScrapeThatIsGivenUpIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", answer{status: 200, after: time.Hour})
		f.set("b:1/metrics", answer{status: 200, after: time.Hour})
		s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{Interval: interval, Timeout: time.Minute, Dial: f.dial})
		require.NoError(t, err)
		s.SetTargets("llama", targets("a:1", "b:1"))
		time.Sleep(interval)
		s.SetTargets("llama", targets("a:1"))
		<-s.Changed()
		synctest.Wait()
		select {
		case <-s.Changed():
			t.Fatal("nothing changed since")
		default:
		}
		s.Close()
		require.Equal(t, Stats{}, s.Stats()["llama"])
		require.Zero(t, f.count("a:1/health")+f.count("b:1/health"))
	})
}

// A poller that panics starts again, and nobody waits for it.
func TestAPanicOfAPoller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("ill:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
		f.set("well:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
		dials, log := 0, new(lockedLog)
		s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{
			Interval: interval, Timeout: time.Minute, Log: slog.New(slog.NewTextHandler(log, nil)),
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == "ill:1" {
					if dials++; dials < 3 {
						panic("a defect")
					}
				}
				return f.dial(ctx, network, address)
			},
		})
		require.NoError(t, err)
		defer s.Close()
		s.SetTargets("llama", targets("ill:1", "well:1"))
		time.Sleep(interval)
		select {
		case <-s.Tried():
		default:
			t.Fatal("all wait for the one that panics")
		}
		require.False(t, s.Pools(time.Now())[0].Endpoints[0].Ready)
		require.True(t, s.Pools(time.Now())[0].Endpoints[1].Ready)
		time.Sleep(time.Second)
		require.True(t, s.Pools(time.Now())[0].Endpoints[0].Ready)
		require.Equal(t, 2, strings.Count(log.String(), `in="the scrapes of ill:1" panic="a defect"`))
	})
}
