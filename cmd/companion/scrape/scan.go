package scrape

import (
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
	errLongLine = fmt.Errorf("a line over %d KiB", maxLine>>10)
)

// Read reads from the text exposition format of Prometheus, version 0.0.4. It looks at the lines that it needs and no others: the rest,
// nearly all of it, is histograms.
func (e Engine) Read(r io.Reader) (Reading, error) {
	s := scanner{mapping: compile(e)}
	if _, err := io.Copy(&s, r); err != nil {
		return Reading{}, err
	}
	return s.reading()
}

// scanner reads one exposition in the pieces in which it comes, cut anywhere. It keeps the beginning of a line from one piece to the next,
// and nothing else.
type scanner struct {
	mapping *mapping
	sums    sums
	size    int
	begun   []byte // a line without its end
	skip    bool   // the rest of the line is nothing to look at
}

// reset makes a scanner ready for the next exposition.
func (s *scanner) reset(m *mapping) {
	*s = scanner{mapping: m, begun: s.begun[:0], sums: sums{lora: s.sums.lora[:0]}}
}

// Write takes in the next piece.
func (s *scanner) Write(piece []byte) (int, error) {
	n := len(piece)
	if s.size += n; s.size > maxExposition {
		return 0, ErrTooLarge
	}
	if s.skip || len(s.begun) > 0 {
		end := bytes.IndexByte(piece, '\n')
		if end < 0 {
			return n, s.begin(piece)
		}
		if err := s.begin(piece[:end]); err != nil {
			return 0, err
		}
		if err := s.endLine(); err != nil {
			return 0, err
		}
		piece = piece[end+1:]
	}
	for {
		end := bytes.IndexByte(piece, '\n')
		if end < 0 {
			return n, s.begin(piece)
		}
		if err := s.line(piece[:end]); err != nil {
			return 0, err
		}
		piece = piece[end+1:]
	}
}

// begin keeps a line whose end has not come, unless it is too long to be one of ours.
func (s *scanner) begin(b []byte) error {
	if s.skip {
		return nil
	}
	if s.begun = append(s.begun, b...); len(s.begun) <= maxLine {
		return nil
	}
	if _, _, ours := s.mapping.nameOf(s.begun); ours {
		return errLongLine
	}
	s.skip, s.begun = true, s.begun[:0]
	return nil
}

func (s *scanner) endLine() error {
	err := s.line(s.begun)
	s.skip, s.begun = false, s.begun[:0]
	return err
}

func (s *scanner) line(line []byte) error {
	name, rest, ours := s.mapping.nameOf(line)
	if !ours {
		return nil
	}
	if len(line) > maxLine {
		return errLongLine
	}
	return s.mapping.sample(name, rest, &s.sums)
}

// reading is what the exposition said, once all of it is taken in.
func (s *scanner) reading() (Reading, error) {
	if err := s.endLine(); err != nil { // the last one may lack its newline
		return Reading{}, err
	}
	return s.mapping.reading(&s.sums)
}

// nameOf reports whether a line is of a metric that is wanted, and splits it after the name. Nearly all lines end here, most of them at
// two of their bytes: the first one, and the first in which the wanted names differ.
func (m *mapping) nameOf(line []byte) (name, rest []byte, ours bool) {
	if len(line) <= m.fork {
		return nil, nil, false
	}
	if c := line[0]; !m.first[c] {
		if c != ' ' && c != '\t' {
			return nil, nil, false
		}
		line = bytes.TrimLeft(line, " \t")
	}
	if len(line) <= m.fork || !m.forks[line[m.fork]] {
		return nil, nil, false
	}
	for i := range m.wanted {
		name := m.wanted[i].Name
		end := len(name)
		ends := end == len(line) || end < len(line) && nameEnds(line[end]) // rules most out, so it comes first
		if ends && string(line[:end]) == name {
			return line[:end], line[end:], true
		}
	}
	return nil, nil, false
}

func nameEnds(c byte) bool { return c == '{' || c == ' ' || c == '\t' }

// sums adds up the samples of each signal, apart for each of its metrics.
type sums struct {
	sum    [numSignals][maxMetrics]float64
	count  [numSignals][maxMetrics]int
	latest float64 // value of the LoRA sample that stands ...
	lora   []byte  // ... and a copy of its labels
	told   bool    // there was one
}

// add takes a sample, unless it is not a number, infinite or negative: such a series says nothing.
func (s *sums) add(w *wanted, value float64) {
	sum, count := &s.sum[w.signal][w.preference], &s.count[w.signal][w.preference]
	switch {
	case !(value >= 0) || math.IsInf(value, 0):
	case w.Whole:
		*sum, *count = max(*sum, value), 1
	default:
		*sum += value
		*count++
	}
}

// sample takes in a line of a wanted metric: name{label="value",...} value [timestamp].
func (m *mapping) sample(name, rest []byte, s *sums) error {
	labels, value, err := splitSample(rest)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
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
			s.add(w, value)
		}
	}
	return nil
}

// addLabel takes the number that a label holds. What is no number says nothing: vLLM writes None for what it does not know.
func (s *sums) addLabel(w *wanted, labels []byte) {
	if text, ok := labelValue(labels, w.Read); ok {
		if number, err := strconv.ParseFloat(text, 64); err == nil {
			s.add(w, number)
		}
	}
}

func (s *sums) addLoRA(labels []byte, value float64) {
	if s.told && !(value >= s.latest) || math.IsNaN(value) {
		return // old labels stay in the exposition
	}
	s.told, s.latest, s.lora = true, value, append(s.lora[:0], labels...)
}

func (s *sums) loraOf() *endpoint.LoRA {
	if !s.told {
		return nil
	}
	limit, _ := labelValue(s.lora, loraMax)
	n, err := strconv.ParseUint(limit, 10, 31)
	if err != nil {
		n = 0
	}
	l := &endpoint.LoRA{Max: int(n), Running: adapterNames(s.lora, loraRunning), Waiting: adapterNames(s.lora, loraWaiting)}
	// vLLM lists an adapter among the waiting ones also while it runs. Counted twice it would take up a second slot.
	l.Waiting = slices.DeleteFunc(l.Waiting, func(name string) bool {
		_, runs := slices.BinarySearch(l.Running, name)
		return runs
	})
	if len(l.Waiting) == 0 {
		l.Waiting = nil
	}
	return l
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
	if end := bytes.IndexAny(b, " \t"); end >= 0 {
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
	reading.LoRA = s.loraOf()
	return reading, nil
}

func whole(n float64) int { return int(math.Round(min(n, math.MaxInt32))) }
