package balancer

import (
	"math/rand/v2"
	"slices"
)

// Cluster is what Envoy knows of the hosts of a cluster.
type Cluster interface {
	// Priorities is how many levels of priority there are.
	Priorities() int
	// Hosts returns all hosts of a priority in order, and those of them that are healthy.
	// The memory is used again by the next call.
	Hosts(priority int) (all, healthy []Member)
	// Healthy is the number of healthy hosts of a priority.
	Healthy(priority int) int
}

// Member is a host as Envoy reports it. The address lies in Envoy's memory.
type Member struct {
	Address []byte
	Weight  uint32
}

// host is a host of the index.
type host struct {
	address  string
	weight   uint32
	priority uint32
	all      uint32 // place among all hosts of the priority
	healthy  uint32 // place among the healthy ones, or unhealthy
}

const unhealthy = ^uint32(0)

// index finds hosts by address, and lists the healthy ones by priority. It is built
// again with each update of the cluster, in the same memory.
type index struct {
	hosts     []host
	byAddress map[string]int32
	levels    []level

	// of the build before
	oldHosts     []host
	oldByAddress map[string]int32
}

// level is a priority.
type level struct {
	share   uint32  // of the requests that the fallback sends, in percent
	healthy []int32 // hosts by their place among the healthy ones
	sums    []uint64
}

// build reads the hosts.
func (x *index) build(c Cluster) {
	x.hosts, x.oldHosts = x.oldHosts[:0], x.hosts
	x.byAddress, x.oldByAddress = x.oldByAddress, x.byAddress
	if x.byAddress == nil {
		x.byAddress = map[string]int32{}
	}
	clear(x.byAddress)
	n := c.Priorities()
	x.levels = slices.Grow(x.levels[:0], n)[:n]
	total := 0
	for p := range x.levels {
		all, healthy := c.Hosts(p)
		first := len(x.hosts)
		for i, m := range all {
			x.add(m, uint32(p), uint32(i))
		}
		x.levels[p].read(x, first, healthy)
		total += x.levels[p].availability(len(all))
	}
	x.share(total)
}

// add adds a host. The address is that of the build before, if it was there.
func (x *index) add(m Member, priority, place uint32) {
	var address string
	if at, ok := x.oldByAddress[string(m.Address)]; ok {
		address = x.oldHosts[at].address
	} else {
		address = string(m.Address)
	}
	if _, twice := x.byAddress[address]; !twice {
		x.byAddress[address] = int32(len(x.hosts))
	}
	x.hosts = append(x.hosts, host{address: address, weight: max(1, m.Weight), priority: priority, all: place, healthy: unhealthy})
}

// read finds the healthy hosts among those that begin at first. Both lists are in the
// same order.
func (l *level) read(x *index, first int, healthy []Member) {
	l.healthy, l.sums = l.healthy[:0], l.sums[:0]
	at, sum := first, uint64(0)
	for i, m := range healthy {
		for at < len(x.hosts) && x.hosts[at].address != string(m.Address) {
			at++
		}
		if at == len(x.hosts) {
			return // not as Envoy does it: what comes now is not used
		}
		x.hosts[at].healthy = uint32(i)
		l.healthy = append(l.healthy, int32(at))
		sum += uint64(x.hosts[at].weight)
		l.sums = append(l.sums, sum)
		at++
	}
}

// overprovisioned is Envoy's factor, in percent: a priority in which five of seven hosts
// are healthy takes all.
const overprovisioned = 140

// availability is how much of all requests the healthy hosts can take, in percent. It is
// kept in share for now.
func (l *level) availability(all int) int {
	l.share = 0
	if len(l.healthy) > 0 {
		l.share = uint32(min(100, max(1, overprovisioned*len(l.healthy)/all)))
	}
	return int(l.share)
}

// share gives each priority its share: what it can take, the highest priority first.
func (x *index) share(available int) {
	left := uint32(100)
	for i := range x.levels {
		if l := &x.levels[i]; l.share > 0 {
			l.share = min(left, l.share*100/uint32(min(100, available)))
			left -= l.share
		}
	}
	for i := range x.levels {
		if x.levels[i].share > 0 {
			x.levels[i].share += left // what rounding has left
			return
		}
	}
}

// find returns the host with an address.
func (x *index) find(address []byte) *host {
	if at, ok := x.byAddress[string(address)]; ok {
		return &x.hosts[at]
	}
	return nil
}

// draw returns a random level by share, -1 if no host is healthy.
func (x *index) draw(r *rand.Rand) int {
	n := r.Uint32N(100)
	for i := range x.levels {
		share := x.levels[i].share
		if n < share {
			return i
		}
		n -= share
	}
	return -1
}

// draw returns a place among the healthy hosts, by weight.
func (l *level) draw(r *rand.Rand) int {
	n := r.Uint64N(l.sums[len(l.sums)-1])
	at, _ := slices.BinarySearch(l.sums, n+1)
	return at
}
