package feed

import "github.com/inlet-proxy/inlet/shared/contract/filter"

// maxNotes limits the queue of notes, in bytes: what exceeds it within a round is
// lost. Together with the rest of a report it fits into what the companion accepts.
const maxNotes = 512 << 10

// Notes are what filters send to the filters of other proxies; it implements
// filter.Peers. Any number of threads may use it, with a lock.
type Notes struct {
	mu    filter.Mutex
	queue []byte
	spare []byte // the previous queue, which is being reported
	lost  int    // number of notes that did not fit into the queue
	learn func(notes []byte)
}

// NewNotes returns an empty queue.
func NewNotes(mu filter.Mutex) *Notes { return &Notes{mu: mu} }

// Tell implements filter.Peers.
func (n *Notes) Tell(notes []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue)+len(notes) > maxNotes {
		n.lost++
		return
	}
	n.queue = append(n.queue, notes...)
}

// Hear implements filter.Peers.
func (n *Notes) Hear(learn func(notes []byte)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.learn = learn
}

// take empties the queue and returns how many notes did not fit into it. The notes are
// valid until the next call.
func (n *Notes) take() (notes []byte, lost int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue, n.spare = n.spare[:0], n.queue
	lost, n.lost = n.lost, 0
	return n.spare, lost
}

// heard passes the notes of other proxies to the function that learns from them.
func (n *Notes) heard(notes []byte) {
	n.mu.Lock()
	learn := n.learn
	n.mu.Unlock()
	if learn != nil && len(notes) > 0 {
		learn(notes)
	}
}
