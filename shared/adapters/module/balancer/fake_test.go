package balancer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fakeHost is a host of a fake cluster.
type fakeHost struct {
	address string
	weight  uint32
	sick    bool // Envoy does not list it as healthy
	fell    bool // it is not healthy, and Envoy still lists it as such
	active  uint64
}

// fakeCluster is what Envoy knows, by priority.
type fakeCluster struct {
	levels [][]fakeHost
	panics bool
}

func (c *fakeCluster) Priorities() int { return len(c.levels) }

func (c *fakeCluster) Healthy(priority int) int { return len(c.healthy(priority)) }

func (c *fakeCluster) healthy(priority int) []*fakeHost {
	var list []*fakeHost
	for i := range c.levels[priority] {
		if h := &c.levels[priority][i]; !h.sick {
			list = append(list, h)
		}
	}
	return list
}

func (c *fakeCluster) Hosts(priority int) (all, healthy []Member) {
	if c.panics {
		panic("on purpose")
	}
	for _, h := range c.levels[priority] {
		all = append(all, Member{[]byte(h.address), h.weight})
	}
	for _, h := range c.healthy(priority) {
		healthy = append(healthy, Member{Address: []byte(h.address)})
	}
	return all, healthy
}

// fakeRequest is a request with a list, and the hosts that it has been to.
type fakeRequest struct {
	*fakeCluster
	list   string
	tried  map[string]bool
	panics bool
}

func (r *fakeRequest) List() []byte {
	if r.panics {
		panic("on purpose")
	}
	return []byte(r.list)
}

func (r *fakeRequest) Look(priority, all, healthy uint32) Look {
	var h fakeHost
	if level := r.levels[priority]; int(all) < len(level) {
		h = level[all]
	}
	var l Look
	if list := r.healthy(int(priority)); int(healthy) < len(list) {
		l.Address = []byte(list[healthy].address)
	}
	l.Active, l.Tried, l.Healthy = h.active, r.tried[h.address], !h.sick && !h.fell
	return l
}

// rig is a policy over a fake cluster.
type rig struct {
	*Balancer
	cluster *fakeCluster
	broken  []any
}

func newRig(fallback string, levels ...[]fakeHost) *rig {
	r := &rig{cluster: &fakeCluster{levels: levels}}
	r.Balancer = New("c", Config{Fallback: fallback}, NewJournal(), func(p any) { r.broken = append(r.broken, p) })
	r.Update(r.cluster)
	r.counts()
	return r
}

// hosts makes healthy hosts of equal weight.
func hosts(addresses ...string) []fakeHost {
	var list []fakeHost
	for _, a := range addresses {
		list = append(list, fakeHost{address: a, weight: 1})
	}
	return list
}

// choose returns the address of the chosen host, "" if there is none.
func (r *rig) choose(list string, tried ...string) string {
	q := &fakeRequest{fakeCluster: r.cluster, list: list, tried: map[string]bool{}}
	for _, a := range tried {
		q.tried[a] = true
	}
	return r.chooseFor(q)
}

func (r *rig) chooseFor(q *fakeRequest) string {
	priority, place, ok := r.Choose(r.cluster, q)
	if !ok {
		return ""
	}
	return r.cluster.healthy(int(priority))[place].address
}

// counts takes what was counted, in one line.
func (r *rig) counts() string {
	var all []string
	r.journal.Take(func(c Count) {
		all = append(all, fmt.Sprintf("%s%s=%d", map[Kind]string{Skips: "-", Instances: "instances"}[c.Kind], c.Reason, c.N))
	})
	return strings.Join(all, " ")
}

func TestRig(t *testing.T) {
	r := newRig(LeastRequest, hosts("a:1", "b:1"))
	require.Equal(t, "b:1", r.choose("b:1"))
	require.Equal(t, "listed=1", r.counts())
	require.Empty(t, r.counts())
}
