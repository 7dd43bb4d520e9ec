package guardrail

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

var start = time.Unix(1_800_000_000, 0)

func newBreaker() *breaker { return breakerOf(&filter.Deps{}, "c", "p") }

func TestBreaker(t *testing.T) {
	b := newBreaker()
	lets := func(at time.Duration) bool {
		_, _, ok := b.lets(start.Add(at), time.Second)
		return ok
	}
	for range 2 {
		require.Zero(t, b.failed(start, 3, 10*time.Second))
	}
	require.False(t, b.succeeded(), "it was not open")
	for range 2 {
		require.Zero(t, b.failed(start, 3, 10*time.Second), "they are counted from the last success")
	}
	require.Equal(t, 3, b.failed(start, 3, 10*time.Second))
	require.Zero(t, b.failed(start, 3, 10*time.Second), "a call that was in progress")
	require.False(t, lets(0))
	_, wait, _ := b.lets(start.Add(4*time.Second), time.Second)
	require.Equal(t, 6*time.Second, wait)
	require.True(t, lets(10*time.Second), "half open")
	require.False(t, lets(10*time.Second), "only one")
	require.Equal(t, 5, b.failed(start.Add(10*time.Second), 3, 10*time.Second), "one failure is enough")
	require.False(t, lets(19*time.Second))
	trial, _, ok := b.lets(start.Add(20*time.Second), time.Second)
	require.True(t, ok)
	b.gone(0)
	b.gone(trial - 1)
	require.False(t, lets(20*time.Second), "those that are gone were let through before")
	b.gone(trial)
	require.True(t, lets(20*time.Second), "the one that asked is gone")
	require.True(t, lets(21*time.Second), "the one that asked was never heard of")
	require.True(t, b.succeeded())
	require.True(t, lets(21*time.Second))
	for range 100 {
		require.Zero(t, b.failed(start, 0, time.Second), "switched off")
	}
	require.True(t, lets(0))
}

// TestBreakerLetsOneThrough: whatever happens, a breaker that is not closed lets at most one call through at a time, and one in
// the end.
func TestBreakerLetsOneThrough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now, open := newBreaker(), start, time.Time{}
		var trial time.Time
		calls, last := []int{0}, 0 // the numbers of trials; 0: a call that is none
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			case 1:
				if b.failed(now, 2, 2*time.Second) > 0 {
					open, trial = now.Add(2*time.Second), time.Time{}
				}
			case 2:
				b.succeeded()
				open, trial = time.Time{}, time.Time{}
			case 3:
				number := rapid.SampledFrom(calls).Draw(t, "gone")
				b.gone(number)
				if number == last {
					trial = time.Time{}
				}
			case 4:
				number, _, ok := b.lets(now, time.Second)
				require.Equal(t, open.IsZero() || !now.Before(open) && !now.Before(trial), ok)
				require.Equal(t, ok && !open.IsZero(), number != 0)
				if number != 0 {
					calls, last, trial = append(calls, number), number, now.Add(time.Second)
				}
			}
		}
	})
}

func TestAlarm(t *testing.T) {
	b := newBreaker()
	var news []bool
	for _, refuses := range []bool{false, true, true, false, true} {
		news = append(news, b.alarm(refuses))
	}
	require.Equal(t, []bool{false, true, false, false, true}, news)
}

func TestCache(t *testing.T) {
	c := newCache(time.Second, (&filter.Deps{}).Mutex())
	s := func(i int) sum { return sum{byte(i), byte(i >> 8), byte(i >> 16)} }
	c.put(s(0), provider.Verdict{Blocked: true, Why: []string{"x"}}, start)
	c.put(s(1), provider.Verdict{}, start)
	c.put(s(2), provider.Verdict{Redacted: true, Text: "secret"}, start)
	v, ok := c.get(s(0), start)
	require.True(t, ok)
	require.Equal(t, provider.Verdict{Blocked: true, Why: []string{"x"}}, v)
	_, ok = c.get(s(1), start.Add(time.Second))
	require.False(t, ok, "it is over")
	_, ok = c.get(s(2), start)
	require.False(t, ok, "a redaction has text")
	require.NotContains(t, fmt.Sprint(c), "secret")
	for i := range 3 * mostVerdicts {
		c.put(s(i), provider.Verdict{}, start)
	}
	require.Len(t, c.known, mostVerdicts)
	for i := range 3 * mostVerdicts {
		_, ok = c.get(s(i), start)
		require.Equal(t, i >= 2*mostVerdicts, ok)
	}
}

// TestSums: two questions have the same sum if they are the same, and only under the same key.
func TestSums(t *testing.T) {
	f := &Filter{deps: &filter.Deps{Rand: rand.Uint64}}
	f.makeKey()
	seen := map[sum]string{}
	for _, name := range []string{"a", "ab"} {
		for _, who := range []tenant{{}, {"b", ""}, {"", "b"}, {"bc", ""}, {"b", "c/d"}, {"b/c", "d"}} {
			for _, q := range []provider.Question{
				{},
				{Text: []byte("x")},
				{Text: []byte("x"), Role: "user"},
				{Text: []byte("x"), Role: "system"},
				{Text: []byte("x"), Response: true},
				{Text: []byte("x"), Prompt: []byte("y"), Response: true},
				{Text: []byte("xy"), Response: true},
				{Text: []byte("x"), Model: "m"},
			} {
				s := f.sumOf(name, who, &q)
				require.Empty(t, seen[s])
				seen[s] = "known"
				require.Equal(t, s, f.sumOf(name, who, &q))
			}
		}
	}
	other := &Filter{deps: f.deps}
	other.makeKey()
	require.NotEqual(t, f.sumOf("a", tenant{}, &provider.Question{}), other.sumOf("a", tenant{}, &provider.Question{}))
}

// TestAudits: a state never says more than before, but that what was skipped has been scanned.
func TestAudits(t *testing.T) {
	for was := unasked; was <= failOpen; was++ {
		for _, is := range []audit{partial, failOpen} {
			a := was
			a.less(is)
			require.Equal(t, max(was, is), a)
			before := a
			a.screened()
			require.Equal(t, before, a, "what was not judged stays so")
		}
	}
	a := skipped
	a.screened()
	require.Equal(t, scanned, a)
	a = unasked
	a.screened()
	require.Equal(t, unasked, a)
}
