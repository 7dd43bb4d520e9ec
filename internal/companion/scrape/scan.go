package scrape

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

const (
	maxExposition = 8 << 20  // bytes of one response; a vLLM replica with a few models has about 100 KiB
	maxLine       = 64 << 10 // bytes of a line of a wanted metric
)

var (
	// ErrMissing means that the exposition lacks a metric. A missing gauge is never taken for a low one.
	ErrMissing = errors.New("metric missing")
	// ErrTooLarge means that the exposition is larger than any real one.
	ErrTooLarge = fmt.Errorf("exposition over %d MiB", maxExposition>>20)
	errLongLine = fmt.Errorf("a line over %d KiB", maxLine>>10)
)

// foreignError is an ErrMissing for an exposition without any of the gauges: it may be that of something other than the model server, or of
// one that is still loading.
type foreignError struct{ error }

func (e foreignError) Unwrap() error { return e.error }

// Read reads from the text exposition format of Prometheus, version 0.0.4. It parses only the lines that it needs: nearly all
// of the rest is histograms.
func (e Engine) Read(r io.Reader) (Reading, error) {
	s := new(scanner)
	s.reset(compile(e))
	if _, err := io.Copy(s, r); err != nil {
		return Reading{}, err
	}
	return s.reading()
}

// scanner parses one exposition in pieces that may be cut anywhere. It keeps only the beginning of a line from one piece to the next.
type scanner struct {
	mapping *mapping
	sums    sums
	size    int
	begun   []byte // a line without its end
	skip    bool   // the rest of the line is not needed
}

// reset prepares a scanner for the next exposition.
func (s *scanner) reset(m *mapping) {
	*s = scanner{mapping: m, begun: s.begun[:0], sums: sums{now: float64(time.Now().Unix()), samples: s.sums.samples[:0], lora: s.sums.lora[:0]}}
}

// Write parses the next piece.
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

// begin keeps a line whose end has not arrived, unless it is too long to be a wanted one.
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

// reading returns what was read, once the whole exposition is written.
func (s *scanner) reading() (Reading, error) {
	if err := s.endLine(); err != nil { // the last one may lack its newline
		return Reading{}, err
	}
	return s.mapping.reading(&s.sums)
}

// nameOf reports whether a line is of a wanted metric, and splits it after the name. Nearly all lines end here, most of them at
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
	if len(line) <= m.fork {
		return nil, nil, false
	}
	for _, name := range m.names[line[m.fork]] {
		if isNamed(line, name) {
			return line[:len(name)], line[len(name):], true
		}
	}
	if line[0] == processStart[0] && isNamed(line, processStart) {
		return line[:len(processStart)], line[len(processStart):], true
	}
	return nil, nil, false
}

func isNamed(line []byte, name string) bool {
	end := len(name)
	ends := end == len(line) || end < len(line) && nameEnds(line[end]) // rules most out, so it comes first
	return ends && string(line[:end]) == name
}

func nameEnds(c byte) bool { return c == '{' || c == ' ' || c == '\t' }

// sums are the wanted metrics of one exposition.
type sums struct {
	now     float64 // seconds since 1970
	samples []sample
	started float64 // of the process
	latest  float64 // time of the LoRA sample that stands ...
	lora    []byte  // ... and a copy of its labels
	told    bool    // there was one
}

// sample is a number that counts for a signal.
type sample struct {
	signal, preference int
	rank, part         uint64 // see labelled
	value              float64
}

// usable reports whether a number is meaningful: not negative, infinite or NaN.
func usable(value float64) bool { return value >= 0 && !math.IsInf(value, 0) }

// labelled returns the rank that a series belongs to, and which part of the rank's number it has, 0 for all of it.
func (m *mapping) labelled(labels []byte, s *sums) (rank, part uint64) {
	if m.ranks == nil {
		rank = uint64(len(s.samples))
	}
	for {
		name, value, rest, ok := nextLabel(labels)
		if !ok {
			return rank, part
		}
		labels = rest
		switch {
		case len(value) == 0: // as if it were not there
		case string(name) == m.split:
			part = xxhash.Sum64(value) | 1
		case slices.Contains(m.ranks, string(name)):
			rank ^= xxhash.Sum64(name)*31 + xxhash.Sum64(value) // whatever their order
		}
	}
}

// sample parses a line of a wanted metric: name{label="value",...} value [timestamp].
func (m *mapping) sample(name, rest []byte, s *sums) error {
	labels, value, err := splitSample(rest)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if string(name) == processStart && usable(value) {
		s.started = max(s.started, value)
	}
	rank, part := m.labelled(labels, s)
	for i := range m.wanted {
		w := &m.wanted[i]
		if string(name) != w.Name || w.Label != "" && !hasLabel(labels, w.Label, w.Value) {
			continue
		}
		number := value
		switch {
		case w.signal == numSignals:
			s.addLoRA(labels, value)
			continue
		case w.Read != "":
			number = numberIn(labels, w.Read)
		}
		if usable(number) {
			s.samples = append(s.samples, sample{w.signal, w.preference, rank, part, number})
		}
	}
	return nil
}

// numberIn returns the number in a label, NaN if it has none: vLLM writes None for unknown values.
func numberIn(labels []byte, label string) float64 {
	text, _ := labelValue(labels, label)
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return number
}

func (s *sums) addLoRA(labels []byte, value float64) {
	at := meanTime(value, s.now)
	if math.IsNaN(at) || s.told && at < s.latest {
		return // old labels stay in the exposition
	}
	s.told, s.latest, s.lora = true, at, append(s.lora[:0], labels...)
}

// meanTime is the time in a value that is the sum of one or several times up to now, as of several processes: how many they are shows,
// since one alone is not in the future. A clock may be ahead by some days, which makes no further one of it.
func meanTime(value, now float64) float64 {
	const ahead = 0.01 // of the time since 1970
	if !usable(value) {
		return math.NaN()
	}
	return value / max(1, math.Ceil(value/now-ahead))
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
	got, _ := findLabel(labels, label) // one that is absent is as one that is empty
	return string(got) == value
}

func labelValue(labels []byte, label string) (value string, found bool) {
	raw, found := findLabel(labels, label)
	if !found || bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), found
	}
	return unescape.Replace(string(raw)), true
}

var unescape = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n")

// tally is the sum of a signal over all ranks.
type tally struct {
	sum, most float64
	ranks     int
}

func (t tally) mean() float64 { return t.sum / max(1, float64(t.ranks)) }

// tally adds up a signal, by the first of its metrics that has any samples, which are sorted.
func (s *sums) tally(signal int) (t tally) {
	from, _ := slices.BinarySearchFunc(s.samples, sample{signal: signal}, compareSamples)
	list := s.samples[from:]
	for len(list) > 0 && list[0].signal == signal && list[0].preference == s.samples[from].preference {
		n := 1
		for n < len(list) && list[n].sameRank(list[0]) {
			n++
		}
		value := ofRank(list[:n])
		t = tally{t.sum + value, max(t.most, value), t.ranks + 1}
		list = list[n:]
	}
	return t
}

// ofRank returns the value of one rank by its samples. Of those for the same part, the largest counts. If there is a total, its parts do not count.
func ofRank(list []sample) (value float64) {
	whole := list[0].part == 0
	for len(list) > 0 {
		part, largest := list[0].part, 0.0
		for len(list) > 0 && list[0].part == part {
			largest = max(largest, list[0].value)
			list = list[1:]
		}
		if value += largest; whole {
			break
		}
	}
	return value
}

// sameRank reports whether two samples are of the same metric and rank.
func (s sample) sameRank(o sample) bool {
	return s.signal == o.signal && s.preference == o.preference && s.rank == o.rank
}

func compareSamples(a, b sample) int {
	return cmp.Or(cmp.Compare(a.signal, b.signal), cmp.Compare(a.preference, b.preference), cmp.Compare(a.rank, b.rank), cmp.Compare(a.part, b.part))
}

// reading returns the reading by the sums. A missing signal that is required is an error.
func (m *mapping) reading(s *sums) (Reading, error) {
	slices.SortFunc(s.samples, compareSamples)
	var missing []error
	var totals [numSignals]tally
	needed := 0
	for signal, metrics := range m.signals {
		totals[signal] = s.tally(signal)
		if signal < required && len(metrics) > 0 {
			needed++
			if totals[signal].ranks == 0 {
				missing = append(missing, fmt.Errorf("%w: %s", ErrMissing, metrics[0]))
			}
		}
	}
	switch err := errors.Join(missing...); {
	case err != nil && len(missing) == needed:
		return Reading{}, foreignError{err}
	case err != nil:
		return Reading{}, err
	}
	return Reading{
		Gauges: endpoint.Gauges{
			Known: true, Waiting: whole(totals[waiting].sum), Running: whole(totals[running].sum), KVUse: min(totals[kvUse].mean(), 1),
		},
		Cache:   m.cache(&totals),
		LoRA:    s.loraOf(),
		Asleep:  s.asleep(&totals),
		Started: int64(min(s.started, math.MaxInt32*1e3)),
	}, nil
}

// cache returns the size of the KV cache of all ranks: by its tokens if they are known, otherwise by its blocks.
func (m *mapping) cache(totals *[numSignals]tally) endpoint.Cache {
	size, tokens := whole(totals[blockTokens].mean()), totals[cacheTokens].mean()
	if tokens >= 1 {
		size = max(size, 1)
		tokens *= float64(max(totals[cacheTokens].ranks, totals[blockTokens].ranks, totals[waiting].ranks)) // ranks without the metric are as large
		return endpoint.Cache{BlockTokens: int32(size), Blocks: int32(min(tokens/float64(size), math.MaxInt32))}
	}
	n := totals[blocks].sum
	if slices.ContainsFunc(m.signals[blocks], func(b Metric) bool { return b.Whole }) {
		n = totals[blocks].most
	}
	if size > 0 && whole(n) > 0 {
		return endpoint.Cache{BlockTokens: int32(size), Blocks: int32(whole(n))}
	}
	return endpoint.Cache{}
}

// asleep reports whether any rank was put to sleep, since requests are distributed over all of them.
func (s *sums) asleep(totals *[numSignals]tally) bool {
	if totals[awake].ranks > 0 {
		return slices.ContainsFunc(s.samples, func(a sample) bool { return a.signal == awake && a.value == 0 })
	}
	return slices.ContainsFunc(s.samples, func(a sample) bool { return a.signal == asleep && a.value > 0 })
}

func whole(n float64) int { return int(math.Round(min(n, math.MaxInt32))) }
