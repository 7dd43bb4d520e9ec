package scrape

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A page that is no good for one engine may be for one that is tried after it.
func TestDetectionGoesOnBehindAnUnreadablePage(t *testing.T) {
	for name, c := range map[string]struct {
		pages  map[string]answer
		engine string
		want   int // requests that wait
	}{
		"a line that the first cannot read": {
			map[string]answer{"a:1/metrics": {status: 200, body: "vllm:num_requests_waiting many\n" + recording(t, "sglang.txt").body}}, "sglang", 2826,
		},
		"another page alone": {
			map[string]answer{"a:1/metrics": {status: 404}, "a:1/prometheus/metrics": recording(t, "trtllm-serve.txt")}, "trtllm-serve", 1,
		},
		"the usual page, after one that is not there": {
			map[string]answer{"a:1/metrics": recording(t, "triton.txt"), "a:1/prometheus/metrics": {status: 404}}, "triton", 14,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet()
			for url, a := range c.pages {
				f.set(url, a)
			}
			var log strings.Builder
			s, err := New(map[string]Plan{"p": {Engine: Auto}}, Options{
				Interval: interval, Timeout: timeout, Dial: f.dial, Log: slog.New(slog.NewTextHandler(&log, nil)),
			})
			require.NoError(t, err)
			defer s.Close()
			s.SetTargets("p", targets("a:1"))
			<-s.Tried()
			require.True(t, only(t, s).Gauges.Known, name)
			require.Equal(t, c.want, only(t, s).Gauges.Waiting, name)
			f.count("a:1/metrics")
			f.count("a:1/prometheus/metrics")
			time.Sleep(10 * interval)
			require.InDelta(t, 10, f.count("a:1/metrics")+f.count("a:1/prometheus/metrics"), 2, "the engine is known")
			s.Close()
			require.Equal(t, 1, strings.Count(log.String(), "detected the engine"))
			require.Contains(t, log.String(), "endpoint=a:1 engine="+c.engine)
		})
	}
}

// Names of a custom engine may begin others, be the same, or have nothing in common: each is found, and nothing else is.
func TestCustomNames(t *testing.T) {
	for _, names := range [][3]string{
		{"queue", "queue_running", "queue_running_share"},
		{"queue_running_share", "queue_running", "queue"},
		{"queue_running", "queue", "queue_other"},
		{"q", "qq", "qqq"},
		{"a", "b", "c"},
		{"a:x", "a:y", "a"},
	} {
		e := Engine{Waiting: named(names[0]), Running: named(names[1]), KVUse: named(names[2])}
		for _, form := range []string{"%s %v\n", "  %s{a=\"b\"} %v\n"} {
			var text strings.Builder
			for i, value := range []any{3, 5, 0.5} {
				fmt.Fprintf(&text, form, names[i]+"x", 99)
				fmt.Fprintf(&text, form, "x"+names[i], 99)
				fmt.Fprintf(&text, form, names[i], value)
			}
			if names[0] != "q" { // "qx" is none of them, and neither is a name without a value that is shorter
				text.WriteString("#\nz\n")
			}
			got, err := e.Read(strings.NewReader(text.String()))
			require.NoError(t, err, names)
			require.Equal(t, gauges(3, 5, 0.5), got.Gauges, names)
		}
	}
}

// The same for names drawn from few letters, which have much in common.
func TestCustomNamesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[ab]{1,5}`), 3, 3, rapid.ID[string]).Draw(t, "names")
		e := Engine{Waiting: named(names[0]), Running: named(names[1]), KVUse: named(names[2])}
		lines := []string{names[0] + " 3", names[1] + " 5", names[2] + " 0.5"}
		for _, other := range rapid.SliceOf(rapid.StringMatching(`[abc]{1,6}`)).Draw(t, "others") {
			if other != names[0] && other != names[1] && other != names[2] {
				lines = append(lines, other+" 99")
			}
		}
		got, err := e.Read(strings.NewReader(strings.Join(rapid.Permutation(lines).Draw(t, "lines"), "\n")))
		require.NoError(t, err)
		require.Equal(t, gauges(3, 5, 0.5), got.Gauges)
	})
}
