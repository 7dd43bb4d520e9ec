package feed

import "github.com/inlet-proxy/inlet/shared/contract/filter"

// maxNotes bounds what waits to be told, in bytes: what is more within a round is
// lost. With the rest it fits into what the companion takes.
const maxNotes = 512 << 10

// Notes are what filters tell the filters of other proxies; it implements
// filter.Peers. It may be used by any number of threads, with a lock.
type Notes struct {
	mu    filter.Mutex
	queue []byte
	spare []byte // the queue before, which is told
	lost  int    // what found no room in the queue
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

// take empties the queue and says how many found no room in it. The notes are good
// until it is called again.
func (n *Notes) take() (notes []byte, lost int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue, n.spare = n.spare[:0], n.queue
	lost, n.lost = n.lost, 0
	return n.spare, lost
}

// heard brings what other proxies told to who learns from it.
func (n *Notes) heard(notes []byte) {
	n.mu.Lock()
	learn := n.learn
	n.mu.Unlock()
	if learn != nil && len(notes) > 0 {
		learn(notes)
	}
}
