package scrape

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/endpoint"
)

var vllm = engines["vllm"]

// The files in testdata are written after the metrics that vLLM documents, not recorded.
func TestReadVLLM(t *testing.T) {
	for file, want := range map[string]endpoint.Gauges{
		"vllm.txt":               {Known: true, Waiting: 3, Running: 17, KVUse: 0.4375},
		"vllm-v0.txt":            {Known: true, Waiting: 0, Running: 2, KVUse: 0.125},
		"vllm-data-parallel.txt": {Known: true, Waiting: 7, Running: 100, KVUse: 0.625},
	} {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", file))
			require.NoError(t, err)
			got, err := vllm.Read(bytes.NewReader(text))
			require.NoError(t, err)
			require.Equal(t, want, got)

			got, err = vllm.Read(iotest.OneByteReader(bytes.NewReader(text)))
			require.NoError(t, err)
			require.Equal(t, want, got, "byte by byte")
		})
	}
}

// exposition is the three gauges with the given values as written, "" for none.
func exposition(waiting, running, kv string) string {
	var b strings.Builder
	for _, m := range [][2]string{{"vllm:num_requests_waiting", waiting}, {"vllm:num_requests_running", running}, {"vllm:kv_cache_usage_perc", kv}} {
		if m[1] != "" {
			fmt.Fprintf(&b, "%s{engine=\"0\"} %s\n", m[0], m[1])
		}
	}
	return b.String()
}

func TestReadForms(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want endpoint.Gauges
	}{
		"plain":                 {exposition("1", "2", "0.5"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"no labels":             {"vllm:num_requests_waiting 1\nvllm:num_requests_running\t2\nvllm:kv_cache_usage_perc   0.5", endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"no last newline":       {strings.TrimSuffix(exposition("1", "2", "0.5"), "\n"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"timestamps":            {exposition("1 1790000000000", "2 -5", "0.5 0"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"blanks":                {" \tvllm:num_requests_waiting {a=\"b\"}  1 \n" + exposition("", "2", "0.5"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"exponents":             {exposition("1e1", "2.0E+0", "5e-1"), endpoint.Gauges{Waiting: 10, Running: 2, KVUse: 0.5}},
		"braces in labels":      {"vllm:num_requests_waiting{a=\"} 9\",b=\"\\\"} 8\\\\\"} 1\n" + exposition("", "2", "0.5"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"longer names":          {"vllm:num_requests_waiting_by_reason 9\n" + exposition("1", "2", "0.5"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"over the top":          {exposition("1e300", "2", "1.5"), endpoint.Gauges{Waiting: math.MaxInt32, Running: 2, KVUse: 1}},
		"one rank says nothing": {"vllm:kv_cache_usage_perc{engine=\"1\"} NaN\n" + exposition("1", "2", "0.5"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"new name before old":   {"vllm:gpu_cache_usage_perc 0.9\n" + exposition("1", "2", "0.5"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"new name says nothing": {"vllm:gpu_cache_usage_perc 0.9\n" + exposition("1", "2", "NaN"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.9}},
		"a long foreign line":   {"other{a=\"" + strings.Repeat("x", 3*maxLine) + "\"} 1\n" + exposition("1", "2", "0.5"), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
		"a long comment at end": {exposition("1", "2", "0.5") + "# " + strings.Repeat("x", 3*maxLine), endpoint.Gauges{Waiting: 1, Running: 2, KVUse: 0.5}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := vllm.Read(strings.NewReader(c.text))
			require.NoError(t, err)
			c.want.Known = true
			require.Equal(t, c.want, got)
		})
	}
}

func TestReadErrors(t *testing.T) {
	good := exposition("1", "2", "0.5")
	for name, c := range map[string]struct{ text, want string }{
		"empty":             {"", "metric missing: vllm:num_requests_waiting\nmetric missing: vllm:num_requests_running\nmetric missing: vllm:kv_cache_usage_perc"},
		"not metrics":       {"<html>", "metric missing: vllm:num_requests_waiting\nmetric missing: vllm:num_requests_running\nmetric missing: vllm:kv_cache_usage_perc"},
		"no kv":             {exposition("1", "2", ""), "metric missing: vllm:kv_cache_usage_perc"},
		"kv not a number":   {exposition("1", "2", "NaN"), "metric missing: vllm:kv_cache_usage_perc"},
		"queue infinite":    {exposition("+Inf", "2", "0.5"), "metric missing: vllm:num_requests_waiting"},
		"running negative":  {exposition("1", "-2", "0.5"), "metric missing: vllm:num_requests_running"},
		"no value":          {good + "vllm:num_requests_waiting\n", `vllm:num_requests_waiting: value "" is not a number`},
		"a word":            {good + "vllm:num_requests_running many\n", `vllm:num_requests_running: value "many" is not a number`},
		"labels cut off":    {good + "vllm:num_requests_waiting{a=\"} 1\n", "vllm:num_requests_waiting: labels do not end"},
		"a long line of us": {"vllm:num_requests_waiting{a=\"" + strings.Repeat("x", maxLine) + "\"} 1\n", "a line over 64 KiB"},
		"endless":           {strings.Repeat("other 1\n", maxExposition/8+1), "exposition over 8 MiB"},
		"endless line":      {strings.Repeat("other 1 ", maxExposition/8+maxLine), "exposition over 8 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := vllm.Read(strings.NewReader(c.text))
			require.EqualError(t, err, c.want)
			require.Zero(t, got)
		})
	}
	_, err := vllm.Read(io.MultiReader(strings.NewReader(good), iotest.ErrReader(io.ErrUnexpectedEOF)))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "a cut connection is not a short exposition")
}

func TestEngines(t *testing.T) {
	require.Equal(t, []string{"vllm"}, Engines())
	for word, e := range engines {
		for _, names := range [][]string{e.waiting, e.running, e.kvUse} {
			require.NotEmpty(t, names)
			require.LessOrEqual(t, len(names), len(signal{}.sum), "%s: room for that many names", word)
			for _, name := range names {
				require.True(t, strings.HasPrefix(name, e.prefix), "%s: %s would never be looked at", word, name)
			}
		}
	}
}

// anyExposition draws a valid exposition with our metrics among others, in many series, with hostile label values.
func anyExposition(t *rapid.T) string {
	names := []string{
		"vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc",
		"vllm:num_requests_waiting_total", "vllm:prompt_tokens", "process_cpu_seconds", "a",
	}
	label := rapid.OneOf(rapid.String(), rapid.StringMatching(`[{}",\\ 0-9=]*`), rapid.Just("vllm:num_requests_waiting 7"))
	escape := strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`)
	blank := rapid.SampledFrom([]string{" ", "  ", "\t"})
	var b strings.Builder
	for _, name := range rapid.Permutation(names).Draw(t, "order") {
		if rapid.IntRange(0, 4).Draw(t, "left out") == 0 {
			continue
		}
		if rapid.Bool().Draw(t, "help") {
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", name, strings.NewReplacer("\\", `\\`, "\n", `\n`).Replace(label.Draw(t, "text")), name)
		}
		for i := range rapid.IntRange(1, 5).Draw(t, "series") {
			b.WriteString(name)
			fmt.Fprintf(&b, `{engine="%d",model_name="%s"}`, i, escape.Replace(label.Draw(t, "label")))
			b.WriteString(blank.Draw(t, "blank"))
			b.WriteString(strconv.FormatFloat(rapid.OneOf(
				rapid.Float64Range(0, 100), rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 0}),
			).Draw(t, "value"), 'g', -1, 64))
			if rapid.Bool().Draw(t, "timestamp") {
				b.WriteString(" 1790000000000")
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// judge says what gauges a list of samples by name makes: the rules of this package once more, on top of another parser.
func judge(samples map[string][]float64) (endpoint.Gauges, bool) {
	sumOf := func(names ...string) (sum float64, n int) {
		for _, name := range names {
			for _, v := range samples[name] {
				if v >= 0 && !math.IsInf(v, 0) {
					sum, n = sum+v, n+1
				}
			}
			if n > 0 {
				break
			}
		}
		return sum, n
	}
	waiting, n1 := sumOf("vllm:num_requests_waiting")
	running, n2 := sumOf("vllm:num_requests_running")
	kv, n3 := sumOf("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
	if n1 == 0 || n2 == 0 || n3 == 0 {
		return endpoint.Gauges{}, false
	}
	return endpoint.Gauges{
		Known: true, Waiting: int(math.Round(waiting)), Running: int(math.Round(running)), KVUse: min(1, kv/float64(n3)),
	}, true
}

// sample is the grammar of the text format, as its documentation has it.
var sample = regexp.MustCompile(`(?m)^[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*(?:\{(?:[^"}]*"(?:[^"\\\n]|\\.)*"[ \t]*,?)*[ \t]*\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?[ \t]*$`)

func TestReadAgainstTheGrammar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := anyExposition(t)
		samples := map[string][]float64{}
		for _, m := range sample.FindAllStringSubmatch(text, -1) {
			value, err := strconv.ParseFloat(m[2], 64)
			require.NoError(t, err)
			samples[m[1]] = append(samples[m[1]], value)
		}
		want, complete := judge(samples)
		got, err := vllm.Read(strings.NewReader(text))
		if !complete {
			require.ErrorIs(t, err, ErrMissing)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(exposition("1", "2", "0.5")))
	f.Add([]byte("vllm:num_requests_waiting{a=\"\\\"} 1 2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := vllm.Read(bytes.NewReader(text))
		if err != nil {
			require.Zero(t, g)
			return
		}
		require.True(t, g.Known && g.Waiting >= 0 && g.Running >= 0 && g.KVUse >= 0 && g.KVUse <= 1)
	})
}

// large is an exposition of the size that a replica with one model and its histograms has.
func large() []byte {
	var b bytes.Buffer
	for h := range 12 {
		for i := range 40 {
			fmt.Fprintf(&b, "vllm:some_histogram_%d_seconds_bucket{engine=\"0\",le=\"%d\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"} %d.0\n", h, i, i*h)
		}
	}
	for i := range 120 {
		fmt.Fprintf(&b, "http_request_duration_seconds_bucket{handler=\"/v1/chat/completions\",le=\"%d\",method=\"POST\"} 1.0\n", i)
	}
	b.WriteString(exposition("3.0", "17.0", "0.4375"))
	return b.Bytes()
}

func BenchmarkRead(b *testing.B) {
	text := large()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := vllm.Read(bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
