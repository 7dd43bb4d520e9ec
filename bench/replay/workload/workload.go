// Package workload has the requests for comparing ways of routing: traces of production services, and synthetic ones with
// documented parameters. No trace has texts, so a request is described by its lengths and by ids of the blocks of its
// prompt, and [Workload.Body] makes one fixed text of each id: equal ids give equal text.
package workload

import (
	"cmp"
	"slices"
	"time"
)

// Request is one request of a workload.
type Request struct {
	At            time.Duration // since the start
	Input, Output int           // tokens
	// Blocks has an id for each block of the prompt, the last of which need not be full. Equal ids at the same position
	// mean that the prompts are equal up to there.
	Blocks []uint32
	// Tenant separates its cached prompts from those of others: see Copies.
	Tenant int

	line int // in Workload.lines
}

// Workload is a list of requests, in the order of their times.
type Workload struct {
	Name        string
	BlockTokens int // tokens of a block
	Requests    []Request

	lines []facts // see Scan
}

// Span is the time from the first request to the last.
func (w *Workload) Span() time.Duration {
	return w.Requests[len(w.Requests)-1].At - w.Requests[0].At
}

// Head returns the first n requests as a workload.
func (w *Workload) Head(n int) *Workload {
	h := *w
	h.Requests = slices.Clone(w.Requests[:min(n, len(w.Requests))])
	return &h
}

// Over returns the workload played in the given time.
func (w *Workload) Over(span time.Duration) *Workload {
	s := *w
	s.Requests = slices.Clone(w.Requests)
	first, factor := w.Requests[0].At, float64(span)/float64(max(1, w.Span()))
	for i := range s.Requests {
		s.Requests[i].At = time.Duration(float64(s.Requests[i].At-first) * factor)
	}
	return &s
}

// copiesWithin is the time over which copies are spread. The Mooncake trace has times in steps of three seconds.
const copiesWithin = 3 * time.Second

// Copies returns n times the workload: what n tenants like the first would send at the same time, copy k slightly (k/n of
// three seconds) after the first. They share nothing: a tenant's requests have their own cache_salt.
func (w *Workload) Copies(n int) *Workload {
	c := *w
	c.Requests = make([]Request, 0, n*len(w.Requests))
	for k := range n {
		for _, r := range w.Requests {
			r.At += copiesWithin * time.Duration(k) / time.Duration(n)
			r.Tenant = k
			c.Requests = append(c.Requests, r)
		}
	}
	c.sort()
	return &c
}

func (w *Workload) sort() {
	slices.SortStableFunc(w.Requests, func(a, b Request) int { return cmp.Compare(a.At, b.At) })
}

// number finishes a new workload.
func (w *Workload) number() {
	w.sort()
	for i := range w.Requests {
		w.Requests[i].line = i
	}
}

// Bound is the theoretical limit of a workload, whatever the routing.
type Bound struct {
	Blocks   int // of all prompts
	Found    int // blocks that one infinite cache would have
	Uncached int // tokens that must still be computed
	Input    int // tokens of all prompts
	Output   int // tokens of all outputs
	Context  int // tokens that are read to write the outputs, each token's own context
}

// HitRatio is the share of blocks that one infinite cache would have.
func (b Bound) HitRatio() float64 { return float64(b.Found) / float64(b.Blocks) }

// Times is the limit of n copies, which share nothing.
func (b Bound) Times(n int) Bound {
	return Bound{n * b.Blocks, n * b.Found, n * b.Uncached, n * b.Input, n * b.Output, n * b.Context}
}

// Bound replays the workload through one infinite cache.
func (w *Workload) Bound() Bound {
	type block struct {
		id     uint32
		tenant int
	}
	seen := map[block]bool{}
	var b Bound
	for _, r := range w.Requests {
		found := true
		b.Blocks += len(r.Blocks)
		b.Input += r.Input
		b.Output += r.Output
		b.Context += r.Output * (r.Input + r.Output/2)
		for i, id := range r.Blocks {
			k := block{id, r.Tenant}
			if found = found && seen[k]; found {
				b.Found++
				continue
			}
			seen[k] = true
			b.Uncached += min(w.BlockTokens, r.Input-w.BlockTokens*i)
		}
	}
	return b
}
