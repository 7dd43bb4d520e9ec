package filter

import (
	"strings"
	"unicode/utf8"
)

// Values are the label values of one sample, in the order of the label names.
// An array, so that recording allocates nothing.
type Values [3]string

// Metric takes samples. A counter and a gauge add n (a gauge's n may be
// negative), a histogram records n.
type Metric interface {
	Record(n int64, v Values)
}

// Metrics defines metrics. At most three labels each. A label whose values a
// client controls is capped by the implementation: after [MaxSeries] series of
// one metric, further ones are counted under "other".
type Metrics interface {
	Counter(name string, labels ...string) Metric
	Gauge(name string, labels ...string) Metric
	Histogram(name string, labels ...string) Metric
}

// MaxSeries is the number of label combinations that one metric may have.
const MaxSeries = 1000

// maxLabelValue is the length at which a label value is cut, in bytes.
const maxLabelValue = 128

// LabelValue returns s as a label value that no scraper stumbles over, whatever
// a client made of it: valid UTF-8 without control characters, at most 128
// bytes, and without ';', which ends a label in the stat names of the wasm
// build. Adapters call it once for each new series.
func LabelValue(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == ';' || r < ' ' || r == 0x7f || r == utf8.RuneError {
			r = '_'
		}
		if b.Len()+utf8.RuneLen(r) > maxLabelValue {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
