package scrape

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Metrics of something else, or of a server that is still loading, are no evidence: its health is asked.
func TestMetricsWithoutTheEngines(t *testing.T) {
	foreign := answer{status: 200, body: "# HELP python_info x\nprocess_start_time_seconds 1.79e9\n"}
	partial := answer{status: 200, body: exposition("1", "2", "")}
	for name, c := range map[string]struct {
		metrics answer
		health  *answer // nil: the connection ends
		want    bool
	}{
		"loading":                      {foreign, &answer{status: 503}, false},
		"well":                         {foreign, &answer{status: 200}, true},
		"not ready, by Triton":         {foreign, &answer{status: 400}, false},
		"broken":                       {foreign, &answer{status: 500}, false},
		"no such path":                 {foreign, &answer{status: 404}, true},
		"not for us":                   {foreign, &answer{status: 401}, true},
		"silent":                       {foreign, &answer{status: 200, after: time.Hour}, false},
		"gone":                         {foreign, nil, false},
		"empty":                        {answer{status: 200}, &answer{status: 503}, false},
		"not metrics":                  {answer{status: 200, body: "<html>"}, &answer{status: 503}, false},
		"a gauge is missing":           {partial, &answer{status: 200}, true},
		"a gauge is missing, loading":  {partial, &answer{status: 503}, false},
		"a gauge is missing, no path":  {partial, &answer{status: 404}, true},
		"a gauge is missing, no reply": {partial, nil, true},
	} {
		for _, engine := range []string{"vllm", Auto} {
			t.Run(name+", "+engine, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if engine == Auto && c.metrics == partial {
						c.want = c.want && c.health != nil // whose gauges these are is not known
					}
					f := newFleet()
					f.set("a:1/metrics", c.metrics)
					if c.health != nil {
						f.set("a:1/health", *c.health)
					}
					s := startPlans(t, f.dial, map[string]Plan{"llama": {Engine: engine}})
					s.SetTargets("llama", targets("a:1"))
					<-s.Tried()
					require.Equal(t, c.want, only(t, s).Ready)
					require.False(t, only(t, s).Gauges.Known)

					f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "0.5")})
					time.Sleep(2 * (longestPause + 2*timeout))
					require.True(t, only(t, s).Ready, "it came up")
					f.count("a:1/health")
					time.Sleep(20 * interval)
					require.Zero(t, f.count("a:1/health"), "with gauges nobody asks")

					f.set("a:1/metrics", c.metrics)
					time.Sleep(2 * (longestPause + 2*timeout))
					require.Equal(t, c.want, only(t, s).Ready)
				})
			})
		}
	}
}

// A replica whose metrics are elsewhere is judged by its own port.
func TestMetricsOfAnotherPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:8080/metrics", answer{status: 200, body: "ray_node_cpu_count 8\n"})
		f.set("a:1/-/healthz", answer{status: 503})
		s := startPlans(t, f.dial, map[string]Plan{"llama": {Engine: "vllm", Port: 8080, Health: "/-/healthz"}})
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		require.False(t, only(t, s).Ready)
		f.set("a:1/-/healthz", answer{status: 200})
		time.Sleep(2 * longestPause)
		require.True(t, only(t, s).Ready)
	})
}

// A server that was put to sleep answers all but requests. It takes part again once it is awake.
func TestASleeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := func(awake int) answer {
			return answer{status: 200, body: exposition("0", "0", "0") + fmt.Sprintf("vllm:engine_sleep_state{engine=\"0\",sleep_state=\"awake\"} %d\n", awake)}
		}
		f := newFleet()
		f.set("a:1/health", answer{status: 200})
		began := map[int64]bool{}
		f.set("a:1/metrics", state(0))
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		require.False(t, only(t, s).Ready, "asleep from the start")
		for range 2 {
			f.set("a:1/metrics", state(1))
			time.Sleep(2 * interval)
			require.True(t, only(t, s).Ready)
			began[only(t, s).Started] = true
			select {
			case <-s.Changed():
			default:
			}
			f.set("a:1/metrics", state(0))
			<-s.Changed()
			require.False(t, only(t, s).Ready)
			f.count("a:1/metrics")
			time.Sleep(20 * interval)
			require.InDelta(t, 20, f.count("a:1/metrics"), 3, "it is scraped as often as before, so that its waking is seen")
		}
		require.Len(t, began, 2, "what it had is gone with each sleep")
		f.set("a:1/metrics", answer{status: 500})
		time.Sleep(10 * time.Second)
		require.False(t, only(t, s).Ready, "nobody says that it is awake")
	})
}

func TestProcessStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		for _, c := range []struct {
			line string
			want int64
		}{
			{"", 0},
			{"process_start_time_seconds 1.79e+09\n", 1_790_000_000},
			{"process_start_time_seconds 1790000001.9\n", 1_790_000_000}, // a clock that was set
			{"process_start_time_seconds 1789999998.5\n", 1_790_000_000},
			{"", 1_790_000_000},
			{"process_start_time_seconds 1.7900001e+09\n", 1_790_000_100},
		} {
			f.set("a:1/metrics", answer{status: 200, body: c.line + exposition("1", "2", "0.5")})
			time.Sleep(2 * longestPause)
			require.Equal(t, c.want, only(t, s).Started, c.line)
		}
		asleep := answer{status: 200, body: "process_start_time_seconds 1.7900001e+09\nvllm:engine_sleep_state{sleep_state=\"awake\"} 0\n" + exposition("0", "0", "0")}
		f.set("a:1/metrics", asleep)
		time.Sleep(2 * interval)
		slept := only(t, s).Started
		require.NotEqualValues(t, 1_790_000_100, slept, "its cache was emptied")
		time.Sleep(2 * longestPause)
		f.set("a:1/metrics", answer{status: 200, body: "process_start_time_seconds 1.7900001e+09\n" + exposition("0", "0", "0")})
		time.Sleep(2 * interval)
		require.Equal(t, slept, only(t, s).Started, "it woke, and is the same")
		f.set("a:1/metrics", answer{status: 200, body: "process_start_time_seconds 1.7900002e+09\n" + exposition("0", "0", "0")})
		time.Sleep(2 * interval)
		require.EqualValues(t, 1_790_000_200, only(t, s).Started)

		f.set("a:1/metrics", answer{status: 200, body: exposition("1", "2", "")})
		time.Sleep(2 * longestPause)
		require.EqualValues(t, 1_790_000_200, only(t, s).Started, "what was known stays known")
	})
}

func startedAt(seconds float64, more string) answer {
	return answer{status: 200, body: exposition("0", "0", "0") + fmt.Sprintf("process_start_time_seconds %.2f\n", seconds) + more}
}

// Several processes answer at one port, each of which tells its own start: that is no restart with each scrape.
func TestSeveralProcessesAtOnePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", startedAt(1000, ""))
		s := start(t, f)
		s.SetTargets("llama", targets("a:1"))
		<-s.Tried()
		seen := map[int64]bool{}
		for i := range 40 {
			f.set("a:1/metrics", startedAt(float64(1000+500*(i%2)), ""))
			time.Sleep(2 * interval)
			seen[only(t, s).Started] = true
		}
		require.LessOrEqual(t, len(seen), 2, "%v", seen)
		require.EqualValues(t, 1500, only(t, s).Started)
	})
}

// A process whose clock is behind that of the one before, and one that had slept by a clock that is ahead: what is told is later all the same.
func TestAnEarlierStartAfterAFailure(t *testing.T) {
	for _, asleep := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet()
			f.set("a:1/metrics", startedAt(1000, ""))
			s := start(t, f)
			s.SetTargets("llama", targets("a:1"))
			<-s.Tried()
			if asleep {
				f.set("a:1/metrics", startedAt(1000, "vllm:engine_sleep_state{sleep_state=\"awake\"} 0\n"))
				time.Sleep(2 * interval)
			}
			before := only(t, s).Started
			f.set("a:1/metrics", answer{status: 500})
			f.set("a:1/health", answer{status: 200})
			time.Sleep(2 * interval)
			f.set("a:1/metrics", startedAt(500, ""))
			time.Sleep(2 * longestPause)
			require.Greater(t, only(t, s).Started, before+endpoint.StartJitter)
		})
	}
}

// What two companions report about one process is one start to who hears both, also if one of them never saw it sleep.
func TestTwoCompanionsTellOneStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:1/metrics", startedAt(1000.9, ""))
		one := start(t, f)
		one.SetTargets("llama", targets("a:1"))
		<-one.Tried()
		f.set("a:1/metrics", startedAt(1000.9, "vllm:engine_sleep_state{sleep_state=\"awake\"} 0\n"))
		time.Sleep(3 * interval)
		f.set("a:1/metrics", startedAt(1001.1, ""))
		time.Sleep(3 * interval)
		two := start(t, f)
		two.SetTargets("llama", targets("a:1"))
		<-two.Tried()
		var l endpoint.Life
		for range 10 {
			for _, s := range []*Scraper{one, two} {
				e := only(t, s)
				require.True(t, e.Ready)
				require.False(t, l.See(e.Ready, e.Started, time.Now()))
			}
			time.Sleep(interval)
		}
	})
}

// A server that tells no start is down between two attempts that are far apart. That its port refuses is seen, and who was away for long
// is another process.
func TestARefusedConnection(t *testing.T) {
	sglang := answer{status: 200, body: "sglang:num_queue_reqs 0\nsglang:num_running_reqs 0\nsglang:token_usage 0\n"}
	for name, c := range map[string]struct {
		refuses func(address string) bool
		another bool
	}{
		"its port":            {func(string) bool { return true }, true},
		"that of its metrics": {func(address string) bool { return address == "a:8080" }, false},
		"none":                {func(string) bool { return false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				f.set("a:8080/metrics", sglang)
				f.set("a:1/health", answer{status: 200})
				var down atomic.Bool
				dial := func(ctx context.Context, network, address string) (net.Conn, error) {
					if down.Load() && c.refuses(address) {
						return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
					}
					return f.dial(ctx, network, address)
				}
				s, err := New(map[string]Plan{"llama": {Engine: "sglang", Port: 8080}}, Options{Interval: 2 * time.Second, Timeout: time.Second, Dial: dial})
				require.NoError(t, err)
				t.Cleanup(s.Close)
				s.SetTargets("llama", targets("a:1"))
				<-s.Tried()
				var l endpoint.Life
				another := 0
				look := func(d time.Duration) {
					for range d / (100 * time.Millisecond) {
						time.Sleep(100 * time.Millisecond)
						e := only(t, s)
						if l.See(e.Ready, e.Started, time.Now()) {
							another++
						}
					}
				}
				look(10 * time.Second)
				down.Store(true)
				f.set("a:8080/metrics", answer{cut: true})
				look(5 * time.Second)
				down.Store(false)
				f.set("a:8080/metrics", sglang)
				look(10 * time.Second)
				require.True(t, only(t, s).Ready)
				require.Equal(t, c.another, another == 1, another)
			})
		})
	}
}
