package scrape

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/inlet-proxy/inlet/shared/endpoint"
)

const (
	maxExposition = 8 << 20  // bytes of one answer; a vLLM replica with a few models has about 100 KiB
	maxLine       = 64 << 10 // bytes of a line that is looked at
	maxMetrics    = 4        // metrics that can tell one signal
)

var (
	// ErrMissing says that the exposition lacks a metric. A missing gauge is never taken for a low one.
	ErrMissing = errors.New("metric missing")
	// ErrTooLarge says that the exposition is larger than any real one.
	ErrTooLarge = fmt.Errorf("exposition over %d MiB", maxExposition>>20)
)

// Read reads from the text exposition format of Prometheus, version 0.0.4. It looks at the lines that it needs and no others: the rest,
// nearly all of it, is histograms.
func (e Engine) Read(r io.Reader) (Reading, error) {
	return compile(e).read(bufio.NewReaderSize(r, maxLine))
}

// read reads one exposition. The reader's buffer holds the longest line.
func (m *mapping) read(r *bufio.Reader) (Reading, error) {
	var s sums
	for size := 0; ; {
		line, err := r.ReadSlice('\n')
		if size += len(line); size > maxExposition {
			return Reading{}, ErrTooLarge
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			if _, ours := m.nameOf(line); ours {
				return Reading{}, fmt.Errorf("a line over %d KiB", maxLine>>10)
			}
			n, err := skipLine(r, maxExposition-size)
			if size += n; err != nil {
				return Reading{}, err
			}
			continue
		}
		if rest, ours := m.nameOf(line); ours {
			if err := m.sample(line[:len(line)-len(rest)], rest, &s); err != nil {
				return Reading{}, err
			}
		}
		if err == io.EOF {
			return m.reading(&s)
		}
		if err != nil {
			return Reading{}, err
		}
	}
}

// nameOf reports whether a line is of a metric that is wanted, and returns what follows the name. Nearly all lines end here.
func (m *mapping) nameOf(line []byte) (rest []byte, ours bool) {
	start := 0
	for start < len(line) && (line[start] == ' ' || line[start] == '\t') {
		start++
	}
	if start == len(line) || !m.first[line[start]] {
		return nil, false
	}
	for i := range m.wanted {
		name := m.wanted[i].Name
		end := start + len(name)
		ends := end == len(line) || end < len(line) && nameEnds(line[end]) // rules most out, so it comes first
		if ends && string(line[start:end]) == name {
			return line[end:], true
		}
	}
	return nil, false
}

func nameEnds(c byte) bool { return c == '{' || c == ' ' || c == '\t' || c == '\n' }

func skipLine(r *bufio.Reader, limit int) (size int, err error) {
	for {
		piece, err := r.ReadSlice('\n')
		if size += len(piece); size > limit {
			return size, ErrTooLarge
		}
		if err == nil || err == io.EOF { // the end is seen again by the next read
			return size, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return size, err
		}
	}
}

// sums adds up the samples of each signal, apart for each of its metrics.
type sums struct {
	sum    [numSignals][maxMetrics]float64
	count  [numSignals][maxMetrics]int
	latest float64 // value of the LoRA sample that stands
	lora   endpoint.LoRA
	told   bool // there was a LoRA sample
}

// add takes a sample, unless it is not a number, infinite or negative: such a series says nothing.
func (s *sums) add(signal, metric int, value float64) {
	if value >= 0 && !math.IsInf(value, 0) {
		s.sum[signal][metric] += value
		s.count[signal][metric]++
	}
}

// sample takes in a line of a wanted metric: name{label="value",...} value [timestamp].
func (m *mapping) sample(name, rest []byte, s *sums) error {
	labels, value, err := splitSample(rest)
	if err != nil {
		return fmt.Errorf("%s: %w", bytes.TrimLeft(name, " \t"), err)
	}
	name = bytes.TrimLeft(name, " \t")
	for i := range m.wanted {
		w := &m.wanted[i]
		if string(name) != w.Name || w.Label != "" && !hasLabel(labels, w.Label, w.Value) {
			continue
		}
		switch {
		case w.signal == numSignals:
			s.addLoRA(labels, value)
		case w.Read != "":
			s.addLabel(w, labels)
		default:
			s.add(w.signal, w.preference, value)
		}
	}
	return nil
}

// addLabel takes the number that a label holds. What is no number says nothing: vLLM writes None for what it does not know.
func (s *sums) addLabel(w *wanted, labels []byte) {
	if text, ok := labelValue(labels, w.Read); ok {
		if number, err := strconv.ParseFloat(text, 64); err == nil {
			s.add(w.signal, w.preference, number)
		}
	}
}

func (s *sums) addLoRA(labels []byte, value float64) {
	if s.told && !(value >= s.latest) || math.IsNaN(value) {
		return // old labels stay in the exposition
	}
	s.told, s.latest = true, value
	limit, _ := labelValue(labels, loraMax)
	n, err := strconv.ParseUint(limit, 10, 31)
	if err != nil {
		n = 0
	}
	s.lora = endpoint.LoRA{Max: int(n), Running: adapterNames(labels, loraRunning), Waiting: adapterNames(labels, loraWaiting)}
}

func adapterNames(labels []byte, label string) []string {
	text, _ := labelValue(labels, label)
	var names []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// splitSample splits what follows the name of a sample.
func splitSample(b []byte) (labels []byte, value float64, err error) {
	b = bytes.TrimLeft(b, " \t")
	if len(b) > 0 && b[0] == '{' {
		n, ok := labelsEnd(b)
		if !ok {
			return nil, 0, errors.New("labels do not end")
		}
		labels, b = b[1:n-1], bytes.TrimLeft(b[n:], " \t")
	}
	if end := bytes.IndexAny(b, " \t\n"); end >= 0 {
		b = b[:end]
	}
	value, err = strconv.ParseFloat(string(b), 64)
	if err != nil {
		return nil, 0, fmt.Errorf("value %.40q is not a number", b)
	}
	return labels, value, nil
}

// labelsEnd returns the length of the labels, from brace to brace. A label's value may hold braces and escaped quotes.
func labelsEnd(b []byte) (n int, ok bool) {
	quoted := false
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '}' && !quoted:
			return i + 1, true
		}
	}
	return 0, false
}

// nextLabel cuts the first label off. The value is as it is written, escapes and all.
func nextLabel(b []byte) (name, value, rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " \t,")
	equals := bytes.IndexByte(b, '=')
	if equals < 0 {
		return nil, nil, nil, false
	}
	name, b = bytes.TrimRight(b[:equals], " \t"), bytes.TrimLeft(b[equals+1:], " \t")
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, nil, false
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return name, b[1:i], b[i+1:], true
		}
	}
	return nil, nil, nil, false
}

func findLabel(labels []byte, label string) (value []byte, found bool) {
	for {
		name, value, rest, ok := nextLabel(labels)
		if !ok {
			return nil, false
		}
		if string(name) == label {
			return value, true
		}
		labels = rest
	}
}

// hasLabel compares with a plain value, in which nothing needs an escape.
func hasLabel(labels []byte, label, value string) bool {
	got, found := findLabel(labels, label)
	return found && string(got) == value
}

func labelValue(labels []byte, label string) (value string, found bool) {
	raw, found := findLabel(labels, label)
	if !found || bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), found
	}
	return unescape.Replace(string(raw)), true
}

var unescape = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n")

// total returns the sum and the number of the samples under the first metric of a signal that has any.
func (s *sums) total(signal, metrics int) (sum float64, count int) {
	for i := range metrics {
		if n := s.count[signal][i]; n > 0 {
			return s.sum[signal][i], n
		}
	}
	return 0, 0
}

// reading makes a reading of the sums. A signal that is required and missing is an error.
func (m *mapping) reading(s *sums) (Reading, error) {
	var missing []error
	var sum, mean [numSignals]float64
	for signal, metrics := range m.signals {
		total, count := s.total(signal, len(metrics))
		switch {
		case count > 0:
			sum[signal], mean[signal] = total, total/float64(count)
		case signal < required && len(metrics) > 0:
			missing = append(missing, fmt.Errorf("%w: %s", ErrMissing, metrics[0]))
		}
	}
	if err := errors.Join(missing...); err != nil {
		return Reading{}, err
	}
	reading := Reading{Gauges: endpoint.Gauges{
		Known: true, Waiting: whole(sum[waiting]), Running: whole(sum[running]), KVUse: min(mean[kvUse], 1),
	}}
	if tokens, n := whole(mean[blockTokens]), whole(sum[blocks]); tokens > 0 && n > 0 {
		reading.Cache = endpoint.Cache{BlockTokens: int32(tokens), Blocks: int32(n)}
	}
	if s.told {
		lora := s.lora
		reading.LoRA = &lora
	}
	return reading, nil
}

func whole(n float64) int { return int(math.Round(min(n, math.MaxInt32))) }
