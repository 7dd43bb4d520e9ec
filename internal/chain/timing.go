package chain

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// timedEvery is of how many requests one is measured. Reading the clock takes a
// wasm VM up to a microsecond, which is of the order of what is measured; drawn at random, the few that are measured are like all others.
const timedEvery = 16

// timing is what reading and changing the body of one request took.
type timing struct {
	on         bool // this request is measured
	edited     bool
	scan, edit time.Duration
}

// begin decides at random whether a request is measured.
func (t *timing) begin(d *filter.Deps) { *t = timing{on: d.Rand()%timedEvery == 0} }

// clock is the time if the request is measured.
func (s *Stream) clock() (now time.Time) {
	if s.timing.on {
		now = s.c.deps.Now()
	}
	return now
}

// since is the time that has passed if the request is measured.
func (s *Stream) since(start time.Time) (d time.Duration) {
	if s.timing.on {
		d = s.c.deps.Now().Sub(start)
	}
	return d
}

// record tells what was measured, in microseconds.
func (t *timing) record(m *metrics) {
	if !t.on {
		return
	}
	m.scan.Record(t.scan.Round(time.Microsecond).Microseconds(), filter.Values{})
	if t.edited {
		m.edit.Record(t.edit.Round(time.Microsecond).Microseconds(), filter.Values{})
	}
}
