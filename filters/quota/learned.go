package quota

import (
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// learned knows how long answers are that no client bounds, by model.
type learned struct {
	mu      filter.Mutex
	byModel map[string]*average
}

// average is a moving average, in 256ths of a token.
type average struct{ n, sum int }

// Bounds of what is learned.
const (
	maxLearned  = 256 // models
	enoughSeen  = 8   // answers, before they count
	averageOver = 16  // answers
)

func newLearned(mu filter.Mutex) *learned { return &learned{mu: mu, byModel: map[string]*average{}} }

// typical returns how many tokens an answer of the model is likely to have; otherwise if too little is known.
func (l *learned) typical(model string, otherwise int) int {
	if l == nil {
		return otherwise
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.byModel[model]; a != nil && a.n >= enoughSeen {
		return max(a.sum>>8, 1)
	}
	return otherwise
}

// add takes note of an answer.
func (l *learned) add(model string, tokens int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.byModel[model]
	if a == nil {
		if len(l.byModel) >= maxLearned {
			return
		}
		a = &average{}
		l.byModel[strings.Clone(model)] = a
	}
	a.n = min(a.n+1, averageOver)
	a.sum += (tokens<<8 - a.sum) / a.n
}
