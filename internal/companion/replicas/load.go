package replicas

import (
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Load adds up the replicas of a pool, or those that serve a model.
type Load struct {
	Replicas, Ready, Fresh float64
	Waiting, Running, KV   float64       // of the replicas with fresh gauges
	Oldest                 time.Duration // of the ready replicas that have gauges
}

// Add adds a replica. Gauges of the age stale no longer count.
func (l *Load) Add(e *endpoint.Endpoint, stale time.Duration) {
	l.Replicas++
	if e.Ready {
		l.Ready++
		if e.Gauges.Known {
			l.Oldest = max(l.Oldest, e.Gauges.Age)
		}
	}
	if g := e.Gauges; g.Known && g.Age < stale {
		l.Fresh++
		l.Waiting += float64(g.Waiting)
		l.Running += float64(g.Running)
		l.KV += g.KVUse
	}
}
