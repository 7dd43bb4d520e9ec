package wasm

import (
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// fakeStats stands for the host's metrics.
type fakeStats map[string]int64

func (f fakeStats) metric(name string, labels ...string) *metric {
	return newMetric(name, labels, func(series string) recorder {
		return func(n int64) { f[series] += n }
	})
}

func TestLabelsAreWrittenIntoTheName(t *testing.T) {
	for _, c := range []struct {
		labels []string
		values filter.Values
		want   string
	}{
		{nil, filter.Values{}, "requests"},
		{[]string{"pool"}, filter.Values{"llama"}, "requests;pool=llama"},
		{[]string{"model", "pool"}, filter.Values{"", "a"}, "requests;model=;pool=a"},
		{[]string{"model", "pool"}, filter.Values{"a;pool=evil", "b"}, "requests;model=a_pool=evil;pool=b"},
		{[]string{"model"}, filter.Values{"a\n\x00\x7f\"\\é模"}, "requests;model=a___\"\\é模"},
		{[]string{"model"}, filter.Values{"a\xff\xfeb"}, "requests;model=a__b"},
		{[]string{"model"}, filter.Values{strings.Repeat("x", 200)}, "requests;model=" + strings.Repeat("x", 128)},
		{[]string{"model"}, filter.Values{strings.Repeat("x", 127) + "é"}, "requests;model=" + strings.Repeat("x", 127)},
	} {
		stats := fakeStats{}
		stats.metric("requests", c.labels...).Record(3, c.values)
		require.Equal(t, fakeStats{c.want: 3}, stats)
	}
}

func TestSeriesAboveTheLimitAreCountedTogether(t *testing.T) {
	stats := fakeStats{}
	m := stats.metric("requests", "model", "pool")
	for i := range filter.MaxSeries + 50 {
		m.Record(1, filter.Values{strconv.Itoa(i), "p"})
	}
	m.Record(1, filter.Values{"7", "p"})
	require.Len(t, stats, filter.MaxSeries+1)
	require.EqualValues(t, 2, stats["requests;model=7;pool=p"])
	require.EqualValues(t, 50, stats["requests;model=other;pool=other"])
}

// The host's memory behind a header value is not kept for a metric's sake, nor
// believed to stay as it is.
func TestSeriesDoNotAliasTheCallersStrings(t *testing.T) {
	m := fakeStats{}.metric("requests", "model")
	value := []byte("llama")
	m.Record(1, filter.Values{unsafe.String(&value[0], len(value))})
	copy(value, "xxxxx")
	m.Record(1, filter.Values{"llama"})
	require.Len(t, m.series, 1)
}

func TestRecordingAKnownSeriesAllocatesNothing(t *testing.T) {
	m := newMetric("requests", []string{"model"}, func(string) recorder { return func(int64) {} })
	for i := range filter.MaxSeries {
		m.Record(1, filter.Values{strconv.Itoa(i)})
	}
	known, unknown := filter.Values{"7"}, filter.Values{"above the limit"}
	require.Zero(t, testing.AllocsPerRun(100, func() { m.Record(1, known) }))
	m.Record(1, unknown)
	require.Zero(t, testing.AllocsPerRun(100, func() { m.Record(1, unknown) }))
}
