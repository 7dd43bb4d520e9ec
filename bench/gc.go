package main

import (
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// gcTrace makes Go's runtime log each garbage collection (package runtime, GODEBUG). So the shipped build is measured,
// without any code for the measurement.
const gcTrace = "GODEBUG=gctrace=1"

// gcLogSize is the current end of the log.
func (m *mode) gcLogSize() (int64, error) {
	info, err := os.Stat(m.stack.EnvoyLog())
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// collections returns the longest time that each collection since a position of Envoy's log took from a worker, in µs:
// the times in which the world stood still, and the marking that requests had to do. A wasm VM has one thread, so there
// all other marking is a worker's time too. It may have been several stretches, in several requests.
func (m *mode) collections(from int64) ([]float64, error) {
	f, err := os.Open(m.stack.EnvoyLog())
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	return readTrace(string(text), m.abi == stack.Wasm), err
}

var (
	traceLine = regexp.MustCompile(`gc \d+ @\S+s \d+%: ([\d.]+)\+[\d.]+\+([\d.]+) ms clock, [\d.]+\+([\d.]+)/([\d.]+)/([\d.]+)\+[\d.]+ ms cpu`)
	wasmPiece = regexp.MustCompile(`^\[[^]]*\]\[(\d+)\]\[error\]\[wasm\] .*? wasm log[^:]*: (.*)$`)
)

// readTrace reads the collections in Envoy's log. Go writes a line of a trace piece by piece: from a wasm VM each piece
// is a line of the log, with the number of its worker's thread.
func readTrace(log string, wasm bool) (micros []float64) {
	read := func(line string) {
		m := traceLine.FindStringSubmatch(line)
		if m == nil {
			return
		}
		var ms [5]float64 // sweep termination, mark termination, assists, background, idle
		for i := range ms {
			ms[i], _ = strconv.ParseFloat(m[i+1], 64)
		}
		took := ms[0] + ms[1] + ms[2]
		if wasm {
			took += ms[3] + ms[4]
		}
		micros = append(micros, 1000*took)
	}
	pieces := map[string]string{}
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		if !wasm {
			read(line)
			continue
		}
		p := wasmPiece.FindStringSubmatch(line)
		switch {
		case p == nil:
		case p[2] == "gc ":
			read(pieces[p[1]])
			pieces[p[1]] = p[2]
		default:
			pieces[p[1]] += p[2]
		}
	}
	for _, line := range pieces {
		read(line)
	}
	return micros
}
