package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// loraSeries is vllm:lora_requests_info of one engine: a gauge whose labels are lists of adapters and whose value is the
// time when these were current. Like vLLM's Prometheus client, it keeps every combination that has occurred: a reader
// must take the latest one.
type loraSeries struct {
	names   []string // adapter i+1 is names[i]
	series  []loraSample
	current int // index in series of the current run and wait

	run, wait         []int
	nextRun, nextWait []int // buffer
}

type loraSample struct {
	running, waiting string // names in the order of the requests, comma separated
	at               time.Time
}

// maxLoRASeries limits the combinations that are kept. vLLM keeps all of them.
const maxLoRASeries = 256

// record stores which adapters run and wait now.
func (l *loraSeries) record(e *engine.Engine, now time.Time) {
	l.nextRun, l.nextWait = e.AppendAdapters(l.nextRun[:0], l.nextWait[:0])
	if len(l.series) > 0 && slices.Equal(l.run, l.nextRun) && slices.Equal(l.wait, l.nextWait) {
		l.series[l.current].at = now
		return
	}
	l.run, l.nextRun = l.nextRun, l.run
	l.wait, l.nextWait = l.nextWait, l.wait
	sample := loraSample{running: l.join(l.run), waiting: l.join(l.wait), at: now}
	l.current = slices.IndexFunc(l.series, func(s loraSample) bool { return s.running == sample.running && s.waiting == sample.waiting })
	switch {
	case l.current >= 0:
		l.series[l.current].at = now
		return
	case len(l.series) == maxLoRASeries:
		l.series = slices.Delete(l.series, 0, 1)
	}
	l.current = len(l.series)
	l.series = append(l.series, sample)
}

func (l *loraSeries) join(adapters []int) string {
	var names []string
	for _, adapter := range adapters {
		names = append(names, l.names[adapter-1])
	}
	return strings.Join(names, ",")
}
