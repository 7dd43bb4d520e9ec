package scrape

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// parsed is an exposition as the parser of the Prometheus project has it.
type parsed map[string]*dto.MetricFamily

func parse(t require.TestingT, text string) parsed {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	return families
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func valueOf(m *dto.Metric) float64 {
	if m.Gauge != nil {
		return m.Gauge.GetValue()
	}
	return m.GetUntyped().GetValue()
}

// byRank are the numbers under the first of the metrics that has any, one for each rank.
func (p parsed) byRank(e Engine, metrics []Metric) []float64 {
	for _, want := range metrics {
		ranks := map[string]map[string]float64{} // by what of the labels counts, then by part
		for i, m := range p[want.Name].GetMetric() {
			v := valueOf(m)
			if want.Label != "" && labelOf(m, want.Label) != want.Value {
				continue
			}
			if want.Read != "" {
				var err error
				if v, err = strconv.ParseFloat(labelOf(m, want.Read), 64); err != nil {
					continue
				}
			}
			if !(v >= 0) || math.IsInf(v, 0) {
				continue
			}
			rank := fmt.Sprint(i)
			if e.Ranks != nil {
				rank = ""
				for _, name := range e.Ranks {
					rank += fmt.Sprintf("%q", labelOf(m, name))
				}
			}
			if ranks[rank] == nil {
				ranks[rank] = map[string]float64{}
			}
			part := ""
			if e.Split != "" {
				part = labelOf(m, e.Split)
			}
			ranks[rank][part] = max(ranks[rank][part], v)
		}
		var values []float64
		for _, parts := range ranks {
			value, isWhole := parts[""]
			if !isWhole {
				value = total(slices.Collect(maps.Values(parts)))
			}
			values = append(values, value)
		}
		if len(values) > 0 && want.Whole {
			return []float64{slices.Max(values)}
		}
		if len(values) > 0 {
			return values
		}
	}
	return nil
}

func total(values []float64) (sum float64) {
	for _, v := range values {
		sum += v
	}
	return sum
}

func mean(values []float64) float64 { return total(values) / max(1, float64(len(values))) }

// judge says what an exposition means: the rules of this package once more, on top of the other parser.
func (p parsed) judge(e Engine) (r Reading, complete bool) {
	values := func(metrics []Metric) []float64 { return p.byRank(e, metrics) }
	for _, metrics := range [][]Metric{e.Waiting, e.Running, e.KVUse} {
		if len(metrics) > 0 && len(values(metrics)) == 0 {
			return Reading{}, false
		}
	}
	r.Gauges = endpoint.Gauges{
		Known: true, Waiting: int(math.Round(total(values(e.Waiting)))), Running: int(math.Round(total(values(e.Running)))),
		KVUse: min(1, mean(values(e.KVUse))),
	}
	r.Cache = p.judgeCache(e)
	if told := values(e.Awake); len(told) > 0 {
		for _, m := range p[e.Awake[0].Name].GetMetric() {
			r.Asleep = r.Asleep || labelOf(m, e.Awake[0].Label) == e.Awake[0].Value && valueOf(m) == 0
		}
	} else {
		for _, m := range e.Asleep {
			r.Asleep = r.Asleep || total(values([]Metric{m})) > 0
		}
	}
	for _, m := range p[processStart].GetMetric() {
		r.Started = max(r.Started, int64(valueOf(m)))
	}
	infos := slices.DeleteFunc(slices.Clone(p[e.LoRA].GetMetric()), func(m *dto.Metric) bool { return !(valueOf(m) >= 0) || math.IsInf(valueOf(m), 0) })
	if len(infos) > 0 {
		slices.SortStableFunc(infos, func(a, b *dto.Metric) int { return cmp.Compare(valueOf(a), valueOf(b)) })
		latest := infos[len(infos)-1]
		r.LoRA = &endpoint.LoRA{Running: split(labelOf(latest, loraRunning))}
		for _, name := range split(labelOf(latest, loraWaiting)) {
			if !slices.Contains(r.LoRA.Running, name) {
				r.LoRA.Waiting = append(r.LoRA.Waiting, name)
			}
		}
		r.LoRA.Max, _ = strconv.Atoi(labelOf(latest, loraMax))
	}
	return r, true
}

func (p parsed) judgeCache(e Engine) endpoint.Cache {
	block, tokens := p.byRank(e, e.BlockTokens), p.byRank(e, e.CacheTokens)
	size := math.Round(mean(block))
	if len(tokens) > 0 && mean(tokens) >= 1 {
		size = max(1, size)
		ranks := max(len(tokens), len(block), len(p.byRank(e, e.Waiting)))
		return endpoint.Cache{BlockTokens: int32(size), Blocks: int32(mean(tokens) * float64(ranks) / size)}
	}
	if n := math.Round(total(p.byRank(e, e.Blocks))); size > 0 && n > 0 {
		return endpoint.Cache{BlockTokens: int32(size), Blocks: int32(n)}
	}
	return endpoint.Cache{}
}

func split(text string) (list []string) {
	for _, name := range strings.Split(text, ",") {
		if name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// On any valid exposition the scanner and prometheus/common agree, for every engine.
func TestReadAgainstExpfmt(t *testing.T) {
	for _, word := range append(detection, Custom) {
		t.Run(word, func(t *testing.T) {
			e := engineNamed(word)
			rapid.Check(t, func(t *rapid.T) {
				text := anyExposition(t, e)
				want, complete := parse(t, text).judge(e)
				got, err := e.Read(strings.NewReader(text))
				if !complete {
					require.ErrorIs(t, err, ErrMissing)
					return
				}
				require.NoError(t, err)
				require.InDelta(t, want.Gauges.KVUse, got.Gauges.KVUse, 1e-12, "the order of the ranks may be another")
				want.Gauges.KVUse = got.Gauges.KVUse
				require.Equal(t, want, got)
			})
		})
	}
}

func TestTestdataAgainstExpfmt(t *testing.T) {
	for _, r := range recordings {
		text, err := os.ReadFile(filepath.Join("testdata", r.file))
		require.NoError(t, err)
		e := engineNamed(r.engine)
		want, complete := parse(t, string(text)).judge(e)
		require.True(t, complete, r.file)
		got, err := e.Read(bytes.NewReader(text))
		require.NoError(t, err)
		require.Equal(t, want, got, r.file)
	}
}

// recorded is what a running vLLM said, beside the simulator that is checked against it.
const recorded = "../../modelsim/sim/testdata/vllm/"

func TestRecordedVLLM(t *testing.T) {
	for file, want := range map[string]Reading{
		"metrics-idle.txt": {Gauges: gauges(0, 0, 0), Cache: endpoint.Cache{BlockTokens: 128, Blocks: 8192}, Started: 1795639536},
		"metrics-busy.txt": {Gauges: gauges(0, 12, 0.010743498962275666), Cache: endpoint.Cache{BlockTokens: 128, Blocks: 8192}, Started: 1795639536, LoRA: &endpoint.LoRA{
			Max: 2, Running: []string{"law", "sql"}, // which it lists among the waiting, too
		}},
		// Two engines with 8,192 blocks each, which both series have as 16,384.
		"metrics-data-parallel.txt": {
			Gauges: gauges(8, 4, (0.0014650225857648635+0.001220852154804053)/2), Cache: endpoint.Cache{BlockTokens: 128, Blocks: 16384},
			LoRA: &endpoint.LoRA{Max: 1, Running: []string{"law"}},
		},
	} {
		text, err := os.ReadFile(recorded + file)
		require.NoError(t, err)
		got, err := vllm.Read(bytes.NewReader(text))
		require.NoError(t, err)
		require.Equal(t, want, got, file)
		judged, complete := parse(t, string(text)).judge(vllm)
		require.True(t, complete)
		require.Equal(t, judged, got, file)
		for _, word := range detection {
			if _, err := engines[word].Read(bytes.NewReader(text)); err == nil {
				require.Equal(t, "vllm", word)
				break
			}
		}
	}
}

// What the scanner saves.
func BenchmarkExpfmt(b *testing.B) {
	text := string(large(b))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if _, err := parser.TextToMetricFamilies(strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
