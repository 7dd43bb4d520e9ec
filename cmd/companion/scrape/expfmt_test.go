package scrape

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// samplesOf parses an exposition with the parser of the Prometheus project.
func samplesOf(t require.TestingT, text string) map[string][]float64 {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	samples := map[string][]float64{}
	for name, family := range families {
		for _, m := range family.Metric {
			switch {
			case m.Gauge != nil:
				samples[name] = append(samples[name], m.Gauge.GetValue())
			case m.Untyped != nil:
				samples[name] = append(samples[name], m.Untyped.GetValue())
			}
		}
	}
	return samples
}

// On any valid exposition the scanner and prometheus/common agree.
func TestReadAgainstExpfmt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := anyExposition(t)
		want, complete := judge(samplesOf(t, text))
		got, err := vllm.Read(strings.NewReader(text))
		if !complete {
			require.ErrorIs(t, err, ErrMissing)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestTestdataAgainstExpfmt(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		want, complete := judge(samplesOf(t, string(text)))
		require.True(t, complete, file)
		got, err := vllm.Read(bytes.NewReader(text))
		require.NoError(t, err)
		require.Equal(t, want, got, file)
	}
}

// What the scanner saves.
func BenchmarkExpfmt(b *testing.B) {
	text := string(large())
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if _, err := parser.TextToMetricFamilies(strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
