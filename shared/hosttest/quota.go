package hosttest

import (
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// QuotaPath is where proxies ask the companion for quota.
const QuotaPath = "/v1/quota"

// States of the companion's quota, as a step sets them.
const (
	quotaUp        = "up"
	quotaDown      = "down"
	quotaRestarted = "restarted"
)

// Quota is the part of the companion that divides limits among proxies, without storage.
type Quota struct {
	mu         sync.Mutex
	down       bool
	allocator  *account.Allocator
	generation uint32
}

// Switch changes the state from now on, if the step says so.
func (q *Quota) Switch(step *Step, now time.Time) {
	if step.Companion == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.down = step.Companion.Quota == quotaDown
	if step.Companion.Quota == quotaRestarted {
		q.restart(now, false)
	}
}

// restart begins with nothing; remembers says that nothing was granted before.
func (q *Quota) restart(now time.Time, remembers bool) {
	q.generation++
	q.allocator = account.NewAllocator(q.generation, now, remembers)
}

// Answer is the status and the body of the response to a message; 0 if there is none, since the companion is down.
func (q *Quota) Answer(now time.Time, message []byte) (status int, body []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down {
		return 0, nil
	}
	if q.allocator == nil {
		q.restart(now, true)
	}
	m, err := account.ParseMessage(message)
	if err != nil {
		return 400, []byte(err.Error())
	}
	reply := q.allocator.Answer(now, &m)
	return 200, reply.Append(nil)
}
