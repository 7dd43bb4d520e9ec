package hosttest

import "maps"

// kind is a kind of metric, numbered as in proxy-wasm.
type kind uint32

const (
	counter kind = iota
	gauge
	histogram
)

// stats are the metrics of one proxy, shared by its workers. They are known by
// their series, see [Series].
type stats struct {
	values map[string]int64
}

func newStats() *stats { return &stats{values: map[string]int64{}} }

// add records n: a counter and a gauge grow by it, a histogram takes it as a
// sample. name and labels are as in Series.
func (s *stats) add(k kind, n int64, name string, labels ...string) {
	if k != histogram {
		s.values[Series(name, labels...)] += n
		return
	}
	s.values[Series(name+"_count", labels...)]++
	s.values[Series(name+"_sum", labels...)] += n
}

// set gives a gauge its value.
func (s *stats) set(n int64, name string, labels ...string) {
	s.values[Series(name, labels...)] = n
}

// copy remembers the present values.
func (s *stats) copy() map[string]int64 { return maps.Clone(s.values) }

// growth is what changed since before.
func (s *stats) growth(before map[string]int64) map[string]int64 {
	grown := map[string]int64{}
	for series, n := range s.values {
		if n != before[series] {
			grown[series] = n - before[series]
		}
	}
	return grown
}
