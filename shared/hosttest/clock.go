package hosttest

import (
	"container/heap"
	"time"
)

// epoch is when every scenario begins.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// clock is the virtual time of one gateway. Nothing waits in reality: time
// jumps to the next thing that is due.
type clock struct {
	now   time.Time
	queue timers
	seq   int
}

type timer struct {
	at  time.Time
	seq int // timers that are due at once run in the order in which they were set
	do  func()
}

func newClock() *clock { return &clock{now: epoch} }

// after has do called when d is over.
func (c *clock) after(d time.Duration, do func()) {
	c.seq++
	heap.Push(&c.queue, &timer{c.now.Add(d), c.seq, do})
}

// next jumps to the timer that is due next, unless that is after limit.
func (c *clock) next(limit time.Time) bool {
	if len(c.queue) == 0 || c.queue[0].at.After(limit) {
		return false
	}
	t := heap.Pop(&c.queue).(*timer)
	c.now = t.at
	t.do()
	return true
}

// advance lets d pass.
func (c *clock) advance(d time.Duration) {
	limit := c.now.Add(d)
	for c.next(limit) {
		continue
	}
	c.now = limit
}

// timers is a heap, soonest first.
type timers []*timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	if t[i].at.Equal(t[j].at) {
		return t[i].seq < t[j].seq
	}
	return t[i].at.Before(t[j].at)
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(*timer)) }
func (t *timers) Pop() any {
	last := len(*t) - 1
	x := (*t)[last]
	*t = (*t)[:last]
	return x
}
