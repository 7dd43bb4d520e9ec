// Package scrape reads the gauges of the replicas from their metrics, and tells which replicas are ready.
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

	"github.com/inlet-proxy/inlet/shared/endpoint"
)

// Engine names the metrics of one kind of model server. Each signal has one or more names, the preferred first: if a server exposes
// several, only the first that has samples counts.
type Engine struct {
	prefix string // that all names begin with: the other lines are not looked at
	// waiting and running are requests, summed over all series (the ranks of a data-parallel engine, each with its own queue).
	waiting, running []string
	// kvUse is a share 0..1, the mean over all series.
	kvUse []string
}

// engines are the model servers that are known, by the word that the configuration uses.
var engines = map[string]Engine{
	// vLLM, docs/usage/metrics. The KV gauge was called gpu_cache_usage_perc in V0 and up to 0.9, and some releases have both.
	"vllm": {
		prefix:  "vllm:",
		waiting: []string{"vllm:num_requests_waiting"},
		running: []string{"vllm:num_requests_running"},
		kvUse:   []string{"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"},
	},
}

// Engines returns the words for the engines that are known, sorted.
func Engines() []string {
	var words []string
	for word := range engines {
		words = append(words, word)
	}
	slices.Sort(words)
	return words
}

const (
	maxExposition = 8 << 20  // bytes of one answer; a vLLM replica with a few models has about 100 KiB
	maxLine       = 64 << 10 // bytes of a line that is looked at
)

var (
	// ErrMissing says that the exposition lacks a metric. A missing gauge is never taken for a low one.
	ErrMissing = errors.New("metric missing")
	// ErrTooLarge says that the exposition is larger than any real one.
	ErrTooLarge = fmt.Errorf("exposition over %d MiB", maxExposition>>20)
)

// signal adds up the samples of one gauge, apart for each of its names.
type signal struct {
	names []string
	sum   [2]float64
	count [2]int
}

func (s *signal) add(name int, value float64) {
	// Not a number, infinite or negative: that series says nothing about the gauge.
	if value >= 0 && !math.IsInf(value, 0) {
		s.sum[name] += value
		s.count[name]++
	}
}

// total returns the sum and the number of the samples under the first name that has any.
func (s *signal) total() (sum float64, count int, err error) {
	for i := range s.names {
		if s.count[i] > 0 {
			return s.sum[i], s.count[i], nil
		}
	}
	return 0, 0, fmt.Errorf("%w: %s", ErrMissing, s.names[0])
}

// Read reads the gauges from the text exposition format of Prometheus, version 0.0.4. It looks at the lines that it needs and no others:
// the rest, nearly all of it, is histograms. The gauges' age is 0.
func (e Engine) Read(r io.Reader) (endpoint.Gauges, error) {
	return e.read(bufio.NewReaderSize(r, maxLine))
}

func (e Engine) read(r *bufio.Reader) (endpoint.Gauges, error) {
	waiting, running, kvUse := signal{names: e.waiting}, signal{names: e.running}, signal{names: e.kvUse}
	signals := [...]*signal{&waiting, &running, &kvUse}
	for size := 0; ; {
		line, err := r.ReadSlice('\n')
		if size += len(line); size > maxExposition {
			return endpoint.Gauges{}, ErrTooLarge
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			if e.concerns(line) {
				return endpoint.Gauges{}, fmt.Errorf("a line over %d KiB", maxLine>>10)
			}
			n, err := skipLine(r, maxExposition-size)
			if size += n; err != nil {
				return endpoint.Gauges{}, err
			}
			continue
		}
		if e.concerns(line) {
			if err := readSample(line, &signals); err != nil {
				return endpoint.Gauges{}, err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return endpoint.Gauges{}, err
		}
	}
	return gaugesOf(&waiting, &running, &kvUse)
}

// concerns is the filter: it throws away most lines by their first bytes.
func (e Engine) concerns(line []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte(e.prefix))
}

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

// readSample adds a line to the signal that it belongs to, if any: name{label="value",...} value [timestamp].
func readSample(line []byte, signals *[3]*signal) error {
	line = bytes.TrimLeft(line, " \t")
	end := bytes.IndexAny(line, "{ \t\n")
	if end < 0 {
		end = len(line)
	}
	for _, s := range signals {
		for i, name := range s.names {
			if string(line[:end]) == name {
				value, err := sampleValue(line[end:])
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				s.add(i, value)
				return nil
			}
		}
	}
	return nil
}

// sampleValue reads the value from what follows the name of a sample.
func sampleValue(b []byte) (float64, error) {
	b = bytes.TrimLeft(b, " \t")
	if len(b) > 0 && b[0] == '{' {
		n, ok := labelsEnd(b)
		if !ok {
			return 0, errors.New("labels do not end")
		}
		b = bytes.TrimLeft(b[n:], " \t")
	}
	if end := bytes.IndexAny(b, " \t\n"); end >= 0 {
		b = b[:end]
	}
	value, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return 0, fmt.Errorf("value %.40q is not a number", b)
	}
	return value, nil
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

func gaugesOf(waiting, running, kvUse *signal) (endpoint.Gauges, error) {
	inQueue, _, err1 := waiting.total()
	inWork, _, err2 := running.total()
	kv, ranks, err3 := kvUse.total()
	if err := errors.Join(err1, err2, err3); err != nil {
		return endpoint.Gauges{}, err
	}
	return endpoint.Gauges{
		Known:   true,
		Waiting: requests(inQueue),
		Running: requests(inWork),
		KVUse:   min(kv/float64(ranks), 1),
	}, nil
}

func requests(n float64) int { return int(math.Round(min(n, math.MaxInt32))) }
