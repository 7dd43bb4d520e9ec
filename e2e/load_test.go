package e2e_test

import (
	"context"
	"sync"
	"testing"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// load is a number of clients that send small requests one after another.
type load struct {
	t       *testing.T
	mu      sync.Mutex
	answers []answer
}

// underLoad runs f while clients keep sending, and returns the responses.
func underLoad(t *testing.T, s *stack.Stack, clients int, f func(*load)) []answer {
	t.Helper()
	l := &load{t: t}
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				a := post(t.Context(), s, chatPath, smallChat)
				l.mu.Lock()
				l.answers = append(l.answers, a)
				l.mu.Unlock()
			}
		})
	}
	defer all.Wait()
	defer stop()
	l.more(100)
	f(l)
	l.more(100)
	stop()
	all.Wait()
	return l.answers
}

// more waits for n further responses.
func (l *load) more(n int) {
	l.t.Helper()
	until := l.count() + n
	eventually(l.t, "the load goes on", func() (bool, error) { return l.count() >= until, nil })
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answers)
}

// lost are the failures so far, in order.
func (l *load) lost() []answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return failures(l.answers)
}

// failures are the responses other than 200.
func failures(answers []answer) (failed []answer) {
	for _, a := range answers {
		if !a.ok() {
			failed = append(failed, a)
		}
	}
	return failed
}
